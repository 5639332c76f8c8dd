"""Tar archives read as a stream of entries, with every header field as it was written.

Knows ustar, PAX and GNU headers. Unlike the standard library's reader it keeps what a tarsum needs (a
directory's slash, the raw type byte, all mode bits), never seeks, and bounds what a hostile header can make
it hold. Sparse files are read as their stored bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from api.v1.unpack import Unpacked, Unreadable

BLOCK: Final = 512
_PIECE_BYTES: Final = 256 << 10
_MAX_EXTENSION_BYTES: Final = 1 << 20  # one entry's long names and PAX records; real ones stay under 64 KiB
_ZEROS: Final = bytes(BLOCK)

FILE_TYPES: Final = frozenset({b"0", b"\0", b"7", b"S"})  # the types that are followed by data …
_NO_DATA: Final = frozenset({b"1", b"2", b"3", b"4", b"5", b"6"})  # … and those that never are, whatever their size
_DEVICES: Final = frozenset({b"3", b"4"})
_XATTR: Final = b"SCHILY.xattr."


@dataclass(frozen=True, slots=True)
class Entry:
    """One header, extensions merged in; texts are the raw bytes."""

    name: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    type: bytes
    linkname: bytes
    uname: bytes
    gname: bytes
    devmajor: int
    devminor: int
    xattrs: Mapping[bytes, bytes] = field(default_factory=dict)


@dataclass(slots=True)
class _Extensions:
    """What came ahead of an entry's own header."""

    size: int = 0
    records: dict[bytes, bytes] = field(default_factory=dict)
    name: bytes | None = None
    linkname: bytes | None = None


def entries(source: Unpacked) -> Iterator[tuple[Entry, Iterator[bytes]]]:
    """Yield each entry with its data; data that the caller leaves is skipped.

    Raises:
        Unreadable: not a tar, or cut off. Without its closing zeros it is whole: old engines write it so.
    """
    extensions = _Extensions()
    while (header := _next_header(source)) is not None:
        kind = header[156:157]
        size = _number(header[124:136])
        if kind in {b"x", b"X", b"g", b"L", b"K"}:
            extensions.size += size
            _extend(extensions, kind, _extension(source, extensions.size, size))
            continue
        entry = _entry(header, size, extensions)
        extensions = _Extensions()
        if kind == b"S":
            _skip_sparse_map(source, header)
        data = _data(source, 0 if kind in _NO_DATA else entry.size)
        yield entry, data
        for _ in data:
            pass


def _next_header(source: Unpacked) -> bytes | None:
    header = source.exactly(BLOCK)
    if not header or header == _ZEROS:
        return None
    if len(header) < BLOCK:
        raise Unreadable("the archive ends inside a header")
    blank = header[:148] + b" " * 8 + header[156:]
    stated = _number(header[148:156])
    # Some very old writers summed signed bytes.
    if stated not in {sum(blank), sum(byte - 256 if byte > 127 else byte for byte in blank)}:  # noqa: PLR2004
        raise Unreadable("a header's checksum is wrong")
    return header


def _extension(source: Unpacked, so_far: int, size: int) -> bytes:
    if so_far > _MAX_EXTENSION_BYTES:
        raise Unreadable(f"names and PAX records of {so_far} bytes for one entry")
    return b"".join(_data(source, size))


def _extend(extensions: _Extensions, kind: bytes, data: bytes) -> None:
    if kind == b"L":
        extensions.name = _text(data)
    elif kind == b"K":
        extensions.linkname = _text(data)
    elif kind != b"g":  # global records do not name or change a file
        extensions.records.update(_pax(data))


def _pax(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Read `length key=value newline` records; the length counts itself."""
    at = 0
    while at < len(data):
        blank = data.find(b" ", at, at + 8)  # 1 MiB has 7 digits
        digits = data[at : max(blank, at)]
        end = at + (int(digits) if digits.isdigit() else 0)
        key, equals, value = data[blank + 1 : max(end - 1, 0)].partition(b"=")
        if not equals or not key or end > len(data) or data[end - 1 : end] != b"\n":
            raise Unreadable("a PAX record is malformed")
        yield key, value
        at = end


def _entry(header: bytes, size: int, extensions: _Extensions) -> Entry:
    records = extensions.records
    ustar = header[257:262] == b"ustar"
    kind = header[156:157]
    device = ustar and kind in _DEVICES
    name = records.get(b"path") or extensions.name or _joined_name(header)
    linkname = records.get(b"linkpath") or extensions.linkname or _text(header[157:257])
    return Entry(
        name=name,
        mode=_number(header[100:108]),
        uid=_whole(records.get(b"uid"), _number(header[108:116])),
        gid=_whole(records.get(b"gid"), _number(header[116:124])),
        size=_size(_whole(records.get(b"size"), size)),
        mtime=_whole(records.get(b"mtime"), _number(header[136:148])),
        type=kind,
        linkname=linkname,
        uname=records.get(b"uname") or (_text(header[265:297]) if ustar else b""),
        gname=records.get(b"gname") or (_text(header[297:329]) if ustar else b""),
        devmajor=_number(header[329:337]) if device else 0,
        devminor=_number(header[337:345]) if device else 0,
        xattrs={key[len(_XATTR) :]: value for key, value in records.items() if key.startswith(_XATTR)},
    )


def _joined_name(header: bytes) -> bytes:
    name = _text(header[:100])
    if header[257:263] != b"ustar\0":  # GNU keeps other things where the prefix would be
        return name
    end = 476 if header[508:512] == b"tar\0" else 500  # star's prefix is shorter
    prefix = _text(header[345:end])
    return prefix + b"/" + name if prefix else name


def _text(raw: bytes) -> bytes:
    return raw.partition(b"\0")[0]


def _number(raw: bytes) -> int:
    """Read an octal field, or GNU's base 256."""
    if raw[0] & 0x80:
        value = int.from_bytes(raw, "big")
        bits = 8 * len(raw)
        negative = raw[0] & 0x40
        return value - (1 << bits) if negative else value - (1 << (bits - 1))
    digits = _text(raw).strip(b" ")
    try:
        return int(digits or b"0", 8)
    except ValueError:
        raise Unreadable(f"{raw!r} is not an octal number") from None


def _whole(text: bytes | None, otherwise: int) -> int:
    """Read a PAX number and drop its fraction downwards."""
    if not text:
        return otherwise
    try:
        return math.floor(float(text)) if b"." in text else int(text)
    except (ValueError, OverflowError):
        raise Unreadable(f"{text[:40]!r} is not a number") from None


def _size(size: int) -> int:
    if size < 0:
        raise Unreadable("an entry of negative size")
    return size


def _skip_sparse_map(source: Unpacked, header: bytes) -> None:
    more = header[482]
    while more:
        block = source.exactly(BLOCK)
        if len(block) < BLOCK:
            raise Unreadable("the archive ends inside a sparse map")
        more = block[504]


def _data(source: Unpacked, size: int) -> Iterator[bytes]:
    """Yield an entry's data and consume its padding."""
    left = size
    while left:
        part = source.some(min(left, _PIECE_BYTES))
        if not part:
            raise Unreadable("the archive ends inside an entry")
        left -= len(part)
        yield part
    # An archive cut off inside its very last padding has lost nothing.
    source.exactly(-size % BLOCK)
