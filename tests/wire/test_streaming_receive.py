"""Receiving, message by message: what crosses to threads, in which blocks, and what is left when it ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import cast

import pytest
from starlette.types import Message, Receive

from api import receiving
from api.config import MIB
from api.receiving import BodyIncomplete, BodyTooLarge, ClientGone, receive_into
from api.request import SMALL_BYTES, Bodies
from api.threads import Threads
from cas import NoSpace, Upload
from tests.wire.harness import PATIENCE_S


def messages(*bodies: bytes, end: str = "http.request") -> Receive:
    """Be a client that sends these pieces and then ends, or leaves."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": True} for body in bodies]
    waiting.append({"type": end, "body": b"", "more_body": False})

    async def receive() -> Message:
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]

    return receive


async def taken_whole(receive: Receive, limit: int) -> bytes:
    async with AsyncExitStack() as held:
        return await Bodies(1).take(receive, held, limit, None)


class Sink:
    """An upload that remembers, and says if two threads use it at once."""

    def __init__(self, error: Exception | None = None) -> None:
        self.data, self.sizes, self._error = b"", list[int](), error
        self._lock = threading.Lock()
        self.entered, self.go = threading.Event(), threading.Event()
        self.go.set()
        self.is_busy = False
        self.rests = 0
        self.rested = threading.Event()
        self.announced: int | None = None

    def announce(self, size: int) -> None:
        assert not self.data
        self.announced = size

    def rest(self) -> None:
        with self._alone():
            self.rests += 1
            self.rested.set()
            if self._error is not None:
                raise self._error

    def write(self, *pieces: bytes) -> None:
        with self._alone():
            self.entered.set()
            assert self.go.wait(PATIENCE_S)
            if self._error is not None:
                raise self._error
            self.data += b"".join(pieces)
            self.sizes.append(sum(map(len, pieces)))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        assert self._lock.acquire(blocking=False), "two threads at once"
        self.is_busy = True
        try:
            yield
        finally:
            self.is_busy = False
            self._lock.release()


async def into(
    sink: Sink, threads: Threads, receive: Receive, limit: int | None = None, announced: int | None = None
) -> int:
    upload = cast("Upload", sink)
    return await receive_into(
        receive, lambda: upload, limit_bytes=limit, run=threads.run, announced_bytes=announced, then=lambda size: size
    )


def test_small_pieces_are_gathered_before_they_cross_to_a_thread(threads: Threads) -> None:
    """A hop for each packet would cost more than the work."""
    sink = Sink()
    assert asyncio.run(into(sink, threads, messages(*[b"ab" * 500] * 3000))) == 3_000_000
    assert sink.data == b"ab" * 1_500_000
    assert sink.sizes == [1_049_000, 1_049_000, 902_000]


def test_an_upload_learns_the_length_that_was_announced(threads: Threads) -> None:
    """Before its first byte; of a body in chunks nobody knows."""
    told, untold = Sink(), Sink()
    assert asyncio.run(into(told, threads, messages(b"abc"), announced=3)) == 3
    assert asyncio.run(into(untold, threads, messages(b"abc"))) == 3
    assert (told.announced, untold.announced) == (3, None)


def test_a_body_of_another_length_than_announced_is_incomplete(threads: Threads) -> None:
    """Shorter or longer; no server lets it come so far, but this does not depend on that."""
    for announced in (2, 4):
        with pytest.raises(BodyIncomplete):
            asyncio.run(into(Sink(), threads, messages(b"abc"), announced=announced))


def test_an_announced_body_over_the_limit_is_refused_before_it_is_read(threads: Threads) -> None:
    """Nothing need be received to know."""

    async def never() -> Message:
        raise AssertionError("it was read")

    with pytest.raises(BodyTooLarge):
        asyncio.run(into(Sink(), threads, never, limit=10, announced=11))


@pytest.mark.parametrize(("size", "fits"), [(10, True), (11, False)])
def test_a_limit_is_the_last_size_that_fits(threads: Threads, size: int, fits: bool) -> None:
    """For streams and for small bodies."""
    for call in (
        lambda: into(Sink(), threads, messages(b"a" * size), limit=10),
        lambda: taken_whole(messages(b"a" * size), limit=10),
    ):
        if fits:
            asyncio.run(call())
        else:
            with pytest.raises(BodyTooLarge):
                asyncio.run(call())


