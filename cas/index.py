"""The index: which tables there are, how their keys and values are laid out, and verbs over them.

Layer: L3, over `environment`. The only module that knows these layouts; nothing of LMDB leaves it. Integers are
big-endian, so that LMDB's byte order is numeric order. The index is a cache of the packs: `rebuild` can make
it anew (I4).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from itertools import islice, takewhile
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from cas.digest import Digest
from cas.environment import Cursor, Environment, Transaction
from cas.errors import Damaged
from cas.extent import Codec, Extent
from cas.names import Record
from cas.records import BlobEntry, ChunkRef, Role, Segment, pack_refs, unpack_refs
from cas.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from cas.config import EngineSettings

T = TypeVar("T")
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
    "lost": False,  # digest → the row it had in `blobs`: bytes of it are damaged, so it is not here until it is whole
}
MOST_CANDIDATES = 16  # chunks of one key that a push compares itself with; beyond, it is stored once more
_U64 = struct.Struct(">Q")
_CHUNK = struct.Struct(">QIIIBB")
_CHUNK_KEY = struct.Struct(">16sI")
_BLOB = struct.Struct(">QQQB")
_SEGMENT = struct.Struct(">BHH")  # codec of the segment (0: chunk list), number of chunks, number of extents
_SEGMENT_KEY = struct.Struct(">QQ")
_EXTENT = struct.Struct(">QIIIB")
_PACK = struct.Struct(">BB16sQ")
_FEW = b"\0"  # ends the key of a session's bytes, which a walk over all sessions steps over unread
_REF_SIZE = 24
_INLINE, _BY_RECIPE = 0, 1


class ChunkState(IntEnum):
    """Whether a chunk may be used. On disk: append only."""

    GOOD = 0
    BAD = 1  # its stored bytes are damaged
    DYING = 2  # nobody names it: readers may still use it, pushes do not, and the collection takes it


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
    """A segment as a reader finds it."""

    start: int
    refs: tuple[ChunkRef, ...]
    extents: tuple[Extent, ...]


class View:
    """Reading verbs, inside one transaction."""

    __slots__ = ("_tx",)

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    def number(self, name: str) -> int:
        """Return a counter."""
        value = self._tx.get("meta", name.encode())
        return _U64.unpack(value)[0] if value else 0

    def count(self, table: str) -> int:
        """Return a table's number of entries."""
        return self._tx.count(table)

    def chunks(self, keys: Sequence[bytes]) -> list[list[ChunkRow]]:
        """Return, for each key, the chunks stored under it: at most `MOST_CANDIDATES`, since equal keys can be made."""
        cursor = self._tx.cursor("chunks")
        return [list(islice(self._rows(cursor, key), MOST_CANDIDATES)) for key in keys]

    @staticmethod
    def _rows(cursor: Cursor, key: bytes) -> Iterator[ChunkRow]:
        found = cursor.seek(key)
        while found and (at := cursor.key()).startswith(key):
            yield _chunk_row(_CHUNK_KEY.unpack(at)[1], cursor.value())
            found = cursor.next()

    def chunk(self, ref: ChunkRef) -> ChunkRow | None:
        """Return where one chunk lies."""
        value = self._tx.get("chunks", _CHUNK_KEY.pack(ref.key, ref.salt))
        return None if value is None else _chunk_row(ref.salt, value)

    def blob(self, digest: Digest) -> BlobEntry | None:
        """Return a blob's entry."""
        value = self._tx.get("blobs", digest.pack())
        if value is None:
            return None
        size, created, recipe, form = _BLOB.unpack_from(value)
        return BlobEntry(digest, size, created, recipe, value[_BLOB.size :] if form == _INLINE else None)

    def sound_blob(self, digest: Digest) -> BlobEntry | None:
        """Return a blob's entry, or None if its row is damaged too: for a push, whose proven bytes take its place."""
        try:
            return self.blob(digest)
        except Damaged:
            return None

    def digests(self) -> list[Digest]:
        """Return every blob's digest."""
        return [Digest.unpack(key) for key, _ in self._tx.cursor("blobs")]

    def stretch(self, recipe: int, offset: int) -> Stretch | None:
        """Return the segment that covers raw byte `offset` of a recipe."""
        cursor = self._tx.cursor("recipes")
        wanted = _SEGMENT_KEY.pack(recipe, offset)
        found = cursor.seek(wanted)
        if not found or cursor.key() != wanted:
            found = cursor.prev() if found else cursor.last()
        if not found:
            return None
        at, start = _SEGMENT_KEY.unpack(cursor.key())
        return _stretch(start, cursor.value()) if at == recipe else None

    def segments(self, recipe: int) -> list[Stretch]:
        """Return all segments of a recipe, in order."""
        cursor, found = self._tx.cursor("recipes"), []
        more = cursor.seek(_SEGMENT_KEY.pack(recipe, 0))
        while more and (key := _SEGMENT_KEY.unpack(cursor.key()))[0] == recipe:
            found.append(_stretch(key[1], cursor.value()))
            more = cursor.next()
        return found

    def packs(self) -> list[PackRow]:
        """Return every pack."""
        return [_pack_row(key, value) for key, value in self._tx.cursor("packs")]

    def pack(self, pack: int) -> PackRow | None:
        """Return one pack."""
        value = self._tx.get("packs", _U64.pack(pack))
        return None if value is None else _pack_row(_U64.pack(pack), value)

    def record(self, key: bytes) -> Record | None:
        """Return what stands under a name."""
        value = self._tx.get("refs", key)
        return None if value is None else Record.decode(value)

    def records(self, prefix: bytes, after: bytes, limit: int | None) -> list[tuple[bytes, Record]]:
        """Return up to `limit` names beginning with `prefix` and following `after`, in byte order."""
        cursor = self._tx.cursor("refs")
        return [(key, Record.decode(cursor.value())) for key in _walk(cursor, prefix, after, limit)]

    def keys(self, prefix: bytes, after: bytes, limit: int | None) -> list[bytes]:
        """Return the names alone of what `records` would return."""
        return list(_walk(self._tx.cursor("refs"), prefix, after, limit))

    def record_up_to(self, at_most: bytes, *, within: bytes) -> tuple[bytes, Record] | None:
        """Return the last name that begins with `within` and is `at_most` or comes before it."""
        cursor = self._tx.cursor("refs")
        found = cursor.seek(at_most)
        if not found or cursor.key() != at_most:
            found = cursor.prev() if found else cursor.last()
        return (cursor.key(), Record.decode(cursor.value())) if found and cursor.key().startswith(within) else None

    def holders(self, digest: Digest, prefix: bytes = b"", limit: int | None = None) -> list[bytes]:
        """Return the keys of up to `limit` names that keep a blob and begin with `prefix`, in byte order."""
        found = self._tx.values("holders", digest.pack(), prefix, limit)
        return list(takewhile(lambda key: key.startswith(prefix), found))

    def uploads(self) -> list[tuple[int, bytes]]:
        """Return `(recipe, owner)` of every upload that has segments here."""
        return [(_U64.unpack(key)[0], owner) for key, owner in self._tx.cursor("uploads")]

    def session(self, number: int) -> Session | None:
        """Return a resumable upload's row, its bytes included."""
        key = _U64.pack(number)
        value = self._tx.get("sessions", key)
        return None if value is None else Session.decode(value, self._tx.get("sessions", key + _FEW) or b"")

    def sessions(self) -> Iterator[tuple[int, Session]]:
        """Yield `(number, row)` of every resumable upload, without its bytes."""
        cursor = self._tx.cursor("sessions")
        more = cursor.seek(b"")
        while more:
            if len(key := cursor.key()) == _U64.size:
                yield _U64.unpack(key)[0], Session.decode(cursor.value(), b"")
            more = cursor.next()

    def dump(self, table: str) -> Iterator[tuple[bytes, bytes]]:
        """Yield a table's raw entries, for fsck and tests that compare whole indexes."""
        yield from self._tx.rows(table)


