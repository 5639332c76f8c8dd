"""Bytes of an upload that are not cut yet: one buffer, filled at its end and emptied at its front.

Layer: L1. Grows to what the chunker wants and no further: with many uploads at once, this is what a worker's
memory consists of (I5). Of an upload that is alone the next bytes may come into a second buffer meanwhile.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress
from mmap import MADV_REMOVE, mmap
from typing import Final

_STEP_BYTES = 256 * 1024  # room is made in multiples of this
_SPARE_BYTES = 5 * 1024 * 1024  # what the longest window takes: the longest chunk, and as much as enters at once
_USUAL_BYTES = 2 * 1024 * 1024  # what it takes while many are open
HEADROOM: Final = 1024 * 1024  # before what comes ahead, for what is left of the bytes before it
_WHOLE = 2  # free buffers that keep all they have, for an upload that is alone


class Spares:
    """A few buffers that were used before: fresh memory costs more CPU than hashing what is put there.

    They are mapped by themselves, so that of each only what a window ever reached takes memory.
    """

    def __init__(self, count: int) -> None:
        self._free: deque[mmap] = deque(maxlen=count)
        self._windows, self._counting = 0, threading.Lock()

    @property
    def are_shared(self) -> bool:
        """Whether several uploads are under way."""
        return self._windows > 1

    def count(self, change: int) -> None:
        """Note that a window was opened (1) or cleared (-1)."""
        with self._counting:
            self._windows += change

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

    __slots__ = ("_buffer", "_filled", "_is_open", "_next", "_spares", "_start")

    def __init__(self, spares: Spares) -> None:
        self._spares, self._is_open = spares, True
        spares.count(1)
        self._buffer: bytearray | mmap = bytearray()
        self._next: bytearray | mmap = bytearray()  # where bytes come ahead
        self._start = self._filled = 0

    @property
    def is_alone(self) -> bool:
        """Whether no other upload of this process is under way: else every core has its work, and memory is dear."""
        return not self._spares.are_shared

    def __len__(self) -> int:
        """Bytes held."""
        return self._filled

    def add(self, piece: bytes | bytearray | memoryview, expected: int) -> None:
        """Append bytes; a buffer that must grow has room for `expected` and such a piece then."""
        self.room(len(piece), expected)[:] = piece
        self._filled += len(piece)

    def room(self, size: int, expected: int) -> memoryview:
        """Return memory for the next bytes; `fill` says how many came to lie there.

        Nobody may look at dropped bytes any more: the others take their place. The other buffer goes back: who asks
        here has no use for it, mostly because there are many uploads now.
        """
        if len(self._next):
            self._spares.give_back(self._next)
            self._next = bytearray()
        if self._start:
            whole = memoryview(self._buffer)
            whole[: self._filled] = self.view()  # a memmove
            self._start = 0
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

    def ahead(self, size: int) -> memoryview:
        """Return other memory for the next bytes, while those held are looked at; `go_on` says how many came."""
        if len(self._next) < HEADROOM + size:
            self._spares.give_back(self._next)
            self._next = self._spares.take(HEADROOM + size)
        return memoryview(self._next)[HEADROOM : HEADROOM + size]

    def go_on(self, size: int) -> memoryview:
        """Append what came ahead, and return it; of the bytes held no more than `HEADROOM` are left by now.

        Those dropped stay as they are until `ahead` is called again.
        """
        start = HEADROOM - self._filled
        memoryview(self._next)[start:HEADROOM] = self.view()
        self._buffer, self._next = self._next, self._buffer
        self._start, self._filled = start, self._filled + size
        return memoryview(self._buffer)[HEADROOM : HEADROOM + size]

    def view(self) -> memoryview:
        """The bytes held; valid until memory is asked for."""
        return memoryview(self._buffer)[self._start : self._start + self._filled]

    def drop(self, size: int) -> None:
        """Forget the first bytes."""
        self._start, self._filled = self._start + size, self._filled - size

    def clear(self) -> None:
        """Forget everything, the buffers included; nobody may look at them any more."""
        self._spares.give_back(self._buffer)
        self._spares.give_back(self._next)
        self._buffer, self._next = bytearray(), bytearray()
        self._start = self._filled = 0
        if self._is_open:
            self._is_open = False
            self._spares.count(-1)
