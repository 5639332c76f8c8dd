"""Answers that threads write by themselves: every byte in order, few in memory, and no thread held by a slow client."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from api.config import HttpSettings
from api.outlet import LentData, Outlet
from api.relay import Relay
from api.threads import Threads
from api.zerocopy import FileSender
from cas import Damaged, FileRange, Packed
from tests.wire.harness import PATIENCE_S

KIB = 1 << 10
SIZE = 4 << 20
Piece = FileRange | Packed | bytes


class Source:
    """Data of which any part can be a piece of any kind; counts what is made ready."""

    def __init__(self, path: Path) -> None:
        self.data = random.Random(3).randbytes(SIZE)
        path.write_bytes(self.data)
        self.fd = os.open(path, os.O_RDONLY)
        self.begun = self.over = 0
        self.threads: list[str] = []  # in which it was made ready
        self.lock, self.go, self.started = threading.Lock(), threading.Event(), threading.Event()
        self.go.set()

    def packed(self, start: int, stop: int) -> Packed:
        def load() -> list[memoryview]:
            with self.lock:
                self.begun += 1
                self.threads.append(threading.current_thread().name)
            self.started.set()
            assert self.go.wait(PATIENCE_S)
            middle = (start + stop) // 2  # as two frames
            with self.lock:
                self.over += 1
            return [memoryview(self.data[start:middle]), memoryview(self.data[middle:stop])]

        return Packed(stop - start, load)

    def place(self, start: int, stop: int) -> FileRange:
        return FileRange(self.fd, start, stop - start)

    def inline(self, start: int, stop: int) -> bytes:
        return self.data[start:stop]

    def ends_early(self, _fd: int, missing: int, /) -> Damaged:
        return Damaged(f"a pack ends {missing} bytes early")

    def close(self) -> None:
        os.close(self.fd)


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Source]:
    with closing(Source(tmp_path / "pack")) as made:
        yield made


def cut(source: Source, lengths: Callable[[], int], kinds: Callable[[int, int], Piece]) -> Iterator[Piece]:
    """Cut all data into pieces."""
    at = 0
    while at < SIZE:
        stop = min(SIZE, at + lengths())
        yield kinds(at, stop)
        at = stop


class Client:
    """Takes what comes, once it may; `late` is set when the loop was first handed what it did not take."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * KIB)
        self.theirs.settimeout(PATIENCE_S)
        self.may_take, self.late, self.got = threading.Event(), asyncio.Event(), bytearray()
        finish = Outlet.finish

        async def told(outlet: Outlet, rest: Any) -> None:
            self.late.set()
            await finish(outlet, rest)

        monkeypatch.setattr(Outlet, "finish", told)

    def take(self, most: int = 1 << 20) -> None:
        with self.theirs:
            assert self.may_take.wait(PATIENCE_S)
            while data := self.theirs.recv(most):
                self.got += data


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    return Client(monkeypatch)


Use = Callable[[asyncio.Task[None]], Awaitable[None]]


async def to_its_end(task: asyncio.Task[None]) -> None:
    await task


def relay(source: Source, plan: Iterator[Piece], client: Client, use: Use = to_its_end, most: int = 1 << 20) -> None:
    """Relay a plan to a client; afterwards nobody is at work, and the client has all that was written."""

    async def main() -> None:
        threads, loop = Threads(4), asyncio.get_running_loop()
        taking = loop.run_in_executor(None, client.take, most)

        _, writer = await asyncio.open_connection(sock=client.ours)
        sender = FileSender(writer.transport, HttpSettings(), threads)
        relay = Relay(source, plan, threads)
        await relay.begin()
        try:
            await use(asyncio.create_task(sender.lend(LentData(SIZE, relay.write))))
        finally:
            assert source.begun == source.over
            writer.close()
            client.may_take.set()
            await taking
            threads.close()

    before = Relay.active
    asyncio.run(main())
    assert Relay.active == before


def test_what_follows_the_first_piece_is_in_the_way_of_nothing_short(source: Source, client: Client) -> None:
    """Of a short answer that piece is all."""
    client.may_take.set()
    relay(source, cut(source, lambda: 100 * KIB, source.packed), client)
    first, *others = source.threads
    assert "long" not in first
    assert others
    assert all("long" in each for each in others)


@pytest.mark.parametrize("most", [1 << 20, 3000])
def test_bytes_come_in_the_order_of_the_plan(source: Source, client: Client, most: int) -> None:
    """Decoded ones, bytes, and files short and long; a client that is quick, and one that takes a little each time."""
    dice = random.Random(most)

    def piece(start: int, stop: int) -> Piece:
        kinds = source.packed, source.place, source.inline
        return dice.choice(kinds)(start, stop)

    client.may_take.set()
    relay(source, cut(source, lambda: dice.choice([1, 5000, 60 * KIB, 700 * KIB]), piece), client, most=most)
    assert client.got == source.data