class Edit(View):
    """Writing verbs, inside one write transaction."""

    __slots__ = ()

    def set_number(self, name: str, value: int) -> None:
        """Set a counter."""
        self._tx.put("meta", name.encode(), _U64.pack(value))

    def put_chunk(self, ref: ChunkRef, extent: Extent, state: ChunkState = ChunkState.GOOD) -> None:
        """Say where a chunk lies."""
        value = _CHUNK.pack(extent.pack, extent.offset, extent.stored, extent.raw, extent.codec, state)
        self._tx.put("chunks", _CHUNK_KEY.pack(ref.key, ref.salt), value)

    def put_blob(self, blob: BlobEntry) -> None:
        """Make a blob readable."""
        form = _BY_RECIPE if blob.inline is None else _INLINE
        value = _BLOB.pack(blob.size, blob.created, blob.recipe, form) + (blob.inline or b"")
        self._tx.put("blobs", blob.digest.pack(), value)

    def delete_blob(self, digest: Digest) -> None:
        """Forget a blob; its recipe is another matter."""
        self._tx.delete("blobs", digest.pack())

    def put_segment(self, segment: Segment, extents: Sequence[Extent]) -> None:
        """Store a stretch of a recipe."""
        head = _SEGMENT.pack(0, len(segment.refs), len(extents))
        tail = b"".join(_EXTENT.pack(e.pack, e.offset, e.stored, e.raw, e.codec) for e in extents)
        key = _SEGMENT_KEY.pack(segment.recipe, segment.start)
        self._tx.put("recipes", key, head + pack_refs(segment.refs) + tail)

    def delete_recipe(self, recipe: int) -> None:
        """Forget a recipe and its upload row; its chunks become garbage unless others name them."""
        cursor, prefix = self._tx.cursor("recipes"), _U64.pack(recipe)
        cursor.seek(prefix)
        while cursor.key().startswith(prefix):
            cursor.delete()
        self._tx.delete("uploads", _U64.pack(recipe))

    def has_upload(self, recipe: int) -> bool:
        """Whether a recipe's blob is still arriving."""
        return self._tx.get("uploads", _U64.pack(recipe)) is not None

    def put_upload(self, recipe: int, owner: bytes) -> None:
        """Say whose unfinished upload a recipe is."""
        self._tx.put("uploads", _U64.pack(recipe), owner)

    def delete_upload(self, recipe: int) -> None:
        """The recipe belongs to a blob now."""
        self._tx.delete("uploads", _U64.pack(recipe))

    def put_session(self, number: int, row: Session) -> None:
        """Set a resumable upload's row."""
        key = _U64.pack(number)
        self._tx.put("sessions", key, row.encode())
        if row.inline:
            self._tx.put("sessions", key + _FEW, row.inline)
        else:
            self._tx.delete("sessions", key + _FEW)

    def delete_session(self, number: int) -> None:
        """Forget a resumable upload; its recipe is another matter."""
        self._tx.delete("sessions", _U64.pack(number))
        self._tx.delete("sessions", _U64.pack(number) + _FEW)

    def put_pack(self, row: PackRow) -> None:
        """Set a pack's row."""
        self._tx.put("packs", _U64.pack(row.pack), _PACK.pack(row.state, row.role, row.owner, row.committed))

    def extend_pack(self, row: PackRow) -> None:
        """Say how far an open pack is committed; what was filed later or sealed since stays."""
        known = self.pack(row.pack)
        if known is None or (known.state is PackState.OPEN and known.committed < row.committed):
            self.put_pack(row)

    def put_record(self, key: bytes, value: bytes) -> None:
        """Set a name's encoded record, keeping holders and the sum of logical bytes true."""
        record = Record.decode(value)
        self.delete_record(key)
        self._tx.put("refs", key, value)
        for digest in record.holds:
            self._tx.add("holders", digest.pack(), key)
        self.set_number("logical_bytes", self.number("logical_bytes") + record.logical_bytes)

    def delete_record(self, key: bytes) -> bool:
        """Remove a name; say whether it was there."""
        old = self.record(key)
        if old is None:
            return False
        for digest in old.holds:
            self._tx.delete("holders", digest.pack(), key)
        self._tx.delete("refs", key)
        self.set_number("logical_bytes", self.number("logical_bytes") - old.logical_bytes)
        return True

    def attempt(self, work: Callable[[Edit], T]) -> T:
        """Run `work` in a transaction within this one: if it raises, nothing of it stays."""
        with self._tx.nested() as inner:
            return work(Edit(inner))


