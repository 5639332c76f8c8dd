"""Who was let in lately: for what, for how long, and how many are kept."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from api.access.principal import Caller, Principal
from api.basis import Basis
from api.content.repository import Repository
from api.lately import ENTRY_BYTES
from api.v2 import admitted
from api.v2.admitted import Admitted, Wanted
from api.v2.call import Need

NOW = 1_795_437_699.0
LIFE_S = 100
ANN = Caller(Principal("ann"), until=NOW + LIFE_S)
PULL = Wanted(Need.PULL, Repository.of("ann/box"))


@dataclass
class Store:
    """What moves on; a change may leave alone what verdicts are made of."""

    moment: int | None = 7
    now: float = NOW
    is_same: bool = False

    def kept(self) -> Admitted:
        return Admitted(lambda: self.moment, lambda: self.now)

    def basis(self) -> Basis:
        return Basis(7, lambda: self.moment if self.is_same else None)


@pytest.fixture
def store() -> Store:
    return Store()


def test_a_verdict_is_for_the_very_same_words_and_wish(store: Store) -> None:
    """Nothing shown is not the same as an empty line, and a right to one repository is none to another."""
    kept = store.kept()
    kept.keep("", PULL, ANN, store.basis())
    assert kept.find("", PULL) is ANN
    assert [kept.find(shown, PULL) for shown in (None, "=", "x")] == [None] * 3
    for wanted in (
        Wanted(Need.PUSH, PULL.repository),
        Wanted(Need.PULL, Repository.of("ann/bo")),
        Wanted(Need.PULL, PULL.repository, source=Repository.of("ann/c")),
        Wanted(Need.LOGIN),
    ):
        assert kept.find("", wanted) is None


def test_a_verdict_ends_with_what_it_was_made_of(store: Store) -> None:
    """A change that leaves that alone ends nothing; any other ends it for good."""
    kept = store.kept()
    kept.keep("x", PULL, ANN, store.basis())
    store.moment, store.is_same = 8, True
    assert kept.find("x", PULL) is ANN
    store.is_same = False
    assert kept.find("x", PULL) is ANN  # nothing changed since
    store.moment = 9
    assert kept.find("x", PULL) is None
    store.moment, store.is_same = 8, True
    assert kept.find("x", PULL) is None


def test_a_verdict_ends_where_the_present_is_not_known(store: Store) -> None:
    """Then nothing is taken for granted."""
    kept = store.kept()
    kept.keep("x", PULL, ANN, store.basis())
    store.moment = None
    assert kept.find("x", PULL) is None


@pytest.mark.parametrize("now", [NOW - 1, NOW + LIFE_S, NOW + 10 * LIFE_S])
def test_a_verdict_ends_with_what_was_shown(store: Store, now: float) -> None:
    """With its last second, and where the clock was set back, for nobody knows how long that was good then."""
    kept = store.kept()
    kept.keep("x", PULL, ANN, store.basis())
    store.now = now
    assert kept.find("x", PULL) is None
    store.now = NOW
    assert kept.find("x", PULL) is None


def test_only_so_many_verdicts_are_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest go first; one that is kept anew takes no second place."""
    monkeypatch.setattr(admitted, "MOST_BYTES", 16 * (ENTRY_BYTES + 8))
    kept = store.kept()
    shown = [str(number) for number in range(17)]
    for each in (*shown[:2], *shown[1:16]):
        kept.keep(each, PULL, ANN, store.basis())
    assert kept.find(shown[0], PULL) is ANN
    kept.keep(shown[16], PULL, ANN, store.basis())
    assert [kept.find(each, PULL) for each in shown] == [None, *[ANN] * 16]
