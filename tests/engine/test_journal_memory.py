"""The journal may have half a gigabyte a pack, and many packs: nobody ever has all that one says in memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cas import Depth, Name, Names, Record, Staged, Store, rebuild_index
from cas.records import Role
from tests.support.dump import dump
from tests.support.engine import KIB, MIB, flip, noise, packs_of, push, stage

JOURNAL = 24 * MIB
STEP = 64
SIZE = 4 * KIB


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A store with a journal of many names, and a chunk."""
    with Store.open(tmp_path / "root", create=True) as store:
        push(store, "chunk", noise(100 * KIB))
        for start in range(0, JOURNAL // SIZE, STEP):
            store.change(putting(range(start, start + STEP)))
    return tmp_path / "root"


def putting(numbers: range) -> Callable[[Names], None]:
    def edit(names: Names) -> None:
        for number in numbers:
            names.put(Name("thing", f"{number:06}"), Record(noise(SIZE, number)))

    return edit


@contextmanager
def at_most(limit: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < limit


def test_a_backup_does_not_hold_the_journal(root: Path, tmp_path: Path) -> None:
    """It copies a few MiB at a time, and looks at each record by itself."""
    with Store.open(root) as store, at_most(JOURNAL // 2):
        assert store.backup(tmp_path / "backup").damaged == []


@pytest.mark.parametrize("depth", [Depth.QUICK, Depth.DATA])
def test_a_check_does_not_hold_the_journal(root: Path, depth: Depth) -> None:
    """What it remembers of a change is its number and that of the one before."""
    with Store.open(root) as store, at_most(JOURNAL // 2):
        assert list(store.check(depth)) == []


def test_a_collection_does_not_hold_the_journal(root: Path) -> None:
    """It moves one change after the other."""
    with Store.open(root) as store:
        store.change(putting(range(1)))
        store.change(lambda names: names.delete(Name("thing", "000000")))
        with at_most(JOURNAL // 4):
            report = store.compact(everything=True)
        assert report.left == []
        assert report.journal.moved_bytes > JOURNAL - MIB


def test_a_rebuild_does_not_hold_the_journal(root: Path) -> None:
    """What it remembers of a change is where it is told, and which one came before."""
    with Store.open(root) as store:
        before = dump(store)
    with at_most(JOURNAL // 4):
        assert rebuild_index(root, force=True).damaged == []
    with Store.open(root) as store:
        assert dump(store) == before


def test_a_rebuild_does_not_hold_small_blobs(tmp_path: Path) -> None:
    """Those that lie in the journal itself."""
    size = 32 * KIB
    with Store.open(tmp_path, create=True) as store:
        for start in range(0, JOURNAL // size, STEP):
            some = [stage(store, noise(size, number)) for number in range(start, start + STEP)]

            def keep(names: Names, start: int = start, some: list[Staged] = some) -> None:
                for staged in some:
                    names.keep(staged)
                held = tuple(staged.digest for staged in some)
                names.put(Name("thing", f"{start:06}"), Record(b"", held, size * STEP))

            store.change(keep)
        before = dump(store)
    with at_most(JOURNAL // 2):
        assert rebuild_index(tmp_path, force=True).blobs == JOURNAL // size
    with Store.open(tmp_path) as store:
        assert dump(store) == before


def test_a_repair_does_not_hold_the_journal(root: Path) -> None:
    """Of a journal pack with a damaged record it copies the good ones, and says a thousand names at a time again."""
    (pack,) = packs_of(root, Role.JOURNAL)
    flip(pack, pack.stat().st_size // 2)
    with Store.open(root) as store:
        with at_most(JOURNAL):
            store.repair()
        assert list(store.check(Depth.DEEP)) == []
