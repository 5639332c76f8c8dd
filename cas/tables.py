"""The tables of the index: which there are, and how their keys and values are laid out.

Layer: L1, pure. With `view` and `index` the only module that knows these layouts. Integers are big-endian, so that
LMDB's byte order is numeric order.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

from cas.extent import Codec, Extent
from cas.records import BlobEntry, ChunkRef, Role, unpack_refs
from cas.rows import PIECES

if TYPE_CHECKING:
    from cas.digest import Digest

TABLES = {  # name → whether a key has several values
    "meta": False,  # counters
    "chunks": False,  # key 16 | salt 4 → pack, offset, stored, raw, codec, state
    "blobs": False,  # digest → size, created, recipe, form, inline bytes
    "recipes": False,  # recipe 8 | raw offset 8 → chunk list (the truth), extents (a hint)
    "packs": False,  # id 8 → state, role, owner, committed bytes
    "refs": False,  # kind NUL path → record
    "holders": True,  # digest → keys of the names that keep it
    "uploads": False,  # recipe 8 → owner: segments whose blob is still arriving, in one request
    "sessions": False,  # number 8 → a resumable upload; number 8 and a zero byte → all of its bytes while they are few
    "touched": False,  # recipe 8 | raw offset 8 → nothing: segments filed while a collection marks what is in use
    "checked": False,  # id of a pack 8 → when all of its bytes were last looked at, Unix seconds; DOUBTED; TOLD | when
    PIECES: False,  # table's letter, key of a row there, number 2 → what follows the first page of a long row
    "lost": False,  # digest → the row it had in `blobs`: bytes of it are damaged, so it is not here until it is whole
}
DOUBTED = 0  # in place of a time: somebody saw damage in a pack, and nobody has read it through since
TOLD = 1 << 63  # beside a time: it was found damaged then, which was said, and nobody mended it
MARKING = "marking"  # counter: whether a collection marks what is in use
PACKS_GONE = "packs_gone"  # counter: of packs forgotten after their files
MOST_CANDIDATES = 16  # chunks of one key that a push compares itself with; beyond, it is stored once more
U64 = struct.Struct(">Q")
CHUNK = struct.Struct(">QIIIBB")  # as EXTENT, and the state
CHUNK_KEY = struct.Struct(">16sI")
BLOB = struct.Struct(">QQQB")
SEGMENT = struct.Struct(">BHH")  # codec of the segment (0: chunk list), number of chunks, number of extents
SEGMENT_KEY = struct.Struct(">QQ")
LAST_BYTE = (1 << 64) - 1  # where no segment begins
EXTENT = struct.Struct(">QIIIB")
PACK = struct.Struct(">BB16sQ")
FEW = b"\0"  # ends the key of a session's bytes, which a walk over all sessions steps over unread
REF_SIZE = 24
_RAW = struct.Struct(">20xI")  # of a reference
INLINE, BY_RECIPE = 0, 1


class ChunkState(IntEnum):
    """Whether a chunk may be used. On disk: append only."""

    GOOD = 0
    BAD = 1  # its stored bytes are damaged
    DYING = 2  # nobody names it: readers may still use it, pushes do not, and the collection takes it


_CODECS = {int(codec): codec for codec in Codec}  # far quicker than asking the class, for every chunk of every walk
_BAD = int(ChunkState.BAD)
_STATES = {int(state): state for state in ChunkState}


class PackState(IntEnum):
    """A pack's life. Only its owner appends, and only while it is open. On disk: append only."""

    OPEN = 0
    CLOSED = 1  # no footer: its process ended; never appended to again
    SEALED = 2
    DYING = 3  # all that lived in it was moved; its file is being unlinked


class ChunkRow(NamedTuple):
    """A chunk's place."""

    salt: int
    extent: Extent
    state: ChunkState


@dataclass(frozen=True, slots=True)
class PackRow:
    """A pack's state and how many of its bytes are committed."""

    pack: int
    state: PackState
    role: Role
    owner: bytes
    committed: int


@dataclass(frozen=True, slots=True)
class Stretch:
    """A segment as a reader finds it.

    Attributes:
        start: of a blob's raw bytes, the first it stands for.
        raw: so many bytes.
        packed_refs: its chunks as `pack_refs` writes them: most readers need to know no more of them than their length.
        extents: where the bytes lay when it was last looked; perhaps not all of them.
    """

    start: int
    raw: int
    packed_refs: bytes
    extents: tuple[Extent, ...]

    @property
    def refs(self) -> tuple[ChunkRef, ...]:
        """Its chunks, read anew each time."""
        return unpack_refs(self.packed_refs)


def read_blob(digest: Digest, value: bytes) -> BlobEntry:
    """Read a row of `blobs` or `lost`."""
    size, created, recipe, form = BLOB.unpack_from(value)
    return BlobEntry(digest, size, created, recipe, value[BLOB.size :] if form == INLINE else None)


def read_chunk_ids(value: bytes) -> list[bytes]:
    """Return the ids of a segment's chunks: the first bytes of each reference."""
    end = SEGMENT.size + SEGMENT.unpack_from(value)[1] * REF_SIZE
    return [value[at : at + CHUNK_KEY.size] for at in range(SEGMENT.size, end, REF_SIZE)]


def read_raw(value: bytes) -> int:
    """Return for how many raw bytes a segment stands."""
    end = SEGMENT.size + SEGMENT.unpack_from(value)[1] * REF_SIZE
    return _raw_of(value[SEGMENT.size : end])


def _raw_of(packed_refs: bytes) -> int:
    return sum(raw for (raw,) in _RAW.iter_unpack(packed_refs))


def read_chunk(salt: int, value: bytes) -> ChunkRow:
    """Read a row of `chunks`."""
    pack, offset, stored, raw, codec, state = CHUNK.unpack(value)
    return ChunkRow(salt, Extent(pack, offset, stored, raw, _CODECS[codec]), _STATES[state])


def is_usable(row: bytes | None) -> bool:
    """Whether a chunk's row is there, and nothing is known against its bytes."""
    return row is not None and row[-1] != _BAD


def pack_place(extent: Extent) -> bytes:
    """Return how the row of a chunk that lies there begins; its state follows."""
    return EXTENT.pack(*extent)


def read_place(row: bytes) -> Extent:
    """Return where the chunk of a row lies."""
    pack, offset, stored, raw, codec = EXTENT.unpack_from(row)
    return Extent(pack, offset, stored, raw, _CODECS[codec])


def read_stretch(start: int, value: bytes) -> Stretch:
    """Read a row of `recipes`."""
    _, chunks, extents = SEGMENT.unpack_from(value)
    at = SEGMENT.size + chunks * REF_SIZE
    rows = EXTENT.iter_unpack(value[at : at + extents * EXTENT.size])
    hints = tuple(Extent(pack, offset, stored, raw, _CODECS[codec]) for pack, offset, stored, raw, codec in rows)
    refs = value[SEGMENT.size : at]
    return Stretch(start, _raw_of(refs), refs, hints)


def read_pack(key: bytes, value: bytes) -> PackRow:
    """Read a row of `packs`."""
    state, role, owner, committed = PACK.unpack(value)
    return PackRow(U64.unpack(key)[0], PackState(state), Role(role), owner, committed)
