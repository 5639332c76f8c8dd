"""The only module that touches the operating system's files (LMDB aside).

Layer: L2. A class of small verbs over descriptors and paths, so that a test can put one in its place that forgets
un-synced writes or fails the n-th call. Refusals come out as `NoSpace` or `DiskFailed`; a failed sync is never retried.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cas.config import MIB
from cas.errors import DiskFailed, Forbidden, NoSpace, OtherDisk, Unreadable
from cas.files import NO_FOLDER, moved_away, open_file, rename_new

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_FULL = {errno.ENOSPC, errno.EDQUOT}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_TOO_MANY = {errno.EMFILE, errno.ENFILE}
_IOV_MAX = 1024  # Linux's limit of buffers in one pwritev
_WRITE = 2  # SYNC_FILE_RANGE_WRITE, see sync_file_range(2)
_libc = ctypes.CDLL(None)


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
        with refusals(f"create {path.name}"):
            return _make(path)

    def open_read(self, path: Path) -> int:
        """Open a file for reading.

        Raises:
            FileNotFoundError: it is gone, or none; the caller knows what that means.
            Unreadable: any other refusal.
        """
        with refusals(f"open {path.name}", Unreadable):
            return open_file(path)

    def open_write(self, path: Path) -> int:
        """Open a file for writing on where it is to grow.

        Raises:
            DiskFailed: it could not be opened.
        """
        with refusals(f"open {path.name}"):
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

    def open_direct(self, path: Path, *, reading: bool = False) -> int:
        """Open a file for `write_direct` or `read_direct`; -1 where the filesystem has no such thing."""
        try:
            return os.open(path, (os.O_RDONLY if reading else os.O_WRONLY) | os.O_DIRECT | os.O_CLOEXEC)
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
            with refusals("write"):
                wrote = os.pwritev(fd, buffers, offset + done)
            self.counts.writes += 1
            done += wrote
            while buffers and wrote >= len(buffers[0]):
                wrote -= len(buffers.pop(0))
            if wrote:
                buffers[0] = memoryview(buffers[0])[wrote:]
        return size

    def begin_sync(self, fd: int, offset: int, size: int) -> None:
        """Have the kernel begin to write bytes to the disk, and wait for nothing; only `sync` makes them durable."""
        begin = getattr(_libc, "sync_file_range", None)
        if begin is not None:  # whoever cannot, or fails, learns it from `sync`
            begin(fd, ctypes.c_int64(offset), ctypes.c_int64(size), _WRITE)

    def sync(self, fd: int) -> None:
        """Make a file's bytes durable.

        Raises:
            NoSpace, DiskFailed: nothing written since the last good sync may be believed, ever (no retry).
        """
        self.counts.syncs += 1
        with refusals("sync"):
            os.fdatasync(fd)

    def sync_folder(self, path: Path) -> None:
        """Make a folder's entries durable."""
        with refusals(f"sync {path.name}"):
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
        with memoryview(data) as view:
            done = self.read_into(fd, view, offset)
        del data[done:]
        return data

    def read_into(self, fd: int, memory: memoryview, offset: int) -> int:
        """Read until memory is full or the file ends; return how many bytes that was.

        Raises:
            Unreadable: the disk refused.
        """
        done = 0
        with refusals("read", Unreadable):
            while done < len(memory) and (got := os.preadv(fd, [memory[done:]], offset + done)):
                done += got
        self.counts.reads += 1
        self.counts.bytes_read += done
        return done

    def read_direct(self, direct: int, memory: memoryview, offset: int) -> int:
        """Read past the page cache by what `open_direct` returned: memory, length and offset in whole blocks.

        Returns:
            How many bytes that was; 0 where it cannot be done so, fewer than asked for also at the end of the file.
        """
        try:
            done = os.preadv(direct, [memory], offset)
        except OSError:
            return 0  # no such descriptor, or one that refuses; a bad disk will say so again
        self.counts.reads += 1
        self.counts.bytes_read += done
        return done

    def size(self, fd: int) -> int:
        """Return a file's length in bytes."""
        return os.fstat(fd).st_size

    def is_linked(self, fd: int) -> bool:
        """Tell whether an open file still has a name."""
        return os.fstat(fd).st_nlink > 0

    def truncate(self, fd: int, size: int) -> None:
        """Cut a file to `size` bytes."""
        with refusals("truncate"):
            os.ftruncate(fd, size)

    def close(self, fd: int) -> None:
        """Close a descriptor."""
        os.close(fd)

    def unlink(self, path: Path) -> None:
        """Remove a file that may be gone already."""
        with refusals(f"remove {path.name}"):
            path.unlink(missing_ok=True)

    def rename(self, path: Path, to: Path) -> None:
        """Give a file another name, in place of whatever had that; durable once the folder is synced."""
        with refusals(f"rename {path.name}"):
            path.rename(to)

    def rename_new(self, path: Path, to: Path) -> bool:
        """Do the same unless something has that name; say whether it was done.

        Raises:
            OtherDisk: the two names are not of one filesystem, or not of one mount of it.
        """
        with refusals(f"rename {path.name}"):
            return rename_new(path, to)

    def seal(self, fd: int) -> None:
        """Take the right to write from a file that will never change again."""
        keep_modes(fd, 0o440)

    def unseal(self, fd: int) -> None:
        """Give its owner the right to write to a file after all."""
        os.fchmod(fd, os.fstat(fd).st_mode | 0o200)

    def free_bytes(self, path: Path) -> tuple[int, int]:
        """Return `(free, whole)` bytes of the filesystem that holds `path`.

        Raises:
            DiskFailed: there is no such folder any more.
        """
        try:
            found = os.statvfs(path)
        except FileNotFoundError as error:
            raise DiskFailed(moved_away(path)) from error
        return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize

    def check_room(self, path: Path, size: int, reserve: Callable[[int], int]) -> None:
        """Refuse what would add `size` bytes where only the part is left that is kept for deletes.

        Raises:
            NoSpace: fewer would be left than `reserve` says of a filesystem of so many bytes.
        """
        free, whole = self.free_bytes(path)
        kept = reserve(whole)
        if free < size + kept:
            raise NoSpace(
                f"the disk is full: {free / MIB:,.1f} MiB are free for {path.name}/, the last {kept / MIB:,.1f} MiB of "
                "them for deletes and collection; free some space: delete images, then run cas gc --grace 0"
            )

    def random(self, size: int) -> bytes:
        """Return random bytes: ids, markers and salts come from here, so that a test can choose them."""
        return os.urandom(size)


