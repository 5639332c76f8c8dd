"""The crossing between event loop and threads: nothing is left behind, nothing is lost."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Iterator
from contextlib import aclosing

import pytest

from api.threads import Threads

PATIENCE_S = 30.0


class Broken(Exception):
    """What an iterator may raise."""


@pytest.fixture
def threads() -> Iterator[Threads]:
    pool = Threads(4)
    yield pool
    pool.close()


def test_a_cancelled_call_ends_with_its_thread(threads: Threads) -> None:
    """However often it is cancelled."""
    entered, go, left = threading.Event(), threading.Event(), threading.Event()

    def step() -> None:
        entered.set()
        go.wait(PATIENCE_S)
        left.set()

    async def scenario() -> None:
        task = asyncio.create_task(threads.run(step))
        await asyncio.get_running_loop().run_in_executor(None, entered.wait, PATIENCE_S)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)
        assert not task.done()
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert left.is_set()

    asyncio.run(scenario())


def test_a_call_cancelled_before_its_turn_never_runs() -> None:
    """It is taken back."""
    pool = Threads(1)
    go, ran = threading.Event(), threading.Event()

    async def scenario() -> None:
        first = asyncio.create_task(pool.run(go.wait, PATIENCE_S))
        second = asyncio.create_task(pool.run(ran.set))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        go.set()
        await first

    asyncio.run(scenario())
    pool.close()
    assert not ran.is_set()


def test_nothing_short_waits_for_what_is_long() -> None:
    """However many steps of answers and of bodies have begun; nor do those wait for each other."""
    pool, go = Threads(1), threading.Event()

    async def scenario() -> None:
        long = [pool.begin_long(go.wait, PATIENCE_S) for _ in range(20)]
        assert await asyncio.wait_for(pool.run_body(lambda: "body"), PATIENCE_S) == "body"
        bodies = [asyncio.create_task(pool.run_body(go.wait, PATIENCE_S)) for _ in range(20)]
        assert await asyncio.wait_for(pool.run(lambda: "short"), PATIENCE_S) == "short"
        go.set()
        assert [await each.result() for each in long] == await asyncio.gather(*bodies) == [True] * 20

    asyncio.run(scenario())
    pool.close()


def test_a_body_is_as_long_as_what_it_ends(threads: Threads) -> None:
    """One of few bytes waits for nothing long; one of many does, one of unknown length, and the last, empty one."""
    assert [threads.for_body(size) for size in (1, 64 * 1024)] == [threads.run] * 2
    assert [threads.for_body(size) for size in (None, 0, 64 * 1024 + 1)] == [threads.run_body] * 3


def test_batches_carry_everything_and_then_the_error(threads: Threads) -> None:
    """In order, and nothing that came before an error is lost."""

    def items() -> Iterator[int]:
        yield from range(7)
        raise Broken("after seven")

    async def scenario() -> list[list[int]]:
        seen: list[list[int]] = []
        try:
            async for batch in threads.batches(items(), lambda batch: len(batch) == 3):
                seen.append(batch)  # noqa: PERF401 - a comprehension would lose what came before the error
        except Broken:
            seen.append([-1])
        return seen

    assert asyncio.run(scenario()) == [[0, 1, 2], [3, 4, 5], [6], [-1]]


def test_the_next_batch_is_made_while_the_last_one_is_used_and_never_more(threads: Threads) -> None:
    """One ahead of its user; when that one leaves, no thread is at the iterator any more."""
    made: list[int] = []
    second = threading.Event()

    def items() -> Iterator[int]:
        for number in itertools.count():
            made.append(number)
            if number == 1:
                second.set()
            yield number

    async def scenario() -> None:
        async with aclosing(threads.batches(items(), lambda batch: len(batch) == 1)) as batches:
            assert await anext(batches) == [0]
            assert await asyncio.to_thread(second.wait, PATIENCE_S)
        assert made == [0, 1]

    asyncio.run(scenario())
    assert made == [0, 1]
