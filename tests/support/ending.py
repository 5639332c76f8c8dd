"""Work that ends at each change of the disk in turn: by a failure that is said, or as a process that is killed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import lmdb
import pytest

from cas import Store
from cas.disk import Disk
from cas.layout import Layout
from cas.mirror import CopyReport
from tests.support.steps import SteppingDisk


class Ends(BaseException):
    """The process ends here. No `Exception`: nothing may handle it."""


class BreakingDisk(SteppingDisk):
    """The real disk, whose n-th change fails; after an end there is no further one."""

    def __init__(self, after: int, failure: type[BaseException]) -> None:
        super().__init__()
        self._left, self._failure = after, failure

    def _step(self) -> None:
        self._left -= 1
        if self._left < 0 and (self._failure is Ends or self._left == -1):
            raise self._failure("planted")

    @property
    def broke(self) -> bool:
        return self._left < 0

    def rename(self, path: Path, to: Path) -> None:
        self._step()
        super().rename(path, to)

    def rename_new(self, path: Path, to: Path) -> bool:
        self._step()
        return super().rename_new(path, to)

    def unlink(self, path: Path) -> None:
        self._step()
        super().unlink(path)


@pytest.fixture
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody wait for the disk: a process that ends takes nothing along that it wrote, so no sync proves anything.

    Each is a change of the disk as ever, at which work ends. Else thousands of them take minutes on a slow disk.
    """
    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, lambda _fd: None)
    monkeypatch.setattr(lmdb, "open", partial(lmdb.open, sync=False))


def each_step(work: Callable[[BreakingDisk], object], failure: type[BaseException], limit: int = 200) -> int:
    """Run work whose first, second … change of the disk fails, until none does; return how many there were."""
    for step in range(limit):
        disk = BreakingDisk(step, failure)
        try:
            work(disk)
        except failure:
            continue
        assert not disk.broke
        return step
    raise AssertionError(f"no end after {limit} steps")


def use(store: Store, disk: Disk) -> None:
    """Let the store's next backup go by this disk; the rest of it goes by its own."""
    object.__setattr__(store._parts, "disk", disk)


def each_backup(
    store: Store,
    first: Path,
    failure: type[BaseException],
    *,
    left: Callable[[Path], None],
    done: Callable[[CopyReport, Path], None],
) -> None:
    """Bring a backup up to date whose making ends at each change of the disk in turn, and then by one more call.

    Args:
        store: the backup's.
        first: what the backup is at the beginning.
        failure: how it ends.
        left: judges what was left, a copy of it.
        done: judges what the next call made of it.
    """
    backup, seen = first.with_name("backup"), first.with_name("seen")

    def work(disk: BreakingDisk) -> None:
        shutil.rmtree(backup, ignore_errors=True)
        shutil.copytree(first, backup)
        try:
            use(store, disk)
            store.backup(backup)
        except failure:
            shutil.copytree(backup, seen)
            left(seen)
            shutil.rmtree(seen)
            use(store, Disk())
            done(store.backup(backup), backup)
            raise

    assert each_step(work, failure) > 10
    use(store, Disk())


def cut_off_backup(store: Store, backup: Path) -> None:
    """Let a backup end just before its new index takes the old one's place, when all else is there."""

    class Last(BreakingDisk):
        def rename(self, path: Path, to: Path) -> None:
            if to == Layout(backup).index_data:
                raise Ends
            super().rename(path, to)

    use(store, Last(1000, Ends))
    with pytest.raises(Ends):
        store.backup(backup)
    use(store, Disk())