class Cell:
    """A number that all processes share and that outlives `kill -9`, though not a power cut: 8 bytes of a file.

    With a lock, which the kernel gives back when its process dies; threads of one process see to themselves.
    """

    def __init__(self, path: Path) -> None:
        with refusals(f"open {path}"):
            self._fd = open_or_make(path)

    def read(self) -> int:
        """Return the number; 0 if none was ever written."""
        return int.from_bytes(os.pread(self._fd, 8, 0), "big")

    def write(self, number: int) -> None:
        """Set the number, at once visible to every process."""
        with refusals("write"):
            os.pwrite(self._fd, number.to_bytes(8, "big"), 0)

    def lock_now(self) -> bool:
        """Take the lock unless another process has it; say whether it came to that."""
        with suppress(OSError):
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False

    def lock(self) -> None:
        """Wait for the lock; where no locks are to be had, go on without."""
        with suppress(OSError):
            fcntl.flock(self._fd, fcntl.LOCK_EX)

    def unlock(self) -> None:
        """Give the lock back."""
        with suppress(OSError):
            fcntl.flock(self._fd, fcntl.LOCK_UN)

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


_OPEN = os.O_RDWR | os.O_CLOEXEC


def _make(path: Path) -> int:
    """Make a file that must not exist, and open it."""
    fd = os.open(path, _OPEN | os.O_CREAT | os.O_EXCL, 0o640)
    leave_to_owner(path, fd)
    return fd


def open_or_make(path: Path) -> int:
    """Open a file, which is made if it is not there: not by O_CREAT alone, which does not tell which of the two.

    Such files are never removed. So what is there to one look and not to the other is a link that leads nowhere.
    """
    with suppress(FileNotFoundError):
        return os.open(path, _OPEN)
    with suppress(FileExistsError):
        return _make(path)
    with suppress(FileNotFoundError):
        return os.open(path, _OPEN)
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))


def make_folder(path: Path, mode: int) -> None:
    """Make a folder if it is not there.

    Raises:
        NoSpace, DiskFailed: it cannot be made; something else has its name.
    """
    try:
        path.parent.mkdir(mode, parents=True, exist_ok=True)  # by itself, since `mode` is not for those above
        path.mkdir(mode, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise DiskFailed(f"{path} cannot be made: {NO_FOLDER}") from error
    except OSError as error:
        with refusals(f"make {path}"):
            raise error from None


def leave_to_owner(path: Path, fd: int) -> None:
    """Give what root just made in a folder of somebody else to them, who could not open it otherwise."""
    if os.geteuid() == 0:
        folder = path.parent.stat()
        if folder.st_uid:
            os.fchown(fd, folder.st_uid, folder.st_gid)


def keep_modes(fd: int, modes: int) -> None:
    """Take all rights to a file but these away; to give none is what whoever set the umask meant."""
    os.fchmod(fd, os.fstat(fd).st_mode & modes)


def is_full(error: OSError) -> bool:
    """Tell whether it is room that lacks, on the disk or of a quota."""
    return error.errno in _FULL


@contextmanager
def refusals(verb: str, kind: type[DiskFailed] = DiskFailed) -> Iterator[None]:
    """Turn what the system refuses into what the engine says of it."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if is_full(error):
            raise NoSpace(f"the disk is full (cannot {verb}); free some space and try again") from error
        if error.errno in _FORBIDDEN:
            raise Forbidden(
                f"cannot {verb}: {error.strerror}; mend owner, permissions or mount of the store"
            ) from error
        if error.errno == errno.EXDEV:
            raise OtherDisk(f"cannot {verb}: {error.strerror}") from error
        if error.errno in _TOO_MANY:
            raise kind(f"cannot {verb}: {error.strerror}; raise the limit of open files, then try again") from error
        raise kind(f"the disk failed (cannot {verb}: {error.strerror}); look at the system's log") from error
