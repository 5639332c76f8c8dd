"""Bytes of an upload that are not cut yet: one buffer, filled at its end and emptied at its front.

Layer: L1, pure. Grows to what the chunker wants and no further: with many uploads at once, this is what a worker's
memory consists of (I5).
"""

from __future__ import annotations

_STEP_BYTES = 256 * 1024  # room is made in multiples of this


class Window:
    """A sliding window over a stream."""

    __slots__ = ("_buffer", "_filled")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._filled = 0

    def __len__(self) -> int:
        """Bytes held."""
        return self._filled

    def add(self, piece: bytes | bytearray | memoryview, expected: int) -> None:
        """Append bytes; a buffer that must grow has room for `expected` and such a piece then."""
        end = self._filled + len(piece)
        if end > len(self._buffer):
            steps = -(-len(piece) // _STEP_BYTES)
            grown = bytearray(max(end, expected + steps * _STEP_BYTES if end > _STEP_BYTES else end))
            grown[: self._filled] = self.view()
            self._buffer = grown
        self._buffer[self._filled : end] = piece
        self._filled = end

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
        """Forget everything, the buffer included."""
        self._buffer, self._filled = bytearray(), 0
