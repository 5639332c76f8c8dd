"""A disk that forgets what was not synced, and a way to leave a store as a power cut would."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cas.disk import Disk
from cas.errors import DiskFailed, NoSpace
from cas.store import Store


class PowerCut(BaseException):
    """The moment the power goes. No `Exception`: nothing in the engine may handle it."""


@dataclass(slots=True)
class _File:
    path: Path
    synced: int = 0
    linked: bool = False  # whether its folder entry was synced


class ForgetfulDisk(Disk):
    """The real disk, until `cut`: then files lose, tear or garble whatever was never synced.

    `honest=False` plants the bug that a durable store must not have: syncs that do nothing.
    """

    def __init__(self, seed: int, *, honest: bool = True) -> None:
        super().__init__()
        self._dice, self._honest = random.Random(seed), honest
        self._files: dict[int, _File] = {}
        self._past: list[_File] = []
        self.cut_after: int | None = None  # operations left until the power goes
        self.fail_after: int | None = None  # operations left until one fails
        self.failure: type[DiskFailed | NoSpace] = DiskFailed

    def _step(self) -> None:
        if self.cut_after is not None:
            if self.cut_after <= 0:
                raise PowerCut
            self.cut_after -= 1
        if self.fail_after is not None:
            self.fail_after -= 1
            if self.fail_after < 0:
                self.fail_after = None
                raise self.failure("planted")

    def create(self, path: Path) -> int:
        self._step()
        fd = super().create(path)
        self._files[fd] = _File(path)
        return fd

    def write(self, fd: int, buffers: Sequence[bytes | bytearray | memoryview], offset: int) -> int:
        self._step()
        return super().write(fd, buffers, offset)

    def write_direct(self, fd: int, direct: int, data: memoryview, offset: int) -> None:
        self._step()
        super().write_direct(fd, direct, data, offset)

    def sync(self, fd: int) -> None:
        self._step()
        super().sync(fd)
        if fd in self._files and self._honest:
            self._files[fd].synced = os.fstat(fd).st_size

    def sync_folder(self, path: Path) -> None:
        self._step()
        super().sync_folder(path)
        for file in self._files.values():
            file.linked |= file.path.parent == path

    def close(self, fd: int) -> None:
        if fd in self._files:
            self._past.append(self._files.pop(fd))
        super().close(fd)

    def cut(self) -> None:
        """The power goes: each file keeps what was synced, and of the rest whatever chance leaves."""
        for file in (*self._past, *self._files.values()):
            if file.path.exists():
                self._spoil(file)
        for fd in self._files:
            os.close(fd)
        self._files.clear()
        self._past.clear()

    def _spoil(self, file: _File) -> None:
        if not file.linked and not file.synced and self._dice.random() < 0.5:
            file.path.unlink()
            return
        size = file.path.stat().st_size
        if size <= file.synced:
            return
        file.path.chmod(0o640)
        with file.path.open("r+b") as raw:
            fate = self._dice.randrange(4)
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
    disk.cut_after = 0
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
    parts.index.close()
    os.close(store._lease._fd)
    disk.cut()
