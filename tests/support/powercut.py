"""A disk that forgets what was not synced, and a way to leave a store as a power cut would."""

from __future__ import annotations

import os
import random
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cas.disk import Disk
from cas.errors import DiskFailed, NoSpace
from cas.store import Store

_FATES = ("writes forgotten", "writes torn", "writes zeroed", "blocks forgotten")


class PowerCut(BaseException):
    """The moment the power goes. No `Exception`: nothing in the engine may handle it."""


@dataclass(slots=True)
class _File:
    path: Path
    synced: int = 0
    linked: bool = False  # whether its folder entry was synced


class ForgetfulDisk(Disk):
    """The real disk, until `cut`: then files lose, tear or garble whatever was never synced.

    What was removed comes back, perhaps, until its folder is synced. `honest=False` plants the bug that a durable store
    must not have: syncs that do nothing.
    """

    def __init__(self, seed: int, *, honest: bool = True) -> None:
        super().__init__()
        self._dice, self._ids, self._honest = random.Random(seed), random.Random(~seed), honest
        self._files: dict[int, _File] = {}
        self._past: list[_File] = []
        self.removed: dict[Path, bytes] = {}  # whose folder was not synced since
        self._counting = threading.Lock()
        self.cut_after: int | None = None  # operations left until the power goes
        self.cut_at: str = ""  # only operations of this name count; empty for all
        self.is_cut = False
        self.lost: Counter[str] = Counter()  # what became of files that were not synced, counted
        self.fail_after: int | None = None  # operations left until one fails
        self.failure: type[DiskFailed | NoSpace] = DiskFailed

    def step(self, verb: str) -> None:
        """Count an operation before it is done; raise what is due."""
        with self._counting:
            if self.cut_after is not None and (self.cut_at in ("", verb) or self.is_cut):
                if self.cut_after <= 0:
                    self.is_cut = True  # from here on nothing happens any more
                    raise PowerCut
                self.cut_after -= 1
            if self.fail_after is not None:
                self.fail_after -= 1
                if self.fail_after < 0:
                    self.fail_after = None
                    raise self.failure("planted")

    def random(self, size: int) -> bytes:
        """Give the same ids, markers and salts for the same seed."""
        with self._counting:
            return self._ids.randbytes(size)

    def create(self, path: Path) -> int:
        self.step("create")
        fd = super().create(path)
        self._files[fd] = _File(path)
        return fd

    def open_write(self, path: Path) -> int:
        fd = super().open_write(path)
        known = next((file for file in self._past if file.path == path), None)
        if known is None:
            known = _File(path, os.fstat(fd).st_size, linked=True)
        else:
            self._past.remove(known)
        self._files[fd] = known
        return fd

    def write(self, fd: int, buffers: Sequence[bytes | bytearray | memoryview], offset: int) -> int:
        self.step("write")
        return super().write(fd, buffers, offset)

    def write_direct(self, fd: int, direct: int, data: memoryview, offset: int) -> None:
        self.step("write")
        super().write_direct(fd, direct, data, offset)

    def truncate(self, fd: int, size: int) -> None:
        self.step("truncate")
        super().truncate(fd, size)
        if fd in self._files:
            self._files[fd].synced = min(self._files[fd].synced, size)

    def unlink(self, path: Path) -> None:
        self.step("unlink")
        if path.suffix == ".pack" and path.exists():
            self.removed[path] = path.read_bytes()
        super().unlink(path)
        self._past = [file for file in self._past if file.path != path]

    def rename(self, path: Path, to: Path) -> None:
        self.step("rename")
        super().rename(path, to)
        self._renamed(path, to)

    def rename_new(self, path: Path, to: Path) -> bool:
        self.step("rename")
        if is_done := super().rename_new(path, to):
            self._renamed(path, to)
        return is_done

    def _renamed(self, path: Path, to: Path) -> None:
        self._past = [file for file in self._past if file.path != to]
        for file in (*self._past, *self._files.values()):
            if file.path == path:
                file.path = to

    def sync(self, fd: int) -> None:
        self.step("sync")
        super().sync(fd)
        if fd in self._files and self._honest:
            self._files[fd].synced = os.fstat(fd).st_size

    def sync_folder(self, path: Path) -> None:
        self.step("sync_folder")
        super().sync_folder(path)
        for file in self._files.values():
            file.linked |= file.path.parent == path
        for removed in [removed for removed in self.removed if removed.parent == path]:
            del self.removed[removed]

    def close(self, fd: int) -> None:
        if fd in self._files:
            self._past.append(self._files.pop(fd))
        super().close(fd)

    def cut(self) -> None:
        """The power goes: each file keeps what was synced, and of the rest whatever chance leaves."""
        for file in (*self._past, *self._files.values()):
            if file.path.exists():
                self._spoil(file)
        for path, data in self.removed.items():
            if self._dice.random() < 0.5 and not path.exists():
                path.write_bytes(data)
                self.lost["removals forgotten"] += 1
        for fd in self._files:
            os.close(fd)
        self._files.clear()
        self._past.clear()
        self.removed.clear()

    def _spoil(self, file: _File) -> None:
        if not file.linked and not file.synced and self._dice.random() < 0.5:
            file.path.unlink()
            self.lost["files forgotten"] += 1
            return
        size = file.path.stat().st_size
        if size <= file.synced:
            return
        file.path.chmod(0o640)
        with file.path.open("r+b") as raw:
            fate = self._dice.randrange(4)
            self.lost[_FATES[fate]] += 1
            if fate == 0:  # the length was lost
                raw.truncate(file.synced)
            elif fate == 1:  # torn
                raw.truncate(self._dice.randint(file.synced, size))
            elif fate == 2:  # the length survived, the bytes did not
                raw.truncate(file.synced)
                raw.truncate(size)
            else:  # some blocks survived, others did not
                for start in range(file.synced, size, 4096):
                    if self._dice.random() < 0.5:
                        raw.seek(start)
                        raw.write(bytes(min(4096, size - start)))


def pull_the_plug(store: Store, disk: ForgetfulDisk) -> None:
    """End a store's threads without letting it write, seal or tidy anything, then lose what was not synced."""
    parts = store._parts
    disk.cut_after, disk.cut_at = 0, ""
    parts.hashers.shutdown()
    parts.syncers.shutdown()
    parts.appenders.shutdown()
    committer = parts.committer
    with committer._wake:
        committer._closing = True
        committer._wake.notify()
    committer._thread.join()
    committer._cell.close()
    parts.files._limit = 0
    parts.files.close()
    parts.pins.close()
    parts.index.close()
    store._lease._open.close()
    if store._lease._place is not None:
        os.close(store._lease._place)
    disk.cut()
