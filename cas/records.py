"""The bytes of a pack: header, commit records, footer; values in, bytes out, and back.

Layer: L1, pure. `docs/design.md` draws the format byte by byte. A record is believed for its checksum alone, never for
its place or length (I2); the checksum covers the record's own offset and the pack's random marker, which clients never
see, so that no pushed content can pass for a record.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

import xxhash

from cas.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterator

FORMAT = 1
MAGIC = b"CASPACK\0"
END_MAGIC = b"CASSEAL\0"
_HEADER = struct.Struct(">8sHHQ16s16sI")  # magic, format, role, pack id, store id, marker, created (Unix s)
_SUM = struct.Struct(">Q")
HEADER_SIZE = _HEADER.size + _SUM.size
_RECORD = struct.Struct(">16sQQI")  # marker, own offset, previous record's offset (0: none), body length
RECORD_SIZE = _RECORD.size + _SUM.size
_TRAILER = struct.Struct(">QIQ8s")  # footer's record offset, number of records, checksum, magic
TRAILER_SIZE = _TRAILER.size
_SECTION = struct.Struct(">BI")
_CHUNK = struct.Struct(">16sIIIIBQ")  # key, salt, offset, stored, raw, codec, checksum of the stored bytes
_REF = struct.Struct(">16sII")  # key, salt, raw
_SEGMENT = struct.Struct(">QQ")  # recipe, raw offset
_CHAIN_SIZE = 16
_BLOB = struct.Struct(">BQQBQ")  # digest length, size, created, form, recipe
_NAMES = struct.Struct(">QQ")  # seq, previous committed seq
_OP = struct.Struct(">BHI")  # kind of change, key length, value length
_OFFSET = struct.Struct(">Q")
FOOTER_ENTRY_SIZE = _OFFSET.size

INLINE, RECIPE = 0, 1  # forms of a blob; on disk: append only


class Role(IntEnum):
    """What a pack is for: chunk data, or the journal of names. On disk: append only."""

    DATA = 0
    JOURNAL = 1


class _Kind(IntEnum):
    CHUNKS = 1
    SEGMENT = 2
    BLOB = 3
    NAMES = 4
    LINKED_SEGMENT = 5


@dataclass(frozen=True, slots=True)
class Header:
    """The first bytes of a pack."""

    role: Role
    pack: int
    store: bytes
    marker: bytes
    created: int
    format: int = FORMAT


class ChunkEntry(NamedTuple):
    """A chunk as a record lists it: identity (key, salt) and where its stored bytes lie in this pack."""

    key: bytes
    salt: int
    offset: int
    stored: int
    raw: int
    codec: int
    checksum: int


class ChunkRef(NamedTuple):
    """A chunk as a recipe names it. The salt tells apart chunks of equal key, so no two ever share an identity (I3)."""

    key: bytes
    salt: int
    raw: int


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a recipe: the chunks that stand for a blob's raw bytes from `start` on.

    Attributes:
        chain: sums up this segment and all before it, by `link`. When two writers went on from one point, of whom one
            was refused, both left a record; the chain tells a rebuild which segments belong together.
    """

    recipe: int
    start: int
    refs: tuple[ChunkRef, ...]
    chain: bytes = b""

    @property
    def raw(self) -> int:
        """Raw bytes this segment stands for."""
        return sum(ref.raw for ref in self.refs)


@dataclass(frozen=True, slots=True)
class BlobEntry:
    """A blob: its digest, and either its bytes or the recipe that makes them, with the chain of its last segment.

    The chain stands in the journal only; the index has no need of it.
    """

    digest: Digest
    size: int
    created: int
    recipe: int = 0
    inline: bytes | None = None
    chain: bytes = b""


@dataclass(frozen=True, slots=True)
class NameEdit:
    """One name's new record, or None for its removal."""

    key: bytes
    record: bytes | None


@dataclass(frozen=True, slots=True)
class NameChanges:
    """One link of the journal. `previous` is the change committed before it: numbers in between never happened."""

    seq: int
    previous: int
    edits: tuple[NameEdit, ...] = ()


