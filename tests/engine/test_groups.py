"""Which changes share a commit: those that came while another process committed, and those that were about to come."""

# ruff: noqa: SLF001 - what a promise rests on is looked at inside, not only from the front

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from cas import Digest, Missing, Name, Names, Record, Store
from cas.disk import Cell
from tests.support.engine import KIB, SMALL, HeldDisk, noise, read, wait_for_jobs

_WITHIN_S = 20


@contextmanager
def at_its_last_sync(tmp_path: Path) -> Iterator[tuple[Store, HeldDisk, ThreadPoolExecutor]]:
    """Give a store into which somebody pushes a blob whose bytes the disk is just taking, while its gate is shut."""
    disk = HeldDisk()
    with Store.open(tmp_path, SMALL, create=True, disk=disk) as store, ThreadPoolExecutor(4) as pool:
        keep(store, noise(8 * KIB, 1))  # packs are open by now
        try:
            disk.holds = True
            coming = pool.submit(keep, store, noise(8 * KIB, 2))
            assert disk.reached.wait(_WITHIN_S)
            yield store, disk, pool
        finally:
            disk.gate.set()
        if not disk.fails:
            coming.result(_WITHIN_S)


def keep(store: Store, data: bytes) -> Digest:
    """Push a blob as servers do: its end and its name are one step."""
    digest = Digest.of(data)
    with store.upload() as upload:
        upload.write(data)
        upload.keep(digest, lambda names, staged: names.put(Name("kept", str(digest)), Record(b"", (staged.digest,))))
    return digest


def put(store: Store, path: str) -> int:
    """Put a name by a change; return on which thread."""

    def edit(names: Names) -> int:
        names.put(Name("thing", path), Record(b""))
        return threading.get_ident()

    return store.change(edit)


def test_a_change_shares_its_commit_with_a_blob_that_the_disk_is_just_taking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many they are: three flushes for all."""
    monkeypatch.setattr("cas.commit._GATHER_S", _WITHIN_S)
    with at_its_last_sync(tmp_path) as (store, disk, pool):
        before = store.moment()
        assert before is not None
        changes = [pool.submit(put, store, f"{number}") for number in range(2)]
        wait_for_jobs(store, 2)
        assert store.moment() == before
        disk.gate.set()
        for change in changes:
            change.result(_WITHIN_S)
        assert store.moment() == before + 1
        assert read(store, Digest.of(noise(8 * KIB, 2))) == noise(8 * KIB, 2)


def test_a_change_does_not_wait_long_for_a_disk_that_is_slow(tmp_path: Path) -> None:
    """Nor does the next: each is done while the disk has not answered yet."""
    with at_its_last_sync(tmp_path) as (store, disk, _):
        for number in range(3):
            put(store, f"{number}")
        assert not disk.gate.is_set()


def test_a_blob_that_the_disk_refuses_is_not_waited_for_any_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With nobody about to come, whoever finds nobody committing goes on by itself again."""
    monkeypatch.setattr("cas.commit._GATHER_S", _WITHIN_S)
    with at_its_last_sync(tmp_path) as (store, disk, pool):
        disk.fails = True
        disk.gate.set()
        pool.shutdown()
        assert put(store, "after") == threading.get_ident()
        with pytest.raises(Missing):
            store.stat(Digest.of(noise(8 * KIB, 2)))


def test_a_blob_of_several_runs_is_not_waited_for_while_it_waits_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For its last run but one to be filed, which is a commit."""
    monkeypatch.setattr("cas.commit._GATHER_S", 1000)
    content = noise(5 * SMALL.run_bytes)
    with Store.open(tmp_path, SMALL, create=True) as store, ThreadPoolExecutor(1) as pool:
        for _ in range(5):
            assert pool.submit(keep, store, content).result(_WITHIN_S) == Digest.of(content)
            content = content[::-1] + b"x"


def test_what_comes_while_another_process_commits_is_one_group(tmp_path: Path) -> None:
    """The first of them was there when nobody knew of the others."""
    with Store.open(tmp_path, SMALL, create=True) as store, ThreadPoolExecutor(3) as pool:
        put(store, "the journal's pack is open by now")
        other = Cell(store._parts.layout.journal_cell)
        other.lock()
        before = store.moment()
        assert before is not None
        first = pool.submit(put, store, "first")
        wait_for_jobs(store, 1)
        committer = store._parts.committer
        with committer._wake:  # it is the committer's, which waits for the lock
            assert committer._wake.wait_for(lambda: committer._committing is not None, _WITHIN_S)
        others = [pool.submit(put, store, f"{number}") for number in range(2)]
        wait_for_jobs(store, 3)
        other.unlock()
        for change in (first, *others):
            assert change.result(_WITHIN_S) == committer._thread.ident
        assert store.moment() == before + 1
        other.close()
