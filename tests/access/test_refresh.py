"""Refresh tokens in a real store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from api.access import refresh
from cas import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "root", create=True) as opened:
        yield opened


def make(store: Store, user: str, number: int, stamp: str = "s") -> str:
    return store.change(lambda names: refresh.issue(names, user, stamp, b"%032d" % number, 1000.0 + number))


def owner(store: Store, token: str) -> tuple[str, str] | None:
    return store.read(lambda reads: refresh.owner(reads, token))


def test_a_refresh_token_belongs_to_the_account_it_was_made_for(store: Store) -> None:
    """It is told whose it is, under which stamp; other people's tokens are not touched by it."""
    ann, bob = make(store, "ann", 1, "one"), make(store, "bob.b", 2, "two")
    assert owner(store, ann) == ("ann", "one")
    assert owner(store, bob) == ("bob.b", "two")


def test_a_refresh_token_cannot_be_read_out_of_the_store(store: Store) -> None:
    """Who can read the index, or a copy of it, has no password from it."""
    secret = make(store, "ann", 1).rpartition(".")[2]
    ((name, record),) = store.scan(refresh.REFRESH)
    assert secret not in name.path
    assert secret.encode() not in record.value


@pytest.mark.parametrize(
    "text", ["", ".", "ann", "ann.", "ann:x.y", "ann.\0", "ä.b", "x" * 10_000, "ann." + "A" * 43, "\ud800.x"]
)
def test_what_is_no_refresh_token_belongs_to_nobody(store: Store, text: str) -> None:
    """Garbage of every kind is answered, not stumbled over."""
    make(store, "ann", 1)
    assert owner(store, text) is None


def test_a_revoked_refresh_token_is_over(store: Store) -> None:
    """All of one account, none of another whose name begins alike."""
    mine, also_mine, other = make(store, "ann", 1), make(store, "ann", 2), make(store, "ann.b", 3)
    assert store.change(lambda names: refresh.revoke_all(names, "ann")) == 2
    assert (owner(store, mine), owner(store, also_mine)) == (None, None)
    assert owner(store, other) == ("ann.b", "s")
    assert store.change(lambda names: refresh.revoke_all(names, "ann")) == 0


def test_an_account_has_a_bounded_number_of_refresh_tokens(store: Store) -> None:
    """A machine that logs in for every job leaves no more than so many; its oldest ends first."""
    tokens = [make(store, "ann", number) for number in range(refresh.MOST + 2)]
    assert [owner(store, token) is None for token in tokens] == [True, True] + [False] * refresh.MOST
    assert len(store.scan(refresh.REFRESH)) == refresh.MOST
