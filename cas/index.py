"""The index: what can be changed in its tables, and the database they lie in.

Layer: L3, over `view`. Nothing of LMDB leaves it. The index is a cache of the packs: `rebuild` can make it anew (I4).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from cas.digest import Digest
from cas.environment import Environment
from cas.extent import Extent, coalesce
from cas.names import Record
from cas.records import BlobEntry, ChunkRef, Segment, pack_refs
from cas.session import Session
from cas.tables import (
    BLOB,
    BY_RECIPE,
    CHUNK,
    CHUNK_KEY,
    EXTENT,
    FEW,
    INLINE,
    MARKING,
    PACK,
    PACKS_GONE,
    SEGMENT,
    SEGMENT_KEY,
    TABLES,
    U64,
    ChunkRow,
    ChunkState,
    PackRow,
    PackState,
    read_chunk,
    read_chunk_ids,
    read_stretch,
)
from cas.view import View, walk

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    from cas.config import EngineSettings

T = TypeVar("T")


class Edit(View):
    """Writing verbs, inside one write transaction."""

    __slots__ = ()

    def set_number(self, name: str, value: int) -> None:
        """Set a counter."""
        self._tx.put("meta", name.encode(), U64.pack(value))

    def put_chunk(self, ref: ChunkRef, extent: Extent, state: ChunkState = ChunkState.GOOD) -> None:
        """Say where a chunk lies."""
        value = CHUNK.pack(extent.pack, extent.offset, extent.stored, extent.raw, extent.codec, state)
        self._tx.put("chunks", CHUNK_KEY.pack(ref.key, ref.salt), value)

    def set_state(self, chunk: bytes, before: Collection[ChunkState], state: ChunkState) -> ChunkRow | None:
        """Set the state of a chunk, known by its id, if it has one of these; return the row it had then."""
        value = self._tx.get("chunks", chunk)
        if value is None or (row := read_chunk(CHUNK_KEY.unpack(chunk)[1], value)).state not in before:
            return None
        self._tx.put("chunks", chunk, value[:-1] + bytes((state,)))
        return row

    def delete_dying(self, chunk: bytes) -> ChunkRow | None:
        """Forget a chunk, known by its id, if it is dying still; return the row it had."""
        value = self._tx.get("chunks", chunk)
        if value is None or (row := read_chunk(CHUNK_KEY.unpack(chunk)[1], value)).state is not ChunkState.DYING:
            return None
        self._tx.delete("chunks", chunk)
        return row

    def touch(self, segment: Segment) -> None:
        """Tell a collection that is marking what is in use of a segment that it may have walked past."""
        if self.number(MARKING):
            self._tx.put("touched", SEGMENT_KEY.pack(segment.recipe, segment.start), b"")

    def absorb_touched(self, limit: int | None) -> list[list[bytes]]:
        """Take up to `limit` segments off the list of those touched; return the ids of the chunks of each."""
        places = list(walk(self._tx.cursor("touched"), b"", b"", limit))
        for place in places:
            self._tx.delete("touched", place)
        values = (self._tx.get("recipes", place) for place in places)
        return [[] if value is None else read_chunk_ids(value) for value in values]

    def delete_lost(self, digest: Digest) -> None:
        """Forget a blob that was lost; its recipe is another matter."""
        self._tx.delete("lost", digest.pack())

    def put_blob(self, blob: BlobEntry) -> None:
        """Make a blob readable; if it was lost, it is found."""
        self._tx.delete("lost", blob.digest.pack())
        form = BY_RECIPE if blob.inline is None else INLINE
        value = BLOB.pack(blob.size, blob.created, blob.recipe, form) + (blob.inline or b"")
        self._tx.put("blobs", blob.digest.pack(), value)

    def lose_blob(self, digest: Digest) -> None:
        """Take a blob that cannot be served whole out of those that are here; whoever names it goes on naming it."""
        value = self._tx.get("blobs", digest.pack())
        if value is not None:
            self._tx.put("lost", digest.pack(), value)
            self._tx.delete("blobs", digest.pack())

    def delete_blob(self, digest: Digest) -> None:
        """Forget a blob; its recipe is another matter."""
        self._tx.delete("blobs", digest.pack())

    def put_segment(self, segment: Segment, extents: Sequence[Extent]) -> None:
        """Store a stretch of a recipe."""
        head = SEGMENT.pack(0, len(segment.refs), len(extents))
        tail = b"".join(EXTENT.pack(e.pack, e.offset, e.stored, e.raw, e.codec) for e in extents)
        key = SEGMENT_KEY.pack(segment.recipe, segment.start)
        self._tx.put("recipes", key, head + pack_refs(segment.refs) + tail)

    def refresh_hints(self, key: bytes) -> None:
        """Say anew where the chunks of a segment lie; one that has gone meanwhile stays gone."""
        value = self._tx.get("recipes", key)
        if value is None:
            return
        recipe, start = SEGMENT_KEY.unpack(key)
        refs = read_stretch(start, value).refs
        rows = [row for row in map(self.chunk, refs) if row is not None]
        extents = coalesce(row.extent for row in rows) if len(rows) == len(refs) else []
        self.put_segment(Segment(recipe, start, refs), extents)

    def delete_recipe(self, recipe: int) -> None:
        """Forget a recipe and its upload row; its chunks become garbage unless others name them."""
        cursor, prefix = self._tx.cursor("recipes"), U64.pack(recipe)
        cursor.seek(prefix)
        while cursor.key().startswith(prefix):
            cursor.delete()
        self._tx.delete("uploads", U64.pack(recipe))

    def put_upload(self, recipe: int, owner: bytes) -> None:
        """Say whose unfinished upload a recipe is."""
        self._tx.put("uploads", U64.pack(recipe), owner)

    def delete_upload(self, recipe: int) -> None:
        """The recipe belongs to a blob now."""
        self._tx.delete("uploads", U64.pack(recipe))

    def put_session(self, number: int, row: Session) -> None:
        """Set a resumable upload's row."""
        key = U64.pack(number)
        self._tx.put("sessions", key, row.encode())
        if row.inline:
            self._tx.put("sessions", key + FEW, row.inline)
        else:
            self._tx.delete("sessions", key + FEW)

    def delete_session(self, number: int) -> None:
        """Forget a resumable upload; its recipe is another matter."""
        self._tx.delete("sessions", U64.pack(number))
        self._tx.delete("sessions", U64.pack(number) + FEW)

    def put_pack(self, row: PackRow) -> None:
        """Set a pack's row."""
        self._tx.put("packs", U64.pack(row.pack), PACK.pack(row.state, row.role, row.owner, row.committed))

    def delete_pack(self, pack: int) -> None:
        """Forget a pack whose file is gone, and let whoever has it open still learn that."""
        self.set_number(PACKS_GONE, self.number(PACKS_GONE) + 1)
        self._tx.delete("packs", U64.pack(pack))
        self._tx.delete("checked", U64.pack(pack))

    def put_checked(self, pack: int, when: int) -> None:
        """Say when a pack's bytes were last looked at; of one that has gone meanwhile, nothing."""
        if self.pack(pack) is not None:
            self._tx.put("checked", U64.pack(pack), U64.pack(when))

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

    def read_now(self, work: Callable[[View], T]) -> T | None:
        """Run `work` in a short read transaction, unless that means to wait for anybody: then return None."""
        return self._env.read_now(lambda tx: work(View(tx)))

    def write(self, work: Callable[[Edit], T]) -> T:
        """Run `work` in a write transaction, then commit durably. It may run more than once."""
        return self._env.write(lambda tx: work(Edit(tx)))

    def flaw(self) -> str | None:
        """Return what is wrong with the database's own pages; None if nothing is."""
        return self._env.flaw()

    def copy(self, folder: Path, work: Callable[[View], T]) -> T:
        """Copy the index as it is at one moment to an empty folder, and return what `work` saw of that moment."""
        return self._env.copy(folder, lambda tx: work(View(tx)))

    def moment(self) -> int | None:
        """Return the number of the last commit, without waiting; None where that cannot be told now."""
        return self._env.moment()

    def check_readers(self) -> int:
        """Free reader slots of dead processes."""
        return self._env.check_readers()

    def close(self) -> None:
        """Close for good."""
        self._env.close()
