"""Locks of files and of single bytes in them, which the kernel gives back when their process dies.

Layer: L2. Waiting is bounded everywhere: whoever has a lock for long was stopped.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cas.disk import open_or_make, refusals
from cas.errors import Busy, DiskFailed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LOCK_POLL_S = 0.02
_LOCK = "hhqqi0q"  # struct flock, see fcntl(2)
_ALL = 1 << 62  # beyond every byte that anybody locks


@contextmanager
def lock_folder(path: Path, wait_s: float) -> Iterator[None]:
    """Hold the exclusive lock of a folder. The kernel gives it back when the process dies.

    Raises:
        Busy: it was not to be had within `wait_s`; only a process that was stopped holds it for long.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if not _flock(fd, time.monotonic() + wait_s):
            raise Busy(f"another process is opening {path} and does not get done (is it stopped?); try again")
        yield
    finally:
        os.close(fd)


def _flock(fd: int, deadline: float) -> bool:
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_LOCK_POLL_S)
        else:
            return True


def try_lock(path: Path, *, create: bool = False) -> int | None:
    """Lock a file exclusively without waiting; return its descriptor, or None if another process holds it."""
    with refusals(f"open {path}"):
        fd = _open_or_make(path) if create else _open(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def _open_or_make(path: Path) -> int:
    try:
        return open_or_make(path)
    except FileNotFoundError:
        raise DiskFailed(removed(path.parent)) from None


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # a disk that failed is rescued by a copy; flock asks no more


def lock_byte(path: Path, offset: int, wait_s: float) -> int | None:
    """Lock one byte of a file; see `lock_bytes`."""
    return lock_bytes(path, offset, 1, wait_s)


def lock_bytes(path: Path, offset: int, count: int, wait_s: float) -> int | None:
    """Lock bytes of a file against every other descriptor, in this process and all others.

    Returns the descriptor to close, or None if they were not to be had within `wait_s`, or never can be.
    """
    wanted = _byte_lock(fcntl.F_WRLCK, offset, count)
    deadline = time.monotonic() + wait_s
    try:
        fd = open_or_make(path)
    except OSError:
        return None
    while True:
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, wanted)
            return fd
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES) or time.monotonic() >= deadline:
                os.close(fd)
                return None
            time.sleep(_LOCK_POLL_S)


def open_shared(path: Path) -> int:
    """Open a file whose bytes are to be locked by `share_byte`; it is made if it is not there."""
    with refusals(f"open {path}"):
        return _open_or_make(path)


def share_byte(fd: int, offset: int) -> bool:
    """Lock one byte together with others who share it, without waiting; say whether nobody has it alone."""
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _byte_lock(fcntl.F_RDLCK, offset, 1))
    except BlockingIOError:
        return False
    return True


def is_byte_locked(fd: int, offset: int) -> bool:
    """Tell whether a byte is locked through any other descriptor, without locking it."""
    found = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _byte_lock(fcntl.F_WRLCK, offset, 1))
    return bool(struct.unpack_from("h", found)[0] != fcntl.F_UNLCK)


def locked_bytes(fd: int) -> set[int]:
    """Return the bytes, each locked by itself, that are locked through any other descriptor, without locking them."""
    found, stretches = set[int](), [(0, _ALL)]
    while stretches:
        start, stop = stretches.pop()
        if start < stop:
            lock = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _byte_lock(fcntl.F_WRLCK, start, stop - start))
            kind, _, at, _, _ = struct.unpack(_LOCK, lock)
            if kind != fcntl.F_UNLCK:  # one of them, and not always the first
                found.add(at)
                stretches += [(start, at), (at + 1, stop)]
    return found


def unlock_byte(fd: int, offset: int) -> None:
    """Let go of one byte."""
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _byte_lock(fcntl.F_UNLCK, offset, 1))


def removed(what: object) -> str:
    """Say that some file is gone by which processes see each other, and what to do."""
    return (
        f"{what} was removed while the store is open: those who have it open go on without and would not "
        "see anybody new; stop them all (cas serve and other commands), then start anew"
    )


def _byte_lock(kind: int, offset: int, count: int) -> bytes:
    return struct.pack(_LOCK, kind, os.SEEK_SET, offset, count, 0)
