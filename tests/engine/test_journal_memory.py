"""The journal may have half a gigabyte a pack: whoever only looks whether it is whole never has all of it in memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cas import Depth, Name, Names, Record, Store
from tests.support.engine import KIB, MIB, noise, push

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
