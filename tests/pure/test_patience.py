"""Timers that are moved along instead of made anew."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from api.patience import Patience
from tests.support.timers import Timers

LIMIT_S = 10.0


@pytest.fixture
def loop() -> Timers:
    return Timers()


def waiting(loop: Timers) -> tuple[Patience, list[float]]:
    """Make one that writes down when it called back."""
    over: list[float] = []
    return Patience(cast("asyncio.AbstractEventLoop", loop), LIMIT_S, lambda: over.append(loop.now)), over


def test_it_calls_back_at_its_limit_and_once(loop: Timers) -> None:
    """And is not running any more."""
    patience, over = waiting(loop)
    patience.start()
    loop.go_to(LIMIT_S - 0.1)
    assert patience.is_running
    loop.go_to(5 * LIMIT_S)
    assert over == [LIMIT_S]
    assert not patience.is_running


def test_each_start_begins_the_wait_anew(loop: Timers) -> None:
    """A start that came late is not held against the one before."""
    patience, over = waiting(loop)
    patience.start()
    loop.go_to(9)
    patience.start()
    loop.go_to(18)
    assert over == []
    loop.go_to(30)
    assert over == [19]


def test_what_was_stopped_does_not_call_back(loop: Timers) -> None:
    """Until it is started once more."""
    patience, over = waiting(loop)
    patience.start()
    patience.stop()
    loop.go_to(5 * LIMIT_S)
    assert over == []
    patience.start()
    loop.go_to(100)
    assert over == [6 * LIMIT_S]


def test_a_thousand_starts_within_the_limit_make_one_timer(loop: Timers) -> None:
    """This is what a request pays for."""
    patience, _ = waiting(loop)
    for _ in range(1000):
        patience.start()
        patience.stop()
        loop.go_to(loop.now + LIMIT_S / 2000)
    assert loop.made == 1


def test_nothing_is_left_in_the_loop_of_what_was_closed(loop: Timers) -> None:
    """Or it would keep its connection in memory."""
    patience, over = waiting(loop)
    patience.start()
    patience.close()
    assert loop.timers == []
    loop.go_to(5 * LIMIT_S)
    assert over == []
