"""A disk whose changes are steps: something may happen before each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cas.disk import Disk


class SteppingDisk(Disk):
    """The real disk; what is about to be changed is a step."""

    def _step(self) -> None:
        """Do what is to be done before the next change."""
        raise NotImplementedError

    def create(self, path: Path) -> int:
        self._step()
        return super().create(path)

    def write(self, fd: int, buffers: Sequence[bytes | bytearray | memoryview], offset: int) -> int:
        self._step()
        return super().write(fd, buffers, offset)

    def sync(self, fd: int) -> None:
        self._step()
        super().sync(fd)

    def sync_folder(self, path: Path) -> None:
        self._step()
        super().sync_folder(path)
