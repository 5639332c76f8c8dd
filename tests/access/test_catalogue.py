"""The catalogue is a sorted list of names, in pages: whoever may see a name finds it, and nobody else does."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from api.content import catalogue
from api.content.catalogue import PRIVATE, PUBLIC, Sight
from api.content.repository import Repository
from cas import Names, Store
from tests.support.engine import SMALL

ALL = Sight(everything=True)
PARTS = ["a", "b", "bb", "c0", "library", "app", "app-one", "z_z", "library2", "0"]
names_of_repositories = st.builds(
    lambda parts: str(Repository.of("/".join(parts))), st.lists(st.sampled_from(PARTS), min_size=1, max_size=3)
)


def pages(store: Store, access: str) -> list[list[str]]:
    return [found.value.decode().split("\n") for _, found in store.scan(f"catalogue.{access}")]


def found(store: Store, sight: Sight = ALL, term: str = "") -> list[str]:
    return store.read(lambda reads: list(catalogue.search(reads, sight, term)))


def listed(store: Store, sight: Sight = ALL, *, after: str = "", limit: int = 1000) -> list[str]:
    return store.read(lambda reads: catalogue.listing(reads, sight, after=after, limit=limit))


def enter(store: Store, access: str, entered: list[str]) -> None:
    def edit(names: Names) -> None:
        for name in entered:
            catalogue.add(names, access, name)

    store.change(edit)


@pytest.fixture(autouse=True)
def small_pages() -> Iterator[None]:
    """Pages that split after a few names."""
    with patch.object(catalogue, "PAGE_BYTES", 64), patch.object(catalogue, "_SMALL_BYTES", 16):
        yield


class Machine(RuleBasedStateMachine):
    """Whatever is entered and taken out in whatever order, the pages say what two plain sets would."""

    @initialize()
    def open(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.small = [patch.object(catalogue, "PAGE_BYTES", 64), patch.object(catalogue, "_SMALL_BYTES", 16)]
        for one in self.small:
            one.start()
        self.store = Store.open(Path(self.folder.name) / "root", SMALL, create=True)
        self.model: dict[str, set[str]] = {PUBLIC: set(), PRIVATE: set()}

    @rule(names=st.lists(names_of_repositories, max_size=8), access=st.sampled_from([PUBLIC, PRIVATE]))
    def add(self, names: list[str], access: str) -> None:
        other = PRIVATE if access == PUBLIC else PUBLIC
        fresh = [name for name in names if name not in self.model[other]]
        enter(self.store, access, fresh)
        self.model[access].update(fresh)

    @rule(names=st.lists(names_of_repositories, max_size=8), access=st.sampled_from([PUBLIC, PRIVATE]))
    def remove(self, names: list[str], access: str) -> None:
        def edit(inside: Names) -> None:
            for name in names:
                catalogue.remove(inside, access, name)

        self.store.change(edit)
        self.model[access].difference_update(names)

    @invariant()
    def pages_are_sorted_and_none_is_empty_or_too_large(self) -> None:
        for access, model in self.model.items():
            kept = pages(self.store, access)
            assert [name for page in kept for name in page] == sorted(model)
            assert all(len("\n".join(page)) <= 64 for page in kept)

    @rule(term=st.sampled_from(["", "a", "app", "y/", "library/", "b/b", "nowhere"]))
    def search(self, term: str) -> None:
        everything = sorted(self.model[PUBLIC] | self.model[PRIVATE])
        assert found(self.store, ALL, term) == [name for name in everything if term in name]
        nobody = Sight(everything=False)
        assert found(self.store, nobody, term) == [name for name in sorted(self.model[PUBLIC]) if term in name]

    @rule(
        after=st.one_of(st.just(""), st.sampled_from(PARTS), names_of_repositories),
        limit=st.integers(0, 9),
        prefixes=st.lists(st.sampled_from(["", "a/", "b/", "library/", "library/app", "bb/app", "0/"]), max_size=3),
    )
    def list_some(self, after: str, limit: int, prefixes: list[str]) -> None:
        def may_see(name: str) -> bool:
            return name.startswith(tuple(prefixes)) and hash_of(name) % 3 > 0

        sight = Sight(everything=False, prefixes=tuple(prefixes), may_see=may_see)
        seen = self.model[PUBLIC] | {name for name in self.model[PRIVATE] if may_see(name)}
        assert found(self.store, sight) == sorted(seen)
        short = sorted(Repository.of(name).short for name in seen)
        assert listed(self.store, sight, after=after, limit=limit) == [name for name in short if name > after][:limit]

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.folder.cleanup()
            for one in self.small:
                one.stop()


def hash_of(name: str) -> int:
    """Same in every run."""
    return sum(name.encode())


TestAgainstSets = Machine.TestCase
TestAgainstSets.settings = settings(max_examples=30, stateful_step_count=25)


class TestPages:
    """However names come and go, pages stay few and small."""

    def test_a_page_is_split_in_the_middle_of_its_bytes(self, store: Store) -> None:
        """Not of its lines: long names behind short ones would be too much for a page by themselves."""
        short, long = [f"a/{n}" for n in range(3)], [f"library2/library2/library{n}" for n in range(3)]
        enter(store, PUBLIC, [*short, *long])
        assert pages(store, PUBLIC) == [[*short, long[0]], long[1:]]

    @pytest.mark.parametrize("order", ["ascending", "descending", "shuffled"])
    def test_names_entered_in_any_order_come_out_in_byte_order(self, store: Store, order: str) -> None:
        """And pages are at least half full on average, but for the last."""
        wanted = [f"user{n:03}/app" for n in range(200)]
        entered = {
            "ascending": wanted,
            "descending": wanted[::-1],
            "shuffled": random.Random(3).sample(wanted, len(wanted)),
        }[order]
        for start in range(0, 200, 20):
            enter(store, PRIVATE, entered[start : start + 20])
        assert found(store) == wanted
        assert len(pages(store, PRIVATE)) <= 2 + 200 * 12 / 24

    def test_pages_left_nearly_empty_join(self, store: Store) -> None:
        """Most names go; the walk past the others is short again."""
        wanted = [f"user{n:03}/app" for n in range(200)]
        enter(store, PRIVATE, wanted)
        before = len(pages(store, PRIVATE))

        def edit(names: Names) -> None:
            for n, name in reversed(list(enumerate(wanted))):
                if n % 4:
                    catalogue.remove(names, PRIVATE, name)

        store.change(edit)
        assert found(store) == wanted[::4]
        assert len(pages(store, PRIVATE)) <= 0.7 * min(before, 50)

    def test_a_name_that_may_be_seen_for_several_reasons_is_seen_once(self, store: Store) -> None:
        """Prefixes that cover each other, in whatever order they were given."""
        enter(store, PRIVATE, ["bob/a", "bob/b", "library/c"])
        sight = Sight(everything=False, prefixes=("bob/", "", "bob/a", "library/"), may_see=lambda _: True)
        assert found(store, sight) == ["bob/a", "bob/b", "library/c"]
        assert listed(store, sight) == ["bob/a", "bob/b", "c"]

    def test_entering_a_name_twice_is_entering_it_once(self, store: Store) -> None:
        """And taking it out once is enough."""
        enter(store, PUBLIC, ["a/b", "a/b"])
        enter(store, PUBLIC, ["a/b"])
        assert found(store) == ["a/b"]
        store.change(lambda names: catalogue.remove(names, PUBLIC, "a/b"))
        store.change(lambda names: catalogue.remove(names, PUBLIC, "a/b"))
        assert found(store) == []
        assert pages(store, PUBLIC) == []


def test_a_term_never_matches_across_two_names(store: Store) -> None:
    """Pages are texts of many lines, and no answer shows it."""
    enter(store, PUBLIC, ["a/a", "a/b", "b/a", "b/b"])
    assert found(store, ALL, "a\na") == found(store, ALL, "\n") == []
    assert found(store, ALL, "b/") == ["b/a", "b/b"]