class Index:
    """The index of one store, in one process."""

    def __init__(self, path: Path, settings: EngineSettings) -> None:
        self._env = Environment(path, TABLES, map_bytes=settings.map_bytes, max_readers=settings.max_readers)

    def read(self, work: Callable[[View], T]) -> T:
        """Run `work` in a short read transaction."""
        return self._env.read(lambda tx: work(View(tx)))

    def write(self, work: Callable[[Edit], T]) -> T:
        """Run `work` in a write transaction, then commit durably. It may run more than once."""
        return self._env.write(lambda tx: work(Edit(tx)))

    def check_readers(self) -> int:
        """Free reader slots of dead processes."""
        return self._env.check_readers()

    def close(self) -> None:
        """Close for good."""
        self._env.close()


def _walk(cursor: Cursor, prefix: bytes, after: bytes, limit: int | None) -> Iterator[bytes]:
    """Step over keys beginning with `prefix` and following `after`; the cursor stands on the one just yielded."""
    more = cursor.seek(max(prefix, after))
    if more and cursor.key() == after:
        more = cursor.next()
    left = -1 if limit is None else max(limit, 0)
    while more and left and (key := cursor.key()).startswith(prefix):
        yield key
        more, left = cursor.next(), left - 1


def _chunk_row(salt: int, value: bytes) -> ChunkRow:
    pack, offset, stored, raw, codec, state = _CHUNK.unpack(value)
    return ChunkRow(salt, Extent(pack, offset, stored, raw, Codec(codec)), ChunkState(state))


def _stretch(start: int, value: bytes) -> Stretch:
    _, chunks, extents = _SEGMENT.unpack_from(value)
    at = _SEGMENT.size + chunks * _REF_SIZE
    rows = _EXTENT.iter_unpack(value[at : at + extents * _EXTENT.size])
    hints = tuple(Extent(pack, offset, stored, raw, Codec(codec)) for pack, offset, stored, raw, codec in rows)
    return Stretch(start, unpack_refs(value[_SEGMENT.size : at]), hints)


def _pack_row(key: bytes, value: bytes) -> PackRow:
    state, role, owner, committed = _PACK.unpack(value)
    return PackRow(_U64.unpack(key)[0], PackState(state), Role(role), owner, committed)
