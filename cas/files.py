"""Names of files: whether what has one is a file (a folder, a pipe or a link to nowhere may), and whether one is free.

Layer: L2. Knows nothing of what is in a file.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

NO_FOLDER: Final = (
    "what has this name, or one above it, is no folder; move that away, or mount the disk that it leads to"
)

_AGAIN: Final = ", or stop the server and make it anew: cas fsck --rebuild-index"
_AT_FDCWD: Final = -100
_NOREPLACE: Final = 1  # RENAME_NOREPLACE, see renameat2(2)
_CANNOT: Final = {errno.EINVAL, errno.ENOSYS}  # the filesystem, or the system
_renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)


def moved_away(folder: Path) -> str:
    """Say that a folder of the store is not where it was, and what to do."""
    return f"{folder.name}/ was moved away or removed; put it back{_AGAIN if folder.name == 'index' else ''}"


def open_file(path: Path) -> int:
    """Open a file for reading, and nothing else that may have its name: a pipe would let one wait for ever.

    Raises:
        FileNotFoundError: there is none.
        OSError: the system refused.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        _demand_file(path, os.fstat(fd))
    except BaseException:
        os.close(fd)
        raise
    return fd


def file_size(path: Path) -> int:
    """Return a file's length in bytes.

    Raises:
        FileNotFoundError: there is none, whatever else has its name.
        OSError: the system refused.
    """
    found = path.stat()
    _demand_file(path, found)
    return found.st_size


def rename_new(path: Path, to: Path) -> bool:
    """Give whatever has a name another one, unless something has that; say whether it was done.

    In one step where the filesystem can; else nobody else may be about it.

    Raises:
        FileNotFoundError: nothing has the name.
        OSError: the system refused.
    """
    if _renameat2 is not None:
        if not _renameat2(_AT_FDCWD, os.fsencode(path), _AT_FDCWD, os.fsencode(to), _NOREPLACE):
            return True
        if (number := ctypes.get_errno()) == errno.EEXIST:
            return False
        if number not in _CANNOT:
            raise OSError(number, os.strerror(number), str(path))
    if os.path.lexists(to):
        return False
    path.rename(to)
    return True


def _demand_file(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise FileNotFoundError(errno.ENOENT, "something else has the name of this file", str(path))
