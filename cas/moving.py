"""Moving what lives in packs into a new one: which bytes those are, the copy, and the moment the index changes over.

Layer: L7. A chunk lives where its row points, a segment if the recipe says the same, a name or blob of the journal if
it still stands so. Everything keeps its identity, its checksum and its number, so a rebuild finds the same in the new
pack as in the old ones, or in both. Ended anywhere, what was copied lies in the old packs too. Knows nothing of which
packs are worth it.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import xxhash

from cas.disk import make_folder
from cas.doomed import Doomed
from cas.errors import Damaged, OtherDisk
from cas.finding import REPAIR
from cas.layout import names_in
from cas.records import FOOTER_ENTRY_SIZE, HEADER_SIZE, TRAILER_SIZE, Body, ChunkRef, encode_record
from cas.root import FOLDER_MODE
from cas.scan import all_records, extent_of
from cas.tables import LAST_BYTE, PackRow, PackState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from cas.commit import Draft
    from cas.extent import Extent
    from cas.index import Edit
    from cas.packs import PackWriter
    from cas.parts import Parts
    from cas.records import BlobEntry, ChunkEntry, Record
    from cas.view import View

    Step = Callable[[str], None]

_SLICE = 2_000  # chunks in one transaction: well below 50 ms
_WINDOW_BYTES = 4 << 20  # copied at a time
_NOTHING = Doomed()


@dataclass(frozen=True, slots=True)
class Move:
    """One chunk's old and new place."""

    ref: ChunkRef
    old: Extent
    new: Extent


@dataclass(slots=True)
class Living:
    """How much of a pack lives.

    Attributes:
        size: bytes it would take in another pack.
        records, chunks: how many there are.
        first: the lowest number of its changes of names.
    """

    size: int = 0
    records: int = 0
    chunks: int = 0
    first: int = LAST_BYTE

    def __add__(self, other: Living) -> Living:
        """Return both together."""
        first = min(self.first, other.first)
        return Living(self.size + other.size, self.records + other.records, self.chunks + other.chunks, first)

    @property
    def pack_size(self) -> int:
        """Bytes of a sealed pack of nothing else; 0 if nothing lives, since then there is none."""
        return HEADER_SIZE + self.size + self.records * FOOTER_ENTRY_SIZE + TRAILER_SIZE if self.records else 0


def living(parts: Parts, pack: int, records: Iterable[Record], doomed: Doomed = _NOTHING, floor: int = 0) -> Living:
    """Return how much of a pack's records lives, or would without what is doomed; see `move` for the floor."""
    total = Living()
    for body in living_bodies(parts, pack, records, doomed, floor):
        record = len(encode_record(body, marker=bytes(16), offset=0, previous=0))
        stored = sum(entry.stored for entry in body.chunks)
        number = LAST_BYTE if body.names is None else body.names.seq
        total += Living(record + stored, 1, len(body.chunks), number)
    return total


def move(parts: Parts, sources: Sequence[PackRow], step: Step, floor: int = 0) -> int:
    """Move what lives in packs of one role, closed and quiet, into a new one, and remove them; return its size.

    Args:
        parts: the store.
        sources: the packs.
        step: told what has just been done.
        floor: of a single journal pack, the number from which on other packs have records. A deletion below it
            deletes nothing that lies elsewhere, and what it deleted here is not moved either, so it need not be. A
            rebuild that finds the old pack too believes that one, record by record: there is more in it.

    Raises:
        Damaged: a chunk or a record is not what was stored; everything is as it was.
        NoSpace, DiskFailed, ReadOnly, Busy: the same.
    """
    writer = parts.packs.create(sources[0].role)
    try:
        moves = [one for row in sources for one in _copy(parts, row, writer, floor)]
        step("copied")
        parts.packs.finish(writer)
    except BaseException:
        parts.packs.discard(writer)
        forget(parts, [writer.pack])
        raise
    step("sealed")
    target = PackRow(writer.pack, PackState.SEALED, writer.role, parts.owner, writer.end)
    change_over(parts, moves, target)
    step("moved")
    remove(parts, sources, step)
    return parts.layout.pack(writer.pack).stat().st_size


def remove(parts: Parts, rows: Sequence[PackRow], step: Step) -> None:
    """Remove packs in which nothing lives; their rows say so until the files are gone, for whoever goes on.

    Gone for good: what came back after a power cut would tell of names whose deletions were dropped since (I4).
    """
    parts.committer.run(partial(_condemn, rows=rows))
    step("condemned")
    paths = [parts.layout.pack(row.pack) for row in rows]
    for path in paths:
        parts.disk.unlink(path)
    for folder in {path.parent for path in paths if path.parent.is_dir()}:
        parts.disk.sync_folder(folder)
    step("unlinked")
    forget(parts, [row.pack for row in rows])
    parts.files.forget_unlinked()


def forget(parts: Parts, packs: Sequence[int]) -> None:
    """Delete the rows of packs whose files are gone."""

    def work(edit: Edit, _draft: Draft) -> None:
        for pack in packs:
            edit.delete_pack(pack)

    parts.committer.run(work)


