"""Memory that can be written and read past the page cache: aligned to pages, used again and again.

Layer: L2. A large upload fills no page that anybody will ask for soon, and each fresh page of the cache costs more CPU
than the bytes it holds; so its windows go from here straight to the disk (`O_DIRECT`). The kernel wants memory, offset
and length in whole blocks: a window is laid into a buffer so that both have the same place within a block, and its
two ragged ends are written the ordinary way.
"""

from __future__ import annotations

import contextlib
import mmap
import threading
from typing import TYPE_CHECKING

from cas.window import shorten

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BLOCK = 4096
_USUAL_BYTES = (5 << 20) + BLOCK  # what hardly a window exceeds; a buffer of this length is not made anew for the next


class Aligned:
    """A window's bytes in memory, at the same place within a block as they will have in the file.

    Attributes:
        memory: the whole buffer.
        bytes: the part of it that holds the window.
    """

    def __init__(self, memory: mmap.mmap, buffers: Sequence[bytes | bytearray | memoryview], offset: int) -> None:
        at = start = offset % BLOCK
        view = memoryview(memory)
        for data in buffers:
            view[at : at + len(data)] = data
            at += len(data)
        self.memory, self.bytes = memory, view[start:at]


class Buffers:
    """A few such buffers, each as large as the largest window that it held: a bound of memory (I5)."""

    def __init__(self, count: int) -> None:
        self._free: list[mmap.mmap | None] = [None] * count
        self._room = threading.Semaphore(count)

    def take(self, buffers: Sequence[bytes | bytearray | memoryview], offset: int, *, wait: bool) -> Aligned | None:
        """Copy a window in; None if every buffer is in use and the caller would rather not wait for one."""
        if not self._room.acquire(blocking=wait):
            return None
        return Aligned(self._memory(offset % BLOCK + sum(map(len, buffers))), buffers, offset)

    def give_back(self, window: Aligned) -> None:
        """Let the next one have it."""
        window.bytes.release()
        self.put_back(window.memory)

    @contextlib.contextmanager
    def lent(self, size: int) -> Iterator[memoryview]:
        """Lend at least so many bytes for a moment, in whole blocks; waits while every buffer is in use."""
        self._room.acquire()
        memory = self._memory(size)
        try:
            with memoryview(memory) as view:
                yield view
        finally:
            self.put_back(memory)

    def borrow(self, size: int) -> mmap.mmap | None:
        """Return at least so many bytes, in whole blocks, for as long as wanted; None while every buffer is in use."""
        return self._memory(size) if self._room.acquire(blocking=False) else None

    def put_back(self, memory: mmap.mmap) -> None:
        """Let others have what was borrowed."""
        shorten(memory, others=sum(each is not None for each in self._free))
        self._free.append(memory)
        self._room.release()

    def _memory(self, size: int) -> mmap.mmap:
        memory = self._free.pop()
        if memory is None or len(memory) < size:
            memory = mmap.mmap(-1, max(-(-size // BLOCK) * BLOCK, _USUAL_BYTES))
        return memory
