"""Layers unpacked as a stream: gzip, bzip2, xz or plain, told apart by their first bytes as clients do.

Knows compressed formats and a bound. Never holds more than one piece in memory, however well the input was
compressed. Refuses to know what is inside.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol, final

PIECE_BYTES: Final = 256 << 10
# xz names its own dictionary size; the largest preset needs 65 MiB to unpack.
_XZ_MEMORY_BYTES: Final = 80 << 20


class Unreadable(Exception):
    """These bytes are no archive, or a damaged one. The pusher's fault: push a good layer."""


class TooMuch(Exception):
    """There is more in it than this server is willing to read. The bytes themselves may be fine."""


class _Decoder(Protocol):
    """What the three libraries have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def _gzip() -> _Decoder:
    return zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)


def _xz() -> _Decoder:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES)


_FORMATS: Final[tuple[tuple[bytes, Callable[[], _Decoder]], ...]] = (
    (b"\x1f\x8b\x08", _gzip),
    (b"BZh", bz2.BZ2Decompressor),
    (b"\xfd7zXZ\x00", _xz),
)
_MAGIC_BYTES: Final = max(len(magic) for magic, _ in _FORMATS)


def unpack(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Unpack a stream, yielding pieces of bounded size.

    Raises:
        Unreadable: the compressed stream is damaged or ends too early.
    """
    source = iter(blocks)
    head = _gather(source, _MAGIC_BYTES)
    for magic, make in _FORMATS:
        if head.startswith(magic):
            yield from _decode(magic, make, head, source)
            return
    if head:
        yield head
    yield from source


def _gather(source: Iterator[bytes], count: int, head: bytes = b"") -> bytes:
    """Take blocks until there are `count` bytes, or no more."""
    while len(head) < count:
        block = next(source, None)
        if block is None:
            break
        head += block
    return head


def _decode(magic: bytes, make: Callable[[], _Decoder], data: bytes, source: Iterator[bytes]) -> Iterator[bytes]:
    """Unpack one compressed member after another; what follows the last one is ignored, as clients do."""
    while data.startswith(magic):
        decoder = make()
        yield from _member(decoder, data, source)
        data = _gather(source, len(magic), decoder.unused_data)


def _member(decoder: _Decoder, data: bytes, source: Iterator[bytes]) -> Iterator[bytes]:
    try:
        while True:
            piece = decoder.decompress(data, PIECE_BYTES)
            if piece:
                yield piece
            if decoder.eof:
                return
            data = getattr(decoder, "unconsumed_tail", b"")  # only zlib hands back what it did not get to
            if not data and len(piece) < PIECE_BYTES:
                data = next(source)
    except StopIteration:
        raise Unreadable("the compressed stream ends too early") from None
    except (zlib.error, lzma.LZMAError, OSError, EOFError) as error:
        raise Unreadable(f"the compressed stream is damaged: {error}") from error


@final
class Unpacked:
    """Reads an unpacked stream in the amounts its caller wants, up to a limit."""

    def __init__(self, pieces: Iterable[bytes], limit_bytes: int) -> None:
        self._pieces, self._left = iter(pieces), limit_bytes
        self._held = b""

    def some(self, most: int) -> bytes:
        """Return 1 … `most` bytes; none at the end.

        Raises:
            TooMuch: past the limit.
        """
        while not self._held:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._left -= len(piece)
            if self._left < 0:
                raise TooMuch("the layer unpacks to more than this server reads")
            self._held = piece
        part, self._held = self._held[:most], self._held[most:]
        return part

    def exactly(self, count: int) -> bytes:
        """Return `count` bytes, or fewer if the stream ends before."""
        parts: list[bytes] = []
        while count:
            part = self.some(count)
            if not part:
                break
            parts.append(part)
            count -= len(part)
        return b"".join(parts)
