"""What of a file the page cache holds: what is sent from there keeps no loop waiting for a disk.

Knows how the kernel is asked. Refuses to know why somebody asks.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from contextlib import suppress
from typing import Final, final

from api.config import KIB

# Far enough apart to be cheap, near enough that a gap the kernel left between two read-aheads is seen.
_PROBE_EVERY_BYTES: Final = 256 * KIB
# cachestat(2), the same on every machine that has it (Linux 6.5). It counts and waits for nothing, so the lock is kept.
_CACHESTAT: Final = 451
_syscall: Final = ctypes.PyDLL(None).syscall
_syscall.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint)
_syscall.restype = ctypes.c_long
_Range: Final = ctypes.c_uint64 * 2  # offset, length
_Counts: Final = ctypes.c_uint64 * 5  # in the cache; dirty, written back, evicted, evicted lately


@final
class Pages:
    """What is known of the pages of a range of a file while it is sent from front to back."""

    def __init__(self, fd: int, start: int) -> None:
        self._fd, self._here_to = fd, start

    def are_here(self, start: int, stop: int) -> bool:
        """Tell whether to read these bytes, the next ones, would very likely not wait for a disk."""
        if self._here_to < stop and is_resident(self._fd, max(start, self._here_to), stop):
            self._here_to = stop
        return self._here_to >= stop


def read_far_ahead(fd: int) -> None:
    """Let the kernel read twice as far ahead of whoever reads a file from front to back, one open file for all of them.

    Not asked for what lies ahead (`POSIX_FADV_WILLNEED`): that comes as single pages, of which every one is looked up
    each time it is sent. What the kernel reads ahead by itself are pages of up to its whole read-ahead.
    """
    with suppress(OSError):  # no file: whoever reads will hear of it
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)


def is_resident(fd: int, start: int, stop: int) -> bool:
    """Tell whether to read these bytes, at least one, would very likely not wait for a disk.

    Whatever cannot be known counts as away: slower, never blocking.
    """
    if cached := cached_pages(fd, start, stop):
        wanted = -(-stop // mmap.PAGESIZE) - start // mmap.PAGESIZE
        return cached >= wanted and _is_read(fd, stop - 1)  # what is read ahead is counted before it is there
    # To touch a byte of what nobody looked at for long costs ten times as much as to count, where a machine is virtual.
    return all(_is_read(fd, at) for at in (*range(start, stop, _PROBE_EVERY_BYTES), stop - 1))


def cached_pages(fd: int, start: int, stop: int) -> int:
    """Count the pages in the cache: 0 also where the kernel does not tell, or not of this filesystem (overlayfs)."""
    counts = _Counts()
    found = _syscall(_CACHESTAT, fd, ctypes.byref(_Range(start, stop - start)), ctypes.byref(counts), 0)
    return int(counts[0]) if found == 0 else 0


def _is_read(fd: int, at: int) -> bool:
    try:
        os.preadv(fd, [bytearray(1)], at, os.RWF_NOWAIT)
    except OSError:
        return False
    return True