@pytest.mark.parametrize(("answers", "most"), [(1, 2), (5, 1)])
def test_a_client_that_takes_nothing_holds_no_thread_and_few_pieces(
    source: Source, client: Client, answers: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two at once, or one where there are many answers, beside the first of all. It gets everything when it goes on."""
    at_rest: list[tuple[int, int]] = []

    async def use(task: asyncio.Task[None]) -> None:
        await client.late.wait()
        at_rest.append((source.begun, source.over))
        client.may_take.set()
        await task

    monkeypatch.setattr(Relay, "active", answers - 1)
    relay(source, cut(source, lambda: 256 * KIB, source.packed), client, use)
    ((begun, over),) = at_rest
    assert begun == over <= most + 1
    assert client.got == source.data


def test_files_behind_what_a_client_did_not_take_are_left_to_the_loop_together(source: Source, client: Client) -> None:
    """They cost nothing until they are sent; a crossing to threads for each would."""
    rounds: list[int] = []
    plan = cut(source, lambda: 4 * KIB, lambda start, stop: (source.packed if not start else source.place)(start, stop))

    async def use(task: asyncio.Task[None]) -> None:
        await client.late.wait()
        client.may_take.set()
        await task

    work = Relay._work  # noqa: SLF001

    def counting(self: Relay, outlet: Outlet) -> None:
        rounds.append(1)
        work(self, outlet)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Relay, "_work", counting)
        relay(source, plan, client, use)
    assert client.got == source.data
    assert len(rounds) < SIZE // (4 * KIB) // 8


def broken() -> list[memoryview]:
    raise Damaged("a chunk is damaged")


def a_mistake() -> list[memoryview]:
    return [memoryview(b"x" * (1 // 0))]


@pytest.mark.parametrize("where", ["plan", "load", "a mistake of ours"])
@pytest.mark.parametrize("is_slow", [False, True])
def test_all_bytes_before_an_error_are_written_and_none_behind_it(
    source: Source, client: Client, where: str, is_slow: bool
) -> None:
    """Whether a piece cannot be found or cannot be decoded, and whatever the client took by then."""
    good = 10 * 50_000

    def plan() -> Iterator[Piece]:
        yield from (source.packed(at, at + 50_000) for at in range(0, good, 50_000))
        if where == "plan":
            broken()
        yield Packed(1, broken if where == "load" else a_mistake)
        yield from (source.packed(at, at + 50_000) for at in range(0, good, 50_000))

    async def use(task: asyncio.Task[None]) -> None:
        if is_slow:
            await client.late.wait()
            client.may_take.set()
        with pytest.raises(ZeroDivisionError if where == "a mistake of ours" else Damaged):
            await task

    if not is_slow:
        client.may_take.set()
    relay(source, plan(), client, use)
    assert client.got == source.data[:good]


@pytest.mark.parametrize("length", [100 * KIB, 1 << 20])
def test_a_file_that_ends_early_is_damage_behind_the_bytes_that_are_there(
    source: Source, client: Client, length: int
) -> None:
    """Whether a thread writes it, or the loop."""
    os.truncate(f"/proc/self/fd/{source.fd}", 70_000)

    async def use(task: asyncio.Task[None]) -> None:
        with pytest.raises(Damaged, match=f"a pack ends {length - 70_000} bytes early"):
            await task

    client.may_take.set()
    relay(source, iter([source.place(0, length), source.packed(0, 5)]), client, use)
    assert client.got == source.data[:70_000]


def test_who_gives_up_leaves_no_thread_at_work(source: Source, client: Client) -> None:
    """The files that a thread reads from are let go only after that."""

    def plan() -> Iterator[Piece]:
        yield b"first"
        yield from cut(source, lambda: 50_000, source.packed)

    async def use(task: asyncio.Task[None]) -> None:
        source.go.clear()
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(None, source.started.wait, PATIENCE_S)
        task.cancel()
        loop.call_later(0.05, source.go.set)
        with pytest.raises(asyncio.CancelledError):
            await task

    relay(source, plan(), client, use)
    assert (b"first" + source.data).startswith(client.got)
    assert len(client.got) < SIZE // 2


def test_a_client_that_left_ends_it(source: Source, client: Client) -> None:
    """By the error of whoever wrote."""

    async def use(task: asyncio.Task[None]) -> None:
        with pytest.raises(OSError, match=r"Broken pipe|reset"):
            await task

    client.theirs.shutdown(socket.SHUT_RD)
    client.may_take.set()
    relay(source, cut(source, lambda: 256 * KIB, source.packed), client, use)
