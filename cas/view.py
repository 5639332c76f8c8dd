"""Looking things up in the index: verbs over its tables, within one transaction.

Layer: L2, over `environment` and `tables`. Nothing of LMDB leaves it.
"""

from __future__ import annotations

from collections import Counter
from itertools import islice, takewhile
from typing import TYPE_CHECKING

from cas.digest import Digest
from cas.environment import Cursor, Transaction, damaged
from cas.errors import Damaged
from cas.names import Record
from cas.records import BlobEntry, ChunkRef
from cas.session import Session
from cas.tables import (
    CHUNK_KEY,
    DOUBTED,
    EXTENT,
    FEW,
    LAST_BYTE,
    MOST_CANDIDATES,
    REF_SIZE,
    SEGMENT,
    SEGMENT_KEY,
    TOLD,
    U64,
    ChunkRow,
    PackRow,
    Stretch,
    is_usable,
    read_blob,
    read_chunk,
    read_chunk_ids,
    read_pack,
    read_raw,
    read_stretch,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

_UNORDERED = "its keys are out of order"


class View:
    """Reading verbs, inside one transaction."""

    __slots__ = ("_tx",)

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    @property
    def moment(self) -> int:
        """The number of the commit whose outcome is seen."""
        return self._tx.moment

    def number(self, name: str) -> int:
        """Return a counter."""
        value = self._tx.get("meta", name.encode())
        return U64.unpack(value)[0] if value else 0

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
            yield read_chunk(CHUNK_KEY.unpack(at)[1], cursor.value())
            found = cursor.next()

    def chunk(self, ref: ChunkRef) -> ChunkRow | None:
        """Return where one chunk lies."""
        value = self._tx.get("chunks", CHUNK_KEY.pack(ref.key, ref.salt))
        return None if value is None else read_chunk(ref.salt, value)

    def chunk_rows(self, chunks: Iterable[bytes]) -> list[bytes | None]:
        """Return the rows of chunks by their ids, unread: for whoever looks at very many (`tables` reads them)."""
        get = self._tx.get
        return [get("chunks", chunk) for chunk in chunks]

    def hints(self, after: bytes, limit: int) -> list[tuple[bytes, set[int]]]:
        """Return up to `limit` segments in order: the key to go on after, and the packs that its extents lie in."""
        cursor, found = self._tx.cursor("recipes"), []
        for at in walk(cursor, b"", after, limit):
            value = cursor.value()
            _, chunks, extents = SEGMENT.unpack_from(value)
            start = SEGMENT.size + chunks * REF_SIZE
            rows = EXTENT.iter_unpack(value[start : start + extents * EXTENT.size])
            found.append((at, {pack for pack, *_ in rows}))
        return found

    def all_segments(self, after: bytes, limit: int) -> list[tuple[bytes, int, int, tuple[ChunkRef, ...]]]:
        """Return up to `limit` segments of any recipe: `(key to go on after, recipe, start, chunks)`, in order."""
        cursor = self._tx.cursor("recipes")
        keys = walk(cursor, b"", after, limit)
        return [(key, *SEGMENT_KEY.unpack(key), read_stretch(0, cursor.value()).refs) for key in keys]

    def blob(self, digest: Digest) -> BlobEntry | None:
        """Return a blob's entry."""
        value = self._tx.get("blobs", digest.pack())
        return None if value is None else read_blob(digest, value)

    def blob_rows(self, digest: Digest) -> list[BlobEntry]:
        """Return a blob's entries: the one it is served by, and the one it had before it was found damaged."""
        rows = (self._tx.get(table, digest.pack()) for table in ("blobs", "lost"))
        return [read_blob(digest, value) for value in rows if value is not None]

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
        wanted = SEGMENT_KEY.pack(recipe, offset)
        found = cursor.seek(wanted)
        if not found or cursor.key() != wanted:
            found = cursor.prev() if found else cursor.last()
        if not found:
            return None
        at, start = SEGMENT_KEY.unpack(cursor.key())
        return read_stretch(start, cursor.value()) if at == recipe else None

    def packed_refs(self, recipe: int, size: int) -> Iterator[bytes]:
        """Yield the chunk lists of a recipe's first `size` bytes, as far as they are there."""
        at = 0
        while at < size:
            stretch = self.stretch(recipe, at)
            if stretch is None or stretch.start != at:
                return
            yield stretch.packed_refs
            at += stretch.raw

    def segments(self, recipe: int) -> list[Stretch]:
        """Return all segments of a recipe, in order."""
        cursor, found = self._tx.cursor("recipes"), []
        more = cursor.seek(SEGMENT_KEY.pack(recipe, 0))
        while more and (key := SEGMENT_KEY.unpack(cursor.key()))[0] == recipe:
            found.append(read_stretch(key[1], cursor.value()))
            more = cursor.next()
        return found

    def chunk_lists(self, recipe: int) -> Iterator[tuple[int, list[bytes], int]]:
        """Yield all segments of a recipe, in order: `(start, ids of its chunks, raw bytes of them)`."""
        cursor = self._tx.cursor("recipes")
        if cursor.seek(SEGMENT_KEY.pack(recipe, 0)):
            for key, value in cursor:
                at, start = SEGMENT_KEY.unpack(key)
                if at != recipe:
                    return
                yield start, read_chunk_ids(value), read_raw(value)

    def recipes_after(self, recipe: int, limit: int) -> list[int]:
        """Return up to `limit` recipes whose numbers follow one."""
        cursor, found = self._tx.cursor("recipes"), list[int]()
        while len(found) < limit and cursor.seek(SEGMENT_KEY.pack(recipe, LAST_BYTE)):
            after, recipe = recipe, SEGMENT_KEY.unpack(cursor.key())[0]
            if recipe <= after:
                raise damaged(_UNORDERED)
            found.append(recipe)
        return found

    def is_held(self, digest: Digest, without: Collection[bytes] = ()) -> bool:
        """Whether a name keeps a blob, other than these."""
        return any(key not in without for key in self._tx.values("holders", digest.pack(), limit=len(without) + 1))

    def lost_after(self, digest: Digest | None, limit: int) -> list[BlobEntry]:
        """Return up to `limit` blobs that are lost and follow one."""
        cursor = self._tx.cursor("lost")
        keys = walk(cursor, b"", b"" if digest is None else digest.pack(), limit)
        return [read_blob(Digest.unpack(key), cursor.value()) for key in keys]

    def blobs_after(self, digest: Digest | None, limit: int) -> list[BlobEntry]:
        """Return up to `limit` blobs that follow one, in the table's order."""
        cursor = self._tx.cursor("blobs")
        keys = walk(cursor, b"", b"" if digest is None else digest.pack(), limit)
        return [read_blob(Digest.unpack(key), cursor.value()) for key in keys]

    def named_chunks(self, after: bytes, limit: int) -> list[tuple[bytes, int, list[bytes]]]:
        """Return up to `limit` segments that follow a place: `(place, recipe, ids of its chunks)`."""
        cursor = self._tx.cursor("recipes")
        places = walk(cursor, b"", after, limit)
        return [(place, SEGMENT_KEY.unpack(place)[0], read_chunk_ids(cursor.value())) for place in places]

    def stored_chunks(self, after: bytes, limit: int) -> list[tuple[bytes, ChunkRow]]:
        """Return up to `limit` chunks that follow an id, in order of their ids, which are spread evenly."""
        cursor = self._tx.cursor("chunks")
        ids = walk(cursor, b"", after, limit)
        return [(chunk, read_chunk(CHUNK_KEY.unpack(chunk)[1], cursor.value())) for chunk in ids]

    def chunk_places(self, after: bytes, limit: int) -> tuple[bytes, Counter[int]] | None:
        """Count up to `limit` chunks that follow an id by the packs they lie in, but for those known to be bad.

        Return also the id to go on after; None if none follows.
        """
        rows = list(self._rows_after("chunks", after, limit))
        found = Counter(row[: U64.size] for _, row in rows if is_usable(row))
        places = Counter({U64.unpack(pack)[0]: count for pack, count in found.items()})
        return (rows[-1][0], places) if rows else None

    def packs(self) -> list[PackRow]:
        """Return every pack."""
        return [read_pack(key, value) for key, value in self._tx.cursor("packs")]

    def pack(self, pack: int) -> PackRow | None:
        """Return one pack."""
        value = self._tx.get("packs", U64.pack(pack))
        return None if value is None else read_pack(U64.pack(pack), value)

    def checked(self) -> dict[int, int]:
        """Return of each pack that was ever checked when it was, in Unix seconds; a rebuild forgets all of it.

        Of one that is thought or known to be damaged, DOUBTED.
        """
        return {pack: DOUBTED if when & TOLD else when for pack, when in self._marks()}

    def is_doubted(self, pack: int) -> bool:
        """Whether somebody saw damage in a pack, and nobody has read it through since."""
        return self._tx.get("checked", U64.pack(pack)) == U64.pack(DOUBTED)

    def told(self) -> dict[int, int]:
        """Return of each pack that is known to be damaged, and was left so, when it was last found to be."""
        return {pack: when ^ TOLD for pack, when in self._marks() if when & TOLD}

    def _marks(self) -> Iterator[tuple[int, int]]:
        return ((U64.unpack(pack)[0], U64.unpack(mark)[0]) for pack, mark in self._tx.cursor("checked"))

    def record(self, key: bytes) -> Record | None:
        """Return what stands under a name."""
        value = self._tx.get("refs", key)
        return None if value is None else Record.decode(value)

    def has_record(self, key: bytes, value: bytes) -> bool:
        """Whether exactly this encoded record stands under a name."""
        return self._tx.get("refs", key) == value

    def records(self, prefix: bytes, after: bytes, limit: int | None) -> list[tuple[bytes, Record]]:
        """Return up to `limit` names beginning with `prefix` and following `after`, in byte order."""
        cursor = self._tx.cursor("refs")
        return [(key, Record.decode(cursor.value())) for key in walk(cursor, prefix, after, limit)]

    def keys(self, prefix: bytes, after: bytes, limit: int | None) -> list[bytes]:
        """Return the names alone of what `records` would return."""
        return list(walk(self._tx.cursor("refs"), prefix, after, limit))

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
        return [(U64.unpack(key)[0], owner) for key, owner in self._tx.cursor("uploads")]

    def has_upload(self, recipe: int) -> bool:
        """Whether a recipe's blob is still arriving, within one request."""
        return self._tx.get("uploads", U64.pack(recipe)) is not None

    def session(self, number: int) -> Session | None:
        """Return a resumable upload's row, its bytes included."""
        key = U64.pack(number)
        value = self._tx.get("sessions", key)
        return None if value is None else Session.decode(value, self._tx.get("sessions", key + FEW) or b"")

    def sessions(self) -> Iterator[tuple[int, Session]]:
        """Yield `(number, row)` of every resumable upload, without its bytes."""
        cursor = self._tx.cursor("sessions")
        more = cursor.seek(b"")
        while more:
            if len(key := cursor.key()) == U64.size:
                yield U64.unpack(key)[0], Session.decode(cursor.value(), b"")
            more = cursor.next()

    def prove(self, table: str) -> int:
        """Read every row of a table of one value a key; return how many there are.

        Raises:
            Damaged: one is not what was written.
        """
        return sum(1 for _ in self._tx.cursor(table))

    def prove_after(self, table: str, after: bytes, limit: int) -> bytes | None:
        """Read up to `limit` rows of a table of one value a key; return the key to go on after, None at the end.

        Raises:
            Damaged: one is not what was written.
        """
        last = None
        for last, _ in self._rows_after(table, after, limit):  # noqa: B007 - reading it is the proof
            pass
        return last

    def _rows_after(self, table: str, after: bytes, limit: int) -> Iterator[tuple[bytes, bytes]]:
        """Yield up to `limit` rows of a table that follow a key."""
        cursor = self._tx.cursor(table)
        if cursor.seek(after) and (cursor.key() != after or cursor.next()):
            for key, value in islice(cursor, limit):
                if key <= after:
                    raise damaged(_UNORDERED)
                yield key, value
                after = key

    def disorder(self, table: str) -> str | None:
        """Return what is wrong with a table as such; None if it is in order, and as long as it says."""
        last, found = None, 0
        for place in self._tx.places(table):
            if last is not None and place <= last:
                return _UNORDERED
            last, found = place, found + 1
        told = self.count(table)
        return None if found == told else f"{found} entries are here, and it says {told}"

    def strays(self) -> int:
        """Count the pieces of long rows that belong to none."""
        return sum(1 for _ in self._tx.strays())

    def logical_bytes(self) -> int:
        """Return the sum over all names."""
        return sum(Record.decode(value).logical_bytes for _, value in self._tx.cursor("refs"))

    def stretches(self, after: bytes, limit: int) -> list[tuple[bytes, int, Stretch]]:
        """Return up to `limit` segments of any recipe: `(key to go on after, recipe, segment as a reader finds it)`."""
        cursor = self._tx.cursor("recipes")
        places = ((key, *SEGMENT_KEY.unpack(key)) for key in walk(cursor, b"", after, limit))
        return [(key, recipe, read_stretch(start, cursor.value())) for key, recipe, start in places]

    def untrue_holders(self) -> Iterator[tuple[Digest, bytes]]:
        """Yield `(digest, name)` where a name is said to keep a blob and does not."""
        for packed, key in self._tx.rows("holders"):
            record, digest = self.record(key), Digest.unpack(packed)
            if record is None or digest not in record.holds:
                yield digest, key

    def dump(self, table: str) -> Iterator[tuple[bytes, bytes]]:
        """Yield a table's raw entries, for fsck and tests that compare whole indexes."""
        yield from self._tx.rows(table)


def walk(cursor: Cursor, prefix: bytes, after: bytes, limit: int | None) -> Iterator[bytes]:
    """Step over keys beginning with `prefix` and following `after`; the cursor stands on the one just yielded.

    Raises:
        Damaged: a key does not follow the one before; whoever goes on after the last one would never end.
    """
    more = cursor.seek(max(prefix, after))
    if more and cursor.key() == after:
        more = cursor.next()
    left = -1 if limit is None else max(limit, 0)
    while more and left and (key := cursor.key()).startswith(prefix):
        if key <= after:
            raise damaged(_UNORDERED)
        yield key
        after = key
        more, left = cursor.next(), left - 1
