"""A check can be had in parts, and beside collections; what it says is the same as of a whole one in peace (I9)."""

# ruff: noqa: SLF001 - what a promise rests on is looked at inside, not only from the front

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cas import Depth, InUse, Name, Scope, Store
from cas.lease import maintenance_lock
from tests.engine.test_damage import chunks_of, spoil
from tests.support.engine import MIB, noise, opened, prose, push

DATA = [noise(MIB, seed) for seed in range(3)] + [prose(MIB)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    with opened(tmp_path) as store:
        for number, data in enumerate(DATA):
            push(store, str(number), data)
    return tmp_path


@pytest.mark.parametrize("depth", [Depth.DATA, Depth.DEEP])
def test_all_parts_together_find_what_one_whole_check_finds(root: Path, depth: Depth) -> None:
    """And read each byte once: none is left out, none is read in two parts."""
    with opened(root) as store:
        for path in ("0", "3"):
            record = store.get(Name("thing", path))
            assert record is not None
            spoil(store, root, chunks_of(store, record.holds[0])[-1][1].extent)
        whole, read = {f"{f.where}: {f.what}" for f in store.check(depth)}, list[int]()
        assert len(whole) >= 2
        list(store.check(Scope(depth, told=read.append)))
        for parts in (1, 2, 5):
            found, some = set[str](), list[int]()
            for part in range(1, parts + 1):
                found |= {f"{f.where}: {f.what}" for f in store.check(Scope(depth, part, parts, some.append))}
            assert found == whole
            quick: list[int] = []
            list(store.check(Scope(Depth.QUICK, told=quick.append)))
            assert sum(some) - parts * sum(quick) == sum(read) - sum(quick)


def test_a_deep_check_cries_over_nothing_while_packs_are_moved_beside_it(root: Path) -> None:
    """Collections and compactions one after the other, with pushes and deletions between."""
    over, moved = threading.Event(), threading.Event()

    def churn(store: Store) -> None:
        done = 0
        while not over.is_set():
            push(store, f"churn-{done % 3}", DATA[done % 4][: MIB // 2] + noise(MIB // 4, 100 + done))
            store.change(lambda names: names.delete(Name("thing", f"churn-{(done + 1) % 3}")))  # noqa: B023 - used at once
            try:
                store.collect(wait_s=5)
                store.compact(everything=True)
            except InUse:
                continue  # the check looks a second time
            done += 1
            moved.set()

    with opened(root) as store, ThreadPoolExecutor(1) as pool:
        churning = pool.submit(churn, store)
        try:
            for _ in range(4):
                assert list(store.check(Depth.DEEP)) == []
            assert moved.wait(60)  # the checks may have been the quicker ones
        finally:
            over.set()
        churning.result(60)


def test_a_check_keeps_no_collection_waiting(root: Path, tmp_path: Path) -> None:
    """All of them run while it is in the middle of its bytes."""
    ran: list[str] = []
    with opened(root) as store:

        def told(_: int) -> None:
            if not ran:
                ran.append("all")
                store.collect(wait_s=0)  # the blob that is being read keeps its own
                store.compact(everything=True, wait_s=0)
                store.backup(tmp_path.parent / f"{tmp_path.name}-copy")

        assert list(store.check(Scope(Depth.DEEP, told=told))) == []
    assert ran == ["all"]


def test_a_check_waits_for_a_collection_only_once_something_looks_wrong(root: Path) -> None:
    """A sound store is checked beside one; with damage it waits, and says so when that takes too long."""
    with opened(root) as store:
        with maintenance_lock(store._parts.layout):
            assert list(store.check(Depth.DEEP, wait_s=0)) == []
        record = store.get(Name("thing", "0"))
        assert record is not None
        spoil(store, root, chunks_of(store, record.holds[0])[0][1].extent)
        with maintenance_lock(store._parts.layout), pytest.raises(InUse):
            list(store.check(Depth.DATA, wait_s=0.01))
        assert [finding.check for finding in store.check(Depth.DATA)] == ["chunks"]
