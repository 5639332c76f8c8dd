"""Several ranges of one blob as one body, `multipart/byteranges`, without copying a byte of it.

Knows the framing of RFC 9110, section 14.6. Blocking where the blob's reader is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, final

from api.ranges import Part
from cas import Damaged, Digest, FileRange, Held, Packed, Reader

# Of what only a reader can read, each part costs a look into the index, and a chunk that is decoded for it.
_MOST_READ: Final = 32


@final
class Parts:
    """A reader's bytes, part by part, each behind a head of its own."""

    def __init__(self, reader: Reader | Held, parts: Sequence[Part], content_type: str) -> None:
        # A digest never occurs in the content it is the digest of, so it can separate the content's parts.
        self._boundary = reader.digest.hex
        self._reader, self._parts = reader, parts
        self._heads = [
            (
                f"\r\n--{self._boundary}\r\n"
                f"Content-Type: {content_type}\r\nContent-Range: {part.content_range(reader.size)}\r\n\r\n"
            ).encode()
            for part in parts
        ]
        self._end = f"\r\n--{self._boundary}--\r\n".encode()

    @property
    def content_type(self) -> str:
        """What the answer as a whole is."""
        return f"multipart/byteranges; boundary={self._boundary}"

    @property
    def digest(self) -> Digest:
        """The blob's digest."""
        return self._reader.digest

    @property
    def size(self) -> int:
        """The length of the body, heads included."""
        return sum(map(len, self._heads)) + sum(part.stop - part.start for part in self._parts) + len(self._end)

    @property
    def is_worth_it(self) -> bool:
        """Whether the whole blob would cost us, or the client, more than these parts."""
        few = isinstance(self._reader, Held) or len(self._parts) <= _MOST_READ
        return few and self.size <= self._reader.size

    def plan(self, _start: int, _stop: int, /) -> Iterator[FileRange | Packed | bytes]:
        """Yield the whole body, lazily; there are no ranges of it."""
        for head, part in zip(self._heads, self._parts, strict=True):
            yield head
            yield from self._reader.plan(part.start, part.stop)
        yield self._end

    def ends_early(self, fd: int, missing: int, /) -> Damaged:
        """Return the error for whoever finds so many bytes missing in a file of the blob."""
        return self._reader.ends_early(fd, missing)

    def close(self) -> None:
        """Let go of the blob's files."""
        self._reader.close()