def test_a_small_body_that_breaks_off_is_no_body() -> None:
    """ClientGone, and no part of it."""
    with pytest.raises(ClientGone):
        asyncio.run(taken_whole(messages(b'{"a', end="http.disconnect"), limit=100))


def test_large_bodies_are_held_a_few_at_a_time_and_small_ones_always() -> None:
    """Of the second large one no more than the first piece is taken until the first is done with; nobody is refused."""

    async def main() -> None:
        bodies, taken, first, enough = Bodies(1), list[int](), AsyncExitStack(), asyncio.Event()
        large = b"a" * SMALL_BYTES

        async def told() -> Message:
            taken.append(1)
            if len(taken) == 2:
                enough.set()
            return {"type": "http.request", "body": large, "more_body": len(taken) < 4}

        assert len(await bodies.take(messages(large, large), first, MIB, None)) == 2 * SMALL_BYTES
        async with AsyncExitStack() as held:
            waiting = asyncio.create_task(bodies.take(told, held, MIB, None))
            await asyncio.wait_for(enough.wait(), PATIENCE_S)
            async with AsyncExitStack() as other:
                assert await bodies.take(messages(large), other, MIB, None) == large
            assert (len(taken), waiting.done()) == (2, False)
            await first.aclose()
            assert len(await asyncio.wait_for(waiting, PATIENCE_S)) == 4 * SMALL_BYTES

    asyncio.run(main())


