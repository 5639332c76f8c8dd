"""Bytes of an upload that are not cut yet: one buffer, filled at its end and emptied at its front.

Layer: L1. Grows to what the chunker wants and no further: with many uploads at once, this is what a worker's
memory consists of (I5).
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from mmap import MADV_REMOVE, mmap

_STEP_BYTES = 256 * 1024  # room is made in multiples of this
_SPARE_BYTES = 5 * 1024 * 1024  # what the longest window takes: the longest chunk, and as much as enters at once
_USUAL_BYTES = 2 * 1024 * 1024  # what it takes while many are open
_WHOLE = 2  # free buffers that keep all they have, for an upload that is alone


class Spares:
    """A few buffers that were used before: fresh memory costs more CPU than hashing what is put there.

    They are mapped by themselves, so that of each only what a window ever reached takes memory.
    """

    def __init__(self, count: int) -> None:
        self._free: deque[mmap] = deque(maxlen=count)

    def take(self, size: int) -> bytearray | mmap:
        """Return a buffer of at least so many bytes; what stands in it means nothing."""
        if size > _SPARE_BYTES or size <= _STEP_BYTES:
            return bytearray(size)
        try:
            return self._free.pop()
        except IndexError:
            return mmap(-1, _SPARE_BYTES)

    def give_back(self, buffer: bytearray | mmap) -> None:
        """Let another upload have a buffer that nobody looks at any more."""
        if isinstance(buffer, mmap):
            shorten(buffer, others=len(self._free))
            self._free.append(buffer)


def shorten(buffer: mmap, *, others: int) -> None:
    """Give the kernel back what lies beyond a usual window in a buffer that is free beside some others.

    Where there are that many, there were many uploads, whose windows are short; it was long while there was one.
    """
    if others >= _WHOLE and len(buffer) > _USUAL_BYTES:
        with suppress(OSError):  # a kernel that has no such thing keeps it
            buffer.madvise(MADV_REMOVE, _USUAL_BYTES, len(buffer) - _USUAL_BYTES)


class Window:
    """A sliding window over a stream."""

    __slots__ = ("_buffer", "_filled", "_spares")

    def __init__(self, spares: Spares) -> None:
        self._spares = spares
        self._buffer: bytearray | mmap = bytearray()
        self._filled = 0

    def __len__(self) -> int:
        """Bytes held."""
        return self._filled

    def add(self, piece: bytes | bytearray | memoryview, expected: int) -> None:
        """Append bytes; a buffer that must grow has room for `expected` and such a piece then."""
        self.room(len(piece), expected)[:] = piece
        self._filled += len(piece)

    def room(self, size: int, expected: int) -> memoryview:
        """Return memory for the next bytes; `fill` says how many came to lie there."""
        end = self._filled + size
        if end > len(self._buffer):
            steps = -(-size // _STEP_BYTES)
            grown = self._spares.take(max(end, expected + steps * _STEP_BYTES if end > _STEP_BYTES else end))
            grown[: self._filled] = self.view()
            self._spares.give_back(self._buffer)
            self._buffer = grown
        return memoryview(self._buffer)[self._filled : end]

    def fill(self, size: int) -> None:
        """Append what was put into `room`."""
        self._filled += size

    def view(self) -> memoryview:
        """The bytes held; valid until they are dropped."""
        return memoryview(self._buffer)[: self._filled]

    def drop(self, size: int) -> None:
        """Forget the first bytes; nobody may look at them any more."""
        left = self._filled - size
        whole = memoryview(self._buffer)
        whole[:left] = whole[size : self._filled]  # a memmove
        self._filled = left

    def clear(self) -> None:
        """Forget everything, the buffer included; nobody may look at it any more."""
        self._spares.give_back(self._buffer)
        self._buffer, self._filled = bytearray(), 0
