"""The only module that touches the operating system's files (LMDB aside).

Layer: L2. A class of small verbs over descriptors and paths, so that a test can put one in its place that forgets
un-synced writes or fails the n-th call. Refusals come out as `NoSpace` or `DiskFailed`; a failed sync is never retried.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cas.errors import Busy, DiskFailed, Forbidden, NoSpace, Unreadable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_FULL = {errno.ENOSPC, errno.EDQUOT}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_TOO_MANY = {errno.EMFILE, errno.ENFILE}
_LOCK_POLL_S = 0.02
_IOV_MAX = 1024  # Linux's limit of buffers in one pwritev


@dataclass(slots=True)
class Counts:
    """Work done through one `Disk`, for tests and benchmarks that gate on work instead of time."""

    writes: int = 0
    bytes_written: int = 0
    bytes_past_cache: int = 0  # of them
    syncs: int = 0
    reads: int = 0
    bytes_read: int = 0


class Disk:
    """The real disk."""

    def __init__(self) -> None:
        self.counts = Counts()

    def create(self, path: Path) -> int:
        """Create a file that must not exist; return its descriptor, open for reading and writing.

        Raises:
            NoSpace, DiskFailed: the file could not be made.
        """
        with _refusals(f"create {path.name}"):
            return _make(path)

    def open_read(self, path: Path) -> int:
        """Open a file for reading.

        Raises:
            FileNotFoundError: it is gone; the caller knows what that means.
            Unreadable: any other refusal.
        """
        with _refusals(f"open {path.name}", Unreadable):
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def open_write(self, path: Path) -> int:
        """Open a file for writing on where it is to grow.

        Raises:
            DiskFailed: it could not be opened.
        """
        with _refusals(f"open {path.name}"):
            return os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def write(self, fd: int, buffers: Sequence[bytes | bytearray | memoryview], offset: int) -> int:
        """Write all buffers back to back at `offset`; return how many bytes that was.

        Raises:
            NoSpace, DiskFailed: some of it may lie in the file, none of it may be believed.
        """
        total = 0
        for first in range(0, len(buffers), _IOV_MAX):
            total += self._write_some(fd, list(buffers[first : first + _IOV_MAX]), offset + total)
        self.counts.bytes_written += total
        return total

    def open_direct(self, path: Path) -> int:
        """Open a file for `write_direct`; -1 where the filesystem has no such thing."""
        try:
            return os.open(path, os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)
        except OSError:
            return -1

    def write_direct(self, fd: int, direct: int, data: memoryview, offset: int) -> None:
        """Write past the page cache by what `open_direct` returned: memory, length and offset in whole blocks.

        Raises:
            NoSpace, DiskFailed: as for `write`.
        """
        try:
            done = os.pwrite(direct, data, offset)
        except OSError:
            done = 0  # no such descriptor, or one that refuses nevertheless; a bad disk will say so again
        self.counts.bytes_past_cache += done
        self.counts.bytes_written += done
        if done < len(data):
            self.write(fd, [data[done:]], offset + done)

    def _write_some(self, fd: int, buffers: list[bytes | bytearray | memoryview], offset: int) -> int:
        size, done = sum(map(len, buffers)), 0
        while done < size:
            with _refusals("write"):
                wrote = os.pwritev(fd, buffers, offset + done)
            self.counts.writes += 1
            done += wrote
            while buffers and wrote >= len(buffers[0]):
                wrote -= len(buffers.pop(0))
            if wrote:
                buffers[0] = memoryview(buffers[0])[wrote:]
        return size

    def sync(self, fd: int) -> None:
        """Make a file's bytes durable.

        Raises:
            NoSpace, DiskFailed: nothing written since the last good sync may be believed, ever (no retry).
        """
        self.counts.syncs += 1
        with _refusals("sync"):
            os.fdatasync(fd)

    def sync_folder(self, path: Path) -> None:
        """Make a folder's entries durable."""
        with _refusals(f"sync {path.name}"):
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def read(self, fd: int, size: int, offset: int) -> bytearray:
        """Read up to `size` bytes; fewer only at the end of the file.

        A bytearray, because comparing one with a memoryview is a memcmp, where two memoryviews compare item by item.

        Raises:
            Unreadable: the disk refused.
        """
        data = bytearray(size)
        done = 0
        with memoryview(data) as view, _refusals("read", Unreadable):
            while done < size and (got := os.preadv(fd, [view[done:]], offset + done)):
                done += got
        self.counts.reads += 1
        self.counts.bytes_read += done
        del data[done:]
        return data

    def size(self, fd: int) -> int:
        """Return a file's length in bytes."""
        return os.fstat(fd).st_size

    def is_linked(self, fd: int) -> bool:
        """Tell whether an open file still has a name."""
        return os.fstat(fd).st_nlink > 0

    def truncate(self, fd: int, size: int) -> None:
        """Cut a file to `size` bytes."""
        with _refusals("truncate"):
            os.ftruncate(fd, size)

    def close(self, fd: int) -> None:
        """Close a descriptor."""
        os.close(fd)

    def unlink(self, path: Path) -> None:
        """Remove a file that may be gone already."""
        with _refusals(f"remove {path.name}"):
            path.unlink(missing_ok=True)

    def rename(self, path: Path, to: Path) -> None:
        """Give a file another name, in place of whatever had that; durable once the folder is synced."""
        with _refusals(f"rename {path.name}"):
            path.rename(to)

    def seal(self, fd: int) -> None:
        """Take the right to write from a file that will never change again."""
        os.fchmod(fd, 0o440)

    def free_bytes(self, path: Path) -> tuple[int, int]:
        """Return `(free, whole)` bytes of the filesystem that holds `path`."""
        stat = os.statvfs(path)
        return stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize

    def check_room(self, path: Path, size: int, reserve: int, share: float) -> None:
        """Refuse what would add `size` bytes where only the part is left that is kept for deletes.

        Raises:
            NoSpace: fewer would be left than `reserve`, or than that share of the whole, whichever is less.
        """
        free, whole = self.free_bytes(path)
        kept = min(reserve, int(whole * share))
        if free < size + kept:
            raise NoSpace(
                f"the disk is full: {free >> 20} MiB are free, and the last {kept >> 20} MiB are kept for deletes and "
                "collection; free some space and try again"
            )

    def random(self, size: int) -> bytes:
        """Return random bytes: ids, markers and salts come from here, so that a test can choose them."""
        return os.urandom(size)