def test_the_next_block_is_received_while_the_last_is_written(threads: Threads) -> None:
    """One in flight, one being gathered, and no more."""
    sink = Sink()
    sink.go.clear()
    handed = 0

    async def receive() -> Message:
        nonlocal handed
        handed += 1
        if handed == 4:  # the first block (2 pieces) is being written, the second was gathered meanwhile
            await asyncio.get_running_loop().run_in_executor(None, sink.entered.wait, PATIENCE_S)
            assert sink.is_busy
            sink.go.set()
        return {"type": "http.request", "body": b"a" * (MIB // 2), "more_body": handed < 8}

    assert asyncio.run(into(sink, threads, receive)) == 4 * MIB
    assert sink.sizes == [MIB] * 4


@pytest.mark.parametrize("how", ["cancelled", "gone", "too large"])
def test_no_thread_uses_an_upload_after_its_reception_ended(threads: Threads, how: str) -> None:
    """Whoever discards it then holds it alone."""
    sink = Sink()
    sink.go.clear()
    stuck = asyncio.Event()
    count = 0

    async def receive() -> Message:
        nonlocal count
        count += 1
        if count == 4:
            await asyncio.get_running_loop().run_in_executor(None, sink.entered.wait, PATIENCE_S)
            asyncio.get_running_loop().call_soon(sink.go.set)  # after what comes now
            if how == "gone":
                return {"type": "http.disconnect"}
            if how == "cancelled":
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
                task.cancel()
                await stuck.wait()
        return {"type": "http.request", "body": b"a" * (MIB // 2), "more_body": True}

    async def scenario() -> None:
        task = asyncio.create_task(into(sink, threads, receive, limit=7 * MIB // 4))
        expected = {"cancelled": asyncio.CancelledError, "gone": ClientGone, "too large": BodyTooLarge}
        with pytest.raises(expected[how]):
            await task
        assert sink.entered.is_set()
        assert not sink.is_busy

    asyncio.run(scenario())


def test_an_upload_that_fails_fails_its_reception(threads: Threads) -> None:
    """At once, or with the last block at the latest."""
    for pieces in (1, 2, 9):
        with pytest.raises(OSError, match="disk"):
            asyncio.run(into(Sink(OSError("disk")), threads, messages(*[b"a" * MIB] * pieces)))


@pytest.mark.parametrize(("uploads", "block"), [(1, MIB), (4, MIB), (8, MIB // 2), (16, MIB // 4), (99, MIB // 4)])
def test_blocks_shrink_while_many_uploads_are_on_their_way(threads: Threads, uploads: int, block: int) -> None:
    """So that all of them together hold a bounded amount of memory, and none of them crosses for too little."""
    sink = Sink()

    async def scenario() -> None:
        leave, waiting = asyncio.Event(), asyncio.Semaphore(0)

        async def receive() -> Message:
            waiting.release()
            await leave.wait()
            return {"type": "http.request", "body": b"", "more_body": False}

        others = [asyncio.create_task(into(Sink(), threads, receive)) for _ in range(uploads - 1)]
        for _ in others:
            await waiting.acquire()
        await into(sink, threads, messages(*[b"a" * 65_536] * 64))
        leave.set()
        await asyncio.gather(*others)
        await into(sink, threads, messages(*[b"a" * 65_536] * 64))

    asyncio.run(scenario())
    assert sink.sizes == [block] * (4 * MIB // block) + [MIB] * 4


async def cancelled_before_it_starts(threads: Threads) -> None:
    task = asyncio.create_task(into(Sink(), threads, messages()))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def cancelled_while_it_waits(threads: Threads) -> None:
    waiting = asyncio.Event()

    async def receive() -> Message:
        waiting.set()
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    task = asyncio.create_task(into(Sink(), threads, receive))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def cancelled_again_while_it_settles(threads: Threads) -> None:
    sink, loop = Sink(), asyncio.get_running_loop()
    sink.go.clear()
    task = asyncio.create_task(into(sink, threads, messages(*[b"a" * MIB] * 3)))
    await loop.run_in_executor(None, sink.entered.wait, PATIENCE_S)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)  # a turn of the loop, in which it learns of that
    assert not task.done()
    sink.go.set()
    with pytest.raises(asyncio.CancelledError):
        await task


async def whole(threads: Threads) -> None:
    await into(Sink(), threads, messages(b"a" * MIB, b"a"))


async def broken_off(threads: Threads) -> None:
    with pytest.raises(ClientGone):
        await into(Sink(), threads, messages(b"a" * MIB, end="http.disconnect"))


async def announced_too_large(threads: Threads) -> None:
    with pytest.raises(BodyTooLarge):
        await into(Sink(), threads, messages(), limit=1, announced=2)


async def failed(threads: Threads) -> None:
    with pytest.raises(OSError, match="disk"):
        await into(Sink(OSError("disk")), threads, messages(*[b"a" * MIB] * 3))


@pytest.mark.parametrize(
    "end",
    [
        whole,
        broken_off,
        announced_too_large,
        failed,
        cancelled_before_it_starts,
        cancelled_while_it_waits,
        cancelled_again_while_it_settles,
    ],
)
def test_an_upload_counts_no_longer_once_it_ended_however(
    threads: Threads, end: Callable[[Threads], Awaitable[None]]
) -> None:
    """One forgotten, or counted off twice, would size every later block of this process wrongly."""
    sink = Sink()

    async def scenario() -> None:
        for _ in range(9):  # this many too many, or too few, would show
            await end(threads)
        await into(sink, threads, messages(*[b"a" * 65_536] * 64))

    asyncio.run(scenario())
    assert sink.sizes == [MIB] * 4


def stalling(sink: Sink, *bodies: bytes) -> Receive:
    """Be a client that sends a piece each time the upload has rested."""
    rest = list(bodies)

    async def receive() -> Message:
        assert await asyncio.to_thread(sink.rested.wait, PATIENCE_S)
        sink.rested.clear()
        return {"type": "http.request", "body": rest.pop(0), "more_body": bool(rest)}

    return receive


def test_an_upload_rests_while_its_client_sends_nothing(threads: Threads, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between any two pieces, and never beside a write."""
    monkeypatch.setattr(receiving, "_REST_S", 0.0005)
    sink = Sink()
    pieces = [b"x" * MIB, b"y" * 10, b"z" * 2 * MIB, b"end"]
    assert asyncio.run(into(sink, threads, stalling(sink, *pieces))) == sum(map(len, pieces))
    assert sink.data == b"".join(pieces)


def test_what_goes_wrong_at_rest_ends_the_upload(threads: Threads, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if it had gone wrong in a write; it is not tried again."""
    monkeypatch.setattr(receiving, "_REST_S", 0.0005)
    sink = Sink(NoSpace("full"))

    async def receive() -> Message:
        assert await asyncio.to_thread(sink.rested.wait, PATIENCE_S)
        return {"type": "http.request", "body": b"x" * MIB, "more_body": True}

    with pytest.raises(NoSpace):
        asyncio.run(asyncio.wait_for(into(sink, threads, receive), PATIENCE_S))
    assert (sink.rests, sink.data) == (1, b"")
