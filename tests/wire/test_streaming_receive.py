"""Receiving, message by message: what crosses to threads, in which blocks, and what is left when it ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import pytest
from starlette.types import Message, Receive

from api.streaming import BodyIncomplete, BodyTooLarge, ClientGone, receive_bytes, receive_into
from api.threads import Threads
from cas import Upload
from tests.wire.harness import PATIENCE_S


def messages(*bodies: bytes, end: str = "http.request") -> Receive:
    """Be a client that sends these pieces and then ends, or leaves."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": True} for body in bodies]
    waiting.append({"type": end, "body": b"", "more_body": False})

    async def receive() -> Message:
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]

    return receive


class Sink:
    """An upload that remembers, and says if two threads use it at once."""

    def __init__(self, error: Exception | None = None) -> None:
        self.data, self.writes, self._error = b"", 0, error
        self._lock = threading.Lock()
        self.entered, self.go = threading.Event(), threading.Event()
        self.go.set()
        self.is_busy = False

    def write(self, data: bytes) -> None:
        with self._alone():
            self.entered.set()
            assert self.go.wait(PATIENCE_S)
            if self._error is not None:
                raise self._error
            self.data += data
            self.writes += 1

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
    return await receive_into(receive, upload, limit_bytes=limit, run=threads.run, announced_bytes=announced)


def test_small_pieces_are_gathered_before_they_cross_to_a_thread(threads: Threads) -> None:
    """A hop for each packet would cost more than the work."""
    sink = Sink()
    assert asyncio.run(into(sink, threads, messages(*[b"ab" * 500] * 3000))) == 3_000_000
    assert sink.data == b"ab" * 1_500_000
    assert sink.writes <= 12


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
        lambda: receive_bytes(messages(b"a" * size), limit_bytes=10),
    ):
        if fits:
            asyncio.run(call())
        else:
            with pytest.raises(BodyTooLarge):
                asyncio.run(call())


def test_a_small_body_that_breaks_off_is_no_body() -> None:
    """ClientGone, and no part of it."""
    with pytest.raises(ClientGone):
        asyncio.run(receive_bytes(messages(b'{"a', end="http.disconnect"), limit_bytes=100))


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
        return {"type": "http.request", "body": b"a" * 131_072, "more_body": handed < 8}

    assert asyncio.run(into(sink, threads, receive)) == 8 * 131_072
    assert sink.writes == 8


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
        return {"type": "http.request", "body": b"a" * 131_072, "more_body": True}

    async def scenario() -> None:
        task = asyncio.create_task(into(sink, threads, receive, limit=400_000))
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
            asyncio.run(into(Sink(OSError("disk")), threads, messages(*[b"a" * 262_144] * pieces)))
