"""What is kept for the next one: for how long it is taken to be in memory, and how much there is room for."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from api.basis import Basis
from api.lately import Lately

ROOM = 160


@dataclass
class Store:
    """What moves on, and leaves alone what values are made of."""

    moment: int = 7
    now: float = 1_795_437_699.0
    looks: int = 0
    kept: Lately[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.kept = Lately(ROOM, lambda: self.moment, lambda: self.now)

    def keep(self, key: str, value: int, size: int = 10) -> None:
        self.kept.keep(key, value, Basis(self.moment, self.look), size)

    def look(self) -> int:
        self.looks += 1
        return self.moment


@pytest.fixture
def store() -> Store:
    return Store()


def test_what_a_value_rests_on_is_looked_up_once_for_each_change(store: Store) -> None:
    """And what is told of it then is of that moment."""
    store.keep("a", 1)
    for moment in (7, 8, 8, 9):
        store.moment = moment
        basis = store.kept.still("a")
        assert basis is not None
        assert basis.moment == moment
    assert store.looks == 2


def test_to_be_told_again_is_not_to_be_looked_at(store: Store) -> None:
    """Rows that were looked at within a minute are in memory; that a value was given says nothing of them."""
    store.keep("a", 1)
    for _ in range(3):
        store.now += 25
        assert store.kept.still("a") is not None
    store.moment = 8
    assert store.kept.still("a") is None
    assert (store.kept.find("a"), store.looks) == (None, 0)


def test_a_look_makes_a_minute_of_the_next_one(store: Store) -> None:
    """As often as there are changes."""
    store.keep("a", 1)
    for moment in range(8, 12):
        store.now, store.moment = store.now + 50, moment
        assert store.kept.still("a") is not None


def test_what_was_kept_first_makes_room(store: Store) -> None:
    """What is kept anew is the last one, and counts once; what would take a large part of the room is not kept."""
    for number in range(16):
        store.keep(str(number), number)
    store.keep("0", 100)
    store.keep("more", 1)
    assert [store.kept.find(key) for key in ("0", "1", "2", "more")] == [100, None, 2, 1]
    store.keep("large", 1, size=11)
    assert store.kept.find("large") is None