class Cell:
    """A number that all processes share and that outlives `kill -9`, though not a power cut: 8 bytes of a file."""

    def __init__(self, path: Path) -> None:
        with _refusals(f"open {path}"):
            self._fd = _open_or_make(path)

    def read(self) -> int:
        """Return the number; 0 if none was ever written."""
        return int.from_bytes(os.pread(self._fd, 8, 0), "big")

    def write(self, number: int) -> None:
        """Set the number, at once visible to every process."""
        with _refusals("write"):
            os.pwrite(self._fd, number.to_bytes(8, "big"), 0)

    def close(self) -> None:
        """Close the file, durably: who leaves in good order leaves nothing for a power cut to undo."""
        with suppress(OSError):
            os.fsync(self._fd)
        os.close(self._fd)


def write_file(path: Path, data: bytes) -> None:
    """Write a small file durably and atomically: new file, sync, rename, sync of the folder."""
    temporary = path.with_name(path.name + ".new")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    Disk().sync_folder(path.parent)


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
    with _refusals(f"open {path}"):
        fd = _open_or_make(path) if create else os.open(path, _OPEN)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


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
        fd = _open_or_make(path)
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
    with _refusals(f"open {path}"):
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


def unlock_byte(fd: int, offset: int) -> None:
    """Let go of one byte."""
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _byte_lock(fcntl.F_UNLCK, offset, 1))


def _byte_lock(kind: int, offset: int, count: int) -> bytes:
    return struct.pack("hhqqi0q", kind, os.SEEK_SET, offset, count, 0)


_OPEN = os.O_RDWR | os.O_CLOEXEC


def _make(path: Path) -> int:
    """Make a file that must not exist, and open it."""
    fd = os.open(path, _OPEN | os.O_CREAT | os.O_EXCL, 0o640)
    leave_to_owner(path, fd)
    return fd


def _open_or_make(path: Path) -> int:
    """Open a file, which is made if it is not there: not by O_CREAT alone, which does not tell which of the two."""
    while True:
        with suppress(FileNotFoundError):
            return os.open(path, _OPEN)
        with suppress(FileExistsError):
            return _make(path)


def leave_to_owner(path: Path, fd: int) -> None:
    """Give what root just made in a folder of somebody else to them, who could not open it otherwise."""
    if os.geteuid() == 0:
        folder = path.parent.stat()
        if folder.st_uid:
            os.fchown(fd, folder.st_uid, folder.st_gid)


@contextmanager
def _refusals(verb: str, kind: type[DiskFailed] = DiskFailed) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in _FULL:
            raise NoSpace(f"the disk is full (cannot {verb}); free some space and try again") from error
        if error.errno in _FORBIDDEN:
            raise Forbidden(
                f"cannot {verb}: {error.strerror}; mend owner, permissions or mount of the store"
            ) from error
        if error.errno in _TOO_MANY:
            raise kind(f"cannot {verb}: {error.strerror}; raise the limit of open files, then try again") from error
        raise kind(f"the disk failed (cannot {verb}: {error.strerror}); look at the system's log") from error