def set_aside(parts: Parts, pack: int) -> None:
    """Move a pack's file to where nobody reads it, nor removes it, and forget its row."""
    put_by(parts, pack)
    forget(parts, [pack])


def put_by(parts: Parts, pack: int) -> None:
    """Move a pack's file to where nobody reads it, nor removes it; one that is gone is no matter.

    It replaces nothing that was put by before, which may have the last good bytes of something.

    Raises:
        DiskFailed: there is no such place.
    """
    first, second = parts.layout.quarantines
    with contextlib.suppress(FileNotFoundError):
        try:
            _move_into(parts, first, parts.layout.pack(pack))
        except OtherDisk:
            _move_into(parts, second, parts.layout.pack(pack))


def _move_into(parts: Parts, folder: Path, path: Path) -> None:
    make_folder(folder, FOLDER_MODE)
    next(place for place in names_in(folder, path.name) if parts.disk.rename_new(path, place))
    for changed in (folder.parent, folder, path.parent):
        parts.disk.sync_folder(changed)


def change_over(parts: Parts, moves: Sequence[Move], target: PackRow) -> None:
    """Point the index at the new places, where it still points at the old ones."""

    def repoint(edit: Edit, _draft: Draft, some: Sequence[Move]) -> None:
        edit.put_pack(target)
        for one in some:
            row = edit.chunk(one.ref)
            if row is not None and row.extent == one.old:
                edit.put_chunk(one.ref, one.new, row.state)

    for first in range(0, max(len(moves), 1), _SLICE):
        parts.committer.run(partial(repoint, some=moves[first : first + _SLICE]))


def _condemn(edit: Edit, _draft: Draft, rows: Sequence[PackRow]) -> None:
    for row in rows:
        edit.put_pack(replace(row, state=PackState.DYING))


def living_bodies(
    parts: Parts, pack: int, records: Iterable[Record], doomed: Doomed = _NOTHING, floor: int = 0
) -> Iterator[Body]:
    """Yield what lives of each record of a pack, where anything does."""
    for record in records:
        look = partial(_survivors, pack=pack, body=record.body, doomed=doomed, floor=floor)
        body = parts.index.read(look)
        if body.chunks or body.segments or body.blobs or body.names is not None:
            yield body


def _survivors(view: View, pack: int, body: Body, doomed: Doomed, floor: int) -> Body:
    chunks = [entry for entry in body.chunks if _lives(view, pack, entry, doomed)]
    segments = []
    for segment in body.segments:
        stretch = view.stretch(segment.recipe, segment.start)
        stands = stretch is not None and stretch.start == segment.start and stretch.refs == segment.refs
        if stands and segment.recipe not in doomed.recipes:
            segments.append(segment)
    blobs = [blob for blob in body.blobs if _stands(view, blob)]
    names = body.names
    if names is not None:
        keeps = names.seq >= floor  # deletions
        edits = [one for one in names.edits if (keeps if one.record is None else view.has_record(one.key, one.record))]
        names = replace(names, edits=tuple(edits))
    return Body(chunks, segments, blobs, names)


def _lives(view: View, pack: int, entry: ChunkEntry, doomed: Doomed) -> bool:
    ref = ChunkRef(entry.key, entry.salt, entry.raw)
    row = view.chunk(ref)
    is_here = row is not None and (row.extent.pack, row.extent.offset) == (pack, entry.offset)
    return is_here and not doomed.names(ref)


def _stands(view: View, blob: BlobEntry) -> bool:
    """Whether a blob's entry is still the one of the index; one of a lost blob waits there for its bytes."""
    return any(known is not None and replace(known, chain=blob.chain) == blob for known in view.blob_rows(blob.digest))


def _copy(parts: Parts, row: PackRow, writer: PackWriter, floor: int) -> list[Move]:
    pack, moves = row.pack, list[Move]()
    records = all_records(pack, parts.layout.pack(pack), row.committed)
    for body in living_bodies(parts, pack, records, floor=floor):
        entries, buffers, size = [], [], 0
        for entry in body.chunks:
            entries.append(entry._replace(offset=writer.end + size))
            buffers.append(read_chunk(parts, pack, entry))
            size += entry.stored
            if size >= _WINDOW_BYTES:
                writer.append(buffers)
                buffers, size = [], 0
        writer.append(buffers)
        writer.commit(replace(body, chunks=entries))
        moves += [
            Move(ChunkRef(old.key, old.salt, old.raw), extent_of(pack, old), extent_of(writer.pack, new))
            for old, new in zip(body.chunks, entries, strict=True)
        ]
    return moves


def read_chunk(parts: Parts, pack: int, entry: ChunkEntry) -> bytearray:
    """Return a chunk's stored bytes.

    Raises:
        Damaged: they are not what was written.
    """
    data = parts.files.read(pack, entry.offset, entry.stored)
    if xxhash.xxh3_64_intdigest(data) != entry.checksum:
        parts.files.doubt([pack])
        raise Damaged(f"pack {pack:016x}: the chunk at byte {entry.offset} is damaged; {REPAIR}")
    return data