@dataclass(slots=True)
class Body:
    """What one record says."""

    chunks: list[ChunkEntry] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    blobs: list[BlobEntry] = field(default_factory=list)
    names: NameChanges | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """A believed record and where it lies."""

    offset: int
    end: int
    previous: int
    body: Body


def encode_header(header: Header) -> bytes:
    """Return the first `HEADER_SIZE` bytes of a pack."""
    head = _HEADER.pack(MAGIC, header.format, header.role, header.pack, header.store, header.marker, header.created)
    return head + _SUM.pack(xxhash.xxh3_64_intdigest(head))


def decode_header(data: bytes) -> Header | None:
    """Return the header, or None if these bytes are not a sound one."""
    if len(data) < HEADER_SIZE or data[:8] != MAGIC:
        return None
    (checksum,) = _SUM.unpack_from(data, _HEADER.size)
    if checksum != xxhash.xxh3_64_intdigest(data[: _HEADER.size]):
        return None
    _, fmt, role, pack, store, marker, created = _HEADER.unpack_from(data)
    return Header(Role(role), pack, store, marker, created, fmt)


def encode_record(body: Body, *, marker: bytes, offset: int, previous: int) -> bytes:
    """Return a commit record that will lie at `offset` of the pack with this marker."""
    payload = b"".join(_sections(body))
    head = _RECORD.pack(marker, offset, previous, len(payload))
    checksum = xxhash.xxh3_64_intdigest(head + payload)
    return head + _SUM.pack(checksum) + payload


def decode_record(data: bytes | memoryview, offset: int, marker: bytes, *, names: bool = True) -> Record | None:
    """Return the record whose bytes begin `data` and whose place is `offset`, or None if it is torn or foreign.

    Without `names` it says nothing of blobs, and of names only which change it is.
    """
    if len(data) < RECORD_SIZE:
        return None
    found, at, previous, length = _RECORD.unpack_from(data)
    end = RECORD_SIZE + length
    if found != marker or at != offset or len(data) < end:
        return None
    (checksum,) = _SUM.unpack_from(data, _RECORD.size)
    payload = bytes(data[RECORD_SIZE:end])
    if checksum != xxhash.xxh3_64_intdigest(bytes(data[: _RECORD.size]) + payload):
        return None
    return Record(offset, offset + end, previous, _parse(payload, names=names))


def record_length(head: bytes) -> int:
    """Return the whole length that a record's first `RECORD_SIZE` bytes announce; believe it only after decoding."""
    length: int = _RECORD.unpack_from(head)[3]
    return RECORD_SIZE + length


def encode_footer(offsets: list[int], *, at: int, marker: bytes) -> bytes:
    """Return the footer of a sealed pack: the offset of every record, then a trailer of fixed size. It lies at `at`.

    The checksum covers the pack's marker, so that no pushed content at the end of an open pack can pass for a footer.
    """
    table = b"".join(map(_OFFSET.pack, offsets))
    partial = _TRAILER.pack(at, len(offsets), 0, END_MAGIC)
    return table + _TRAILER.pack(at, len(offsets), xxhash.xxh3_64_intdigest(marker + table + partial), END_MAGIC)


def footer_span(trailer: bytes) -> tuple[int, int] | None:
    """Return `(offset, length)` of the footer that a pack's last `TRAILER_SIZE` bytes announce, or None."""
    if len(trailer) != TRAILER_SIZE or not trailer.endswith(END_MAGIC):
        return None
    at, count, _, _ = _TRAILER.unpack(trailer)
    return at, count * _OFFSET.size + TRAILER_SIZE


def decode_footer(data: bytes, marker: bytes) -> list[int] | None:
    """Return the record offsets a footer lists, or None if its checksum fails."""
    table, trailer = data[:-TRAILER_SIZE], data[-TRAILER_SIZE:]
    at, count, checksum, magic = _TRAILER.unpack(trailer)
    partial = _TRAILER.pack(at, count, 0, magic)
    if len(table) != count * _OFFSET.size or checksum != xxhash.xxh3_64_intdigest(marker + table + partial):
        return None
    return [offset for (offset,) in _OFFSET.iter_unpack(table)]


