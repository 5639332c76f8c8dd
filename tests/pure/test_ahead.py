"""Pieces made ready while others are sent: in order, few at once, and none left behind."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing

import pytest

from api.ahead import Ahead
from api.threads import Threads
from cas import Damaged, FileRange, Packed

PATIENCE_S = 30.0
Piece = FileRange | Packed | bytes


class Loads:
    """Pieces that count how many are being made, or were and are not used."""

    def __init__(self) -> None:
        self.begun = self.over = 0
        self.lock, self.go, self.started = threading.Lock(), threading.Event(), threading.Event()
        self.go.set()

    def piece(self, data: bytes) -> Packed:
        def load() -> list[memoryview]:
            with self.lock:
                self.begun += 1
            self.started.set()
            assert self.go.wait(PATIENCE_S)
            with self.lock:
                self.over += 1
            return [memoryview(data)]

        return Packed(len(data), load)


@pytest.fixture
def loads() -> Loads:
    return Loads()


Use = Callable[[AsyncGenerator[FileRange | bytes, None]], Awaitable[None]]


def scenario(plan: Iterator[Piece], use: Use) -> None:
    """Use the pieces of a plan; afterwards nobody is at work."""

    async def main() -> None:
        threads = Threads(4)
        async with aclosing(Ahead(plan, threads).pieces()) as pieces:
            await use(pieces)
        threads.close()

    before = Ahead.active
    asyncio.run(main())
    assert Ahead.active == before


def test_pieces_come_in_the_order_of_the_plan_whatever_takes_long(loads: Loads) -> None:
    """Decoded ones, bytes and places in files."""
    dice, got = random.Random(1), list[FileRange | bytes]()
    kinds: list[Callable[[int], Piece]] = [
        lambda number: loads.piece(b"%d" % number),
        lambda number: b"%d" % number,
        lambda number: FileRange(number, 0, 1),
    ]
    plan = [dice.choice(kinds)(number) for number in range(500)]

    async def use(pieces: AsyncGenerator[FileRange | bytes, None]) -> None:
        async for piece in pieces:
            got.append(piece)

    scenario(iter(plan), use)
    assert [piece.fd if isinstance(piece, FileRange) else int(piece) for piece in got] == list(range(500))


@pytest.mark.parametrize(("answers", "most"), [(1, 2), (9, 1)])
def test_few_pieces_are_made_ahead_of_the_one_in_use(
    loads: Loads, answers: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However slowly they are used; with many answers at once only one for each."""

    async def use(pieces: AsyncGenerator[FileRange | bytes, None]) -> None:
        used = 0
        async for _ in pieces:
            used += 1
            for _ in range(5):
                await asyncio.sleep(0)
            assert loads.begun <= used + most
        assert used == 50

    monkeypatch.setattr(Ahead, "active", answers - 1)
    scenario(iter([loads.piece(b"x") for _ in range(50)]), use)


@pytest.mark.parametrize("where", ["plan", "load"])
def test_all_pieces_before_an_error_are_given(loads: Loads, where: str) -> None:
    """Whether a piece cannot be found or cannot be decoded."""

    def broken() -> list[memoryview]:
        raise Damaged("a chunk is damaged")

    def plan() -> Iterator[Piece]:
        yield from (loads.piece(b"good") for _ in range(5))
        if where == "plan":
            broken()
        yield Packed(1, broken)
        yield from (loads.piece(b"never") for _ in range(5))

    got = list[object]()

    async def use(pieces: AsyncGenerator[FileRange | bytes, None]) -> None:
        with pytest.raises(Damaged, match="a chunk is damaged"):  # noqa: PT012 - in mid-way
            async for piece in pieces:
                got.append(piece)

    scenario(plan(), use)
    assert got == [b"good"] * 5


@pytest.mark.parametrize("how", ["leaves", "is cancelled"])
def test_who_gives_up_leaves_no_thread_at_work(loads: Loads, how: str) -> None:
    """The files that a thread reads from are let go only after that."""

    async def main() -> None:
        threads, loop = Threads(4), asyncio.get_running_loop()
        loads.go.clear()

        async def use() -> None:
            async with aclosing(Ahead(iter([b"x", *[loads.piece(b"y")] * 9]), threads).pieces()) as pieces:
                async for piece in pieces:
                    if piece == b"x" and how == "leaves":
                        return
            assert loads.begun == loads.over

        using = asyncio.create_task(use())
        if how == "is cancelled":
            await loop.run_in_executor(None, loads.started.wait, PATIENCE_S)
            using.cancel()
        loop.call_later(0.05, loads.go.set)
        await asyncio.gather(using, return_exceptions=True)
        assert loads.begun == loads.over
        threads.close()

    asyncio.run(main())
    assert Ahead.active == 0
