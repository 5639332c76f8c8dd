"""Who takes the next connection: whoever is busy with fewest, of those that are there."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from api.evenly import Balance, shared_memory


@pytest.fixture
def balance() -> Iterator[Balance]:
    fd = shared_memory(3)
    yield Balance(fd)
    os.close(fd)


def test_a_worker_that_is_alone_takes_whatever_comes(balance: Balance) -> None:
    """There is nobody to leave it to, with memory of its own and in places that others never took."""
    for burden in (Balance().join(0), balance.join(2)):
        for _ in range(100):
            burden.share()
        assert burden.is_light()


def test_whoever_is_busy_with_more_lets_others_go_first(balance: Balance) -> None:
    """Of two that are alike either takes it; the third of four never comes to where two are already."""
    one, other = balance.join(0), balance.join(1)
    assert one.is_light()
    assert other.is_light()
    one.share()
    assert not one.is_light()
    assert other.is_light()
    other.share()
    assert one.is_light()
    assert other.is_light()


def test_of_many_connections_one_more_makes_no_difference(balance: Balance) -> None:
    """A burst of newcomers is taken by all at once, as long as it comes out even by a quarter."""
    one, other = balance.join(0), balance.join(1)
    for _ in range(8):
        other.share()
    for _ in range(10):
        assert one.is_light()
        one.share()
    assert one.is_light()
    one.share()
    assert not one.is_light()


def test_a_connection_between_requests_keeps_nobody_busy(balance: Balance) -> None:
    """Clients leave them open for later; each counts once, however often it is said to be idle or at work."""
    one, _ = balance.join(0), balance.join(1)
    share = one.share()
    share.drop()
    share.drop()
    assert one.is_light()
    share.take()
    share.take()
    share.drop()
    assert one.is_light()


def test_workers_see_each_other_through_the_memory_they_share() -> None:
    """Each process maps it for itself."""
    fd = shared_memory(2)
    one, other = Balance(fd).join(0), Balance(fd).join(1)
    os.close(fd)
    one.share()
    assert not one.is_light()
    other.share()
    assert one.is_light()


def test_nobody_waits_for_a_worker_that_is_gone(balance: Balance) -> None:
    """One that takes no more connections says so; of one that was killed the supervisor does."""
    one, leaving, dead = (balance.join(place) for place in range(3))
    one.share()
    assert not one.is_light()
    leaving.leave()
    leaving.share().drop()  # one that it still had has ended
    assert not one.is_light()
    balance.forget(2)
    dead.share()
    assert one.is_light()


def test_the_next_worker_in_a_place_begins_with_nothing(balance: Balance) -> None:
    """What the one before was busy with went with it."""
    one, other = balance.join(0), balance.join(1)
    other.share()
    balance.forget(1)
    balance.join(1)
    one.share()
    assert not one.is_light()