def link(chain: bytes, refs: tuple[ChunkRef, ...]) -> bytes:
    """Return the chain of a segment with these chunks that follows one with this chain; the first follows none."""
    return hashlib.blake2b(chain + pack_refs(refs), digest_size=_CHAIN_SIZE).digest()


def pack_refs(refs: tuple[ChunkRef, ...]) -> bytes:
    """Return the packed chunk list used in records and in the index."""
    return b"".join(_REF.pack(*ref) for ref in refs)


def unpack_refs(data: bytes) -> tuple[ChunkRef, ...]:
    """Read what `pack_refs` made."""
    return tuple(map(ChunkRef._make, _REF.iter_unpack(data)))


def _sections(body: Body) -> Iterator[bytes]:
    if body.chunks:
        yield from _section(_Kind.CHUNKS, b"".join(_CHUNK.pack(*entry) for entry in body.chunks))
    for segment in body.segments:
        kind = _Kind.LINKED_SEGMENT if segment.chain else _Kind.SEGMENT
        head = _SEGMENT.pack(segment.recipe, segment.start) + segment.chain
        yield from _section(kind, head + pack_refs(segment.refs))
    for blob in body.blobs:
        yield from _section(_Kind.BLOB, _pack_blob(blob))
    if body.names is not None:
        yield from _section(_Kind.NAMES, _pack_names(body.names))


def _section(kind: _Kind, payload: bytes) -> tuple[bytes, bytes]:
    return _SECTION.pack(kind, len(payload)), payload


def _pack_blob(blob: BlobEntry) -> bytes:
    digest = blob.digest.pack()
    form = RECIPE if blob.inline is None else INLINE
    tail = blob.chain if blob.inline is None else blob.inline
    return _BLOB.pack(len(digest), blob.size, blob.created, form, blob.recipe) + digest + tail


def _pack_names(names: NameChanges) -> bytes:
    parts = [_NAMES.pack(names.seq, names.previous)]
    for edit in names.edits:
        value = b"" if edit.record is None else edit.record
        parts += (_OP.pack(edit.record is not None, len(edit.key), len(value)), edit.key, value)
    return b"".join(parts)


def _parse(payload: bytes, *, names: bool) -> Body:
    body, at = Body(), 0
    while at < len(payload):
        kind, length = _SECTION.unpack_from(payload, at)
        at += _SECTION.size
        _parse_section(body, kind, payload[at : at + length], names=names)
        at += length
    return body


def _parse_section(body: Body, kind: int, data: bytes, *, names: bool) -> None:
    if kind == _Kind.CHUNKS:
        body.chunks.extend(map(ChunkEntry._make, _CHUNK.iter_unpack(data)))
    elif kind in (_Kind.SEGMENT, _Kind.LINKED_SEGMENT):
        body.segments.append(_parse_segment(data, _CHAIN_SIZE if kind == _Kind.LINKED_SEGMENT else 0))
    elif kind == _Kind.BLOB and names:
        body.blobs.append(_parse_blob(data))
    elif kind == _Kind.NAMES:
        body.names = _parse_names(data if names else data[: _NAMES.size])


def _parse_segment(data: bytes, chain_size: int) -> Segment:
    recipe, start = _SEGMENT.unpack_from(data)
    end = _SEGMENT.size + chain_size
    return Segment(recipe, start, unpack_refs(data[end:]), data[_SEGMENT.size : end])


def _parse_blob(data: bytes) -> BlobEntry:
    length, size, created, form, recipe = _BLOB.unpack_from(data)
    end = _BLOB.size + length
    digest = Digest.unpack(data[_BLOB.size : end])
    if form == INLINE:
        return BlobEntry(digest, size, created, recipe, inline=data[end:])
    return BlobEntry(digest, size, created, recipe, chain=data[end:])


def _parse_names(data: bytes) -> NameChanges:
    seq, previous = _NAMES.unpack_from(data)
    at, edits = _NAMES.size, []
    while at < len(data):
        present, key_length, value_length = _OP.unpack_from(data, at)
        key_end = at + _OP.size + key_length
        key, value = data[at + _OP.size : key_end], data[key_end : key_end + value_length]
        edits.append(NameEdit(key, value if present else None))
        at = key_end + value_length
    return NameChanges(seq, previous, tuple(edits))
