"""Where the members of a plain tar begin and end, read from the headers while the stream passes.

Knows the header block of ustar, GNU and PAX archives, and nothing else of them: no names, no
modes, no contents. It only proposes borders at which a chunk should end. A stream that lies, or a
dialect unknown here, costs dedup ratio and never a byte, so every doubt is settled by stopping.

Left out on purpose: a GNU sparse map longer than its header, and checksums summed over signed
bytes. Both end the walk; registries hardly ever see either.
"""

from __future__ import annotations

import re
import zlib
from typing import Final, final

BLOCK: Final = 512

# A member with at least this much data is cut off from its neighbours. Below it the two extra
# chunks cost more (index rows, look-ups, short extents) than the sharing they bring.
MEMBER_BYTES: Final = 4 * 1024

# A PAX header longer than this is stepped over unread. Only a size record matters here, it is a
# few dozen bytes, and paths of 4096 bytes with their link targets fit as well.
PAX_BYTES: Final = 16 * 1024

# So many bytes from `next_header` on are always enough for the walk to go on.
LOOK_BYTES: Final = BLOCK + PAX_BYTES

# Farther than any twelve-byte size field can point: where a walk that has stopped expects its next header.
NOWHERE: Final = 1 << 128

_PAX_LOCAL: Final = ord("x")
_MEMBERS_OF_NO_DATA: Final = frozenset(b"123456")  # links, devices, directories, fifos; size may lie
_ABOUT_THE_NEXT: Final = frozenset(b"xgLK")  # PAX records, GNU long names: headers, not content
_PAX_SIZE: Final = re.compile(rb"(?:\A|\n)\d{1,3} size=(\d{1,20})\n")

# Adler-32 keeps 1 + the sum of the bytes, modulo this prime, in its low half. That is ten times as
# fast as sum(block), and the header's own checksum is just such a sum.
_ADLER_PRIME: Final = 65521
_BLANK_CHECKSUM: Final = 8 * ord(" ")


def read_header(block: bytes) -> tuple[int, int] | None:
    """The type flag and the size written in a header block; None if this is no header."""
    field = block[148:156]
    try:
        promised = _number(field)
        size = _number(block[124:136])
    except ValueError:
        return None
    if not promised or size < 0 or len(block) != BLOCK:  # all zeros: the end of the archive
        return None
    rest_of_sum = promised - _BLANK_CHECKSUM + sum(field)
    if (rest_of_sum + 1) % _ADLER_PRIME != zlib.adler32(block) & 0xFFFF:
        return None
    return block[156], size


def _number(field: bytes) -> int:
    """Octal text, or base 256 if the top bit says so. Negative if the writer meant it so."""
    if field[:1] >= b"\x80":
        return int.from_bytes(field[1:], "big") if field[0] == 0x80 else -1  # noqa: PLR2004 - the only positive marker
    text = field.partition(b"\0")[0].strip()
    return int(text, 8) if text else 0


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


@final
class TarWalk:
    """Steps from header to header of one archive, as far as the bytes at hand allow."""

    __slots__ = ("_member_bytes", "_pax_size", "next_header")

    def __init__(self, member_bytes: int = MEMBER_BYTES) -> None:
        self.next_header = 0  # the first byte of the stream not understood yet; keep it and what follows
        self._member_bytes = member_bytes
        self._pax_size: int | None = None

    def borders(self, window: memoryview, position: int) -> list[int]:
        """Borders not told before, as offsets in the stream, rising; window[0] lies at position.

        They come in pairs, a member's first byte and the first one after its padding; the second
        may lie far beyond the window. The position must not be past `next_header`.
        """
        found: list[int] = []
        while (at := self.next_header - position) + BLOCK <= len(window):
            header = read_header(window[at : at + BLOCK].tobytes())
            if header is None:
                self.next_header = NOWHERE
                break
            kind, size = header
            if kind in _ABOUT_THE_NEXT:
                data = at + BLOCK
                if kind == _PAX_LOCAL and size <= PAX_BYTES:
                    if data + size > len(window):
                        break
                    self._read_pax(window[data : data + size].tobytes())
                self.next_header += BLOCK + _padded(size)
                continue
            start = self.next_header + BLOCK
            self.next_header = start + self._data_bytes(kind, size)
            if self.next_header - start >= self._member_bytes:
                found += (start, self.next_header)
        return found

    def _read_pax(self, records: bytes) -> None:
        # A path made to look like this record can fool us: that costs ratio, and spares a real parser.
        if b" size=" in records and (match := _PAX_SIZE.search(records)):
            self._pax_size = int(match[1])

    def _data_bytes(self, kind: int, size: int) -> int:
        told, self._pax_size = self._pax_size, None
        if kind in _MEMBERS_OF_NO_DATA:
            return 0
        return _padded(size if told is None else told)
