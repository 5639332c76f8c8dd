"""Whether what has the name of a file is one: a folder, a pipe or a link to nowhere may have it, too.

Layer: L2. Knows nothing of what is in a file.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

NO_FOLDER: Final = (
    "what has this name, or one above it, is no folder; move that away, or mount the disk that it leads to"
)


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


def _demand_file(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise FileNotFoundError(errno.ENOENT, "something else has the name of this file", str(path))
