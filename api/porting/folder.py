"""A folder that strangers filled, read without trusting it.

Every step of every path is opened by itself and is never a symbolic link, so nothing outside is ever read; only plain
files have bytes, so nothing blocks. Refuses to know what the files mean.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self, final

from api.porting.errors import NotThatKind, Unusable

BLOCK_BYTES: Final = 1 << 20
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe would be waited for


@final
@dataclass(frozen=True, slots=True)
class File:
    """A plain file, open."""

    path: str
    fd: int
    size: int

    def blocks(self) -> Iterator[bytes]:
        """Yield its bytes, about a MiB at a time.

        Raises:
            Unusable: the disk does not give them.
        """
        while True:
            try:
                block = os.read(self.fd, BLOCK_BYTES)
            except OSError as error:
                raise _unusable(self.path, error) from None
            if not block:
                return
            yield block


@final
class Folder:
    """The folder, held open; paths are relative to it, with slashes."""

    def __init__(self, root: Path) -> None:
        """Open it; only here may a symbolic link lead the way.

        Raises:
            NotThatKind: there is no such folder, or it may not be read.
        """
        self.root = root
        try:
            self._fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise NotThatKind(f"cannot read the folder {root}: {error.strerror}") from None

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        os.close(self._fd)

    def names(self, path: str) -> list[str]:
        """Return what is in a folder, sorted; nothing if there is no such folder.

        Raises:
            Unusable: it is something else, or cannot be read.
        """
        try:
            fd = self._open(path, _FOLDER)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _unusable(path, error) from None
        try:
            return sorted(entry.name for entry in os.scandir(fd))
        except OSError as error:
            raise _unusable(path, error) from None
        finally:
            os.close(fd)

    def has(self, path: str) -> bool:
        """Tell whether something is there, be it a link that leads nowhere.

        Raises:
            Unusable: nobody can tell.
        """
        parent, _, name = path.rpartition("/")
        try:
            fd = self._open(parent, _FOLDER)
            try:
                os.stat(name, dir_fd=fd, follow_symlinks=False)
            finally:
                os.close(fd)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise _unusable(path, error) from None
        return True

    def needs(self, path: str, advice: str) -> None:
        """Refuse a folder that has no such thing.

        Raises:
            NotThatKind: with the advice.
        """
        try:
            if not self.has(path):
                raise NotThatKind(f"{self.root} has no {path}: {advice}")
        except Unusable as error:
            raise NotThatKind(f"{self.root}: {error}") from None

    def read(self, path: str, most_bytes: int) -> bytes:
        """Return all of a file.

        Raises:
            Unusable: there is no such file, or it is longer than it may be.
        """
        with self.open(path) as file:
            if file.size > most_bytes:
                raise Unusable(f"{path} has {file.size:,} bytes, which is more than the {most_bytes:,} that are read")
            data = bytearray()
            for block in file.blocks():
                data += block
                if len(data) > most_bytes:
                    raise Unusable(f"{path} grows while it is read")
            return bytes(data)

    @contextmanager
    def open(self, path: str) -> Iterator[File]:
        """Open a file.

        Raises:
            Unusable: there is no such file, or something else is in its place.
        """
        try:
            fd = self._open(path, _FILE)
        except OSError as error:
            raise _unusable(path, error) from None
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise Unusable(f"{path} is no file")
            yield File(path, fd, found.st_size)
        finally:
            os.close(fd)

    def _open(self, path: str, flags: int) -> int:
        """Open what a path leads to, step by step; a path comes from the layout, its parts perhaps from strangers."""
        steps = path.split("/") if path else []
        if {"", ".", ".."} & set(steps) or "\0" in path:
            raise OSError(errno.EINVAL, "no path within the folder")
        at = os.dup(self._fd)
        for number, step in enumerate(steps, start=1):
            try:
                below = os.open(step, flags if number == len(steps) else _FOLDER, dir_fd=at)
            finally:
                os.close(at)
            at = below
        return at


def _unusable(path: str, error: OSError) -> Unusable:
    match error.errno:
        case errno.ENOENT:
            return Unusable(f"{path} is missing")
        case errno.ELOOP:
            return Unusable(f"{path} is a symbolic link, or leads through one; those are not followed")
        case errno.ENOTDIR:
            return Unusable(f"{path} leads through something that is no folder, or through a symbolic link")
        case _:
            return Unusable(f"{path} cannot be read: {error.strerror}")
