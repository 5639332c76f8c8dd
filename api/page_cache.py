"""What of a file the page cache holds: what is sent from there keeps no loop waiting for a disk.

Knows how the kernel is asked. Refuses to know why somebody asks.
"""

from __future__ import annotations

import ctypes
import mmap
import os
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

    def __init__(self, fd: int, start: int, stop: int, readahead_bytes: int) -> None:
        self._fd, self._stop, self._readahead = fd, stop, readahead_bytes
        self._here_to = self._advised_to = start

    def are_here(self, start: int, stop: int) -> bool:
        """Tell whether to read these bytes, the next ones, would very likely not wait for a disk."""
        if self._here_to < stop and is_resident(self._fd, max(start, self._here_to), stop):
            self._here_to = stop
        return self._here_to >= stop

    def read_ahead(self, at: int) -> None:
        """Have the kernel read what comes from here on. It may have to wait itself: for threads."""
        if self._advised_to - at < self._readahead // 2:
            start = max(at, self._advised_to)
            self._advised_to = min(self._stop, at + self._readahead)
            if start < self._advised_to:
                os.posix_fadvise(self._fd, start, self._advised_to - start, os.POSIX_FADV_WILLNEED)


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
