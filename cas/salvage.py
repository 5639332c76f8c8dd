"""Salvage: what is good in a damaged pack is moved to a new one, what is bad is marked, and the file is kept aside.

Layer: L9. Here the index is the truth and the pack is doubted: every chunk that the index places in it is proven, by
the checksum of a record that can be believed or by its own key. A damaged record takes segments, names or blobs with
it, of which nobody can say which they were; so everything of that kind is recorded anew from the index. Whoever calls
holds the maintenance lock.

What is bad is known until the end, wherever that comes: blobs are lost before their chunks are marked, so none is said
to be here that names one; and a pack that still has rows is found damaged, or missing, by whoever looks next.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import xxhash

from cas.claims import end_on
from cas.compact import close, is_quiet
from cas.errors import Busy, Damaged, DiskFailed
from cas.extent import Codec
from cas.moving import Move, change_over, forget, living_bodies, put_by
from cas.records import Body, ChunkEntry, ChunkRef, Role, Segment, link
from cas.restate import restate
from cas.scan import each_record, extent_of, scan_pack, torn
from cas.sufferers import sufferers
from cas.tables import CHUNK_KEY, ChunkState, PackRow, PackState

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cas.commit import Draft
    from cas.digest import Digest
    from cas.extent import Extent
    from cas.index import Edit
    from cas.packs import PackWriter
    from cas.parts import Parts
    from cas.records import BlobEntry
    from cas.scan import Scan
    from cas.tables import ChunkRow

_SLICE = 5_000  # rows read in one transaction
_WAIT_S = 10.0  # for uploads that began before the pack was closed
_IN_RECORD = 1_000  # chunks recorded together
_BLOBS = 500  # lost in one transaction
_TRIES = 3


def salvage(parts: Parts, pack: int) -> list[Digest]:
    """Empty a damaged pack; return the blobs that were lost, whose bad chunks are `ChunkState.BAD` from now on.

    Raises:
        NoSpace, DiskFailed, ReadOnly, Busy: somebody writes to it, or it could not be copied. Everything is as it was,
            or good and in two places; do it again.
    """
    row = parts.index.read(lambda view: view.pack(pack))
    role = Role.DATA if row is None else row.role
    if row is not None and not (close(parts, row) and (role is Role.JOURNAL or is_quiet(parts, _WAIT_S))):
        raise Busy(f"pack {pack:016x} is still written to, or an upload from before goes on; try again")
    scan = _scan(parts, pack)
    writer = parts.packs.create(role)
    try:
        moves, bad = _save_chunks(parts, pack, scan, writer)
        records = () if scan is None else each_record(pack, parts.layout.pack(pack), proves=False)
        for body in living_bodies(parts, pack, records):
            if body.segments or body.blobs or body.names is not None:
                writer.commit(replace(body, chunks=[]))
        is_torn = scan is None or bool(scan.complaints or (row and torn(scan, scan.records, row.committed)))
        if is_torn and role is Role.DATA:
            for segments in _all_segments(parts):
                writer.commit(Body(segments=segments))
        parts.packs.finish(writer)
    except BaseException:
        parts.packs.discard(writer)
        forget(parts, [writer.pack])
        raise
    change_over(parts, moves, PackRow(writer.pack, PackState.SEALED, role, parts.owner, writer.end))
    if is_torn and role is Role.JOURNAL:
        restate(parts)
    lost = _lose(parts, bad)
    put_by(parts, pack)
    for first in range(0, len(bad), _SLICE):
        parts.committer.run(partial(_condemn, bad=bad[first : first + _SLICE], now=int(parts.clock())))
    lost += _lose(parts, bad)  # whoever was kept just now found them good
    forget(parts, [pack])
    return lost


def _lose(parts: Parts, bad: Sequence[tuple[ChunkRef, Extent]]) -> list[Digest]:
    """Take the blobs that need one of these chunks out of those that are here; return which those are."""
    whose = sufferers(parts.index, {CHUNK_KEY.pack(ref.key, ref.salt) for ref, _ in bad})
    blobs = sorted({blob.digest: blob for some in whose.values() for blob in some}.items())

    def lose(edit: Edit, _draft: Draft, some: Sequence[tuple[Digest, BlobEntry]]) -> list[Digest]:
        lost = [digest for digest, blob in some if edit.blob(digest) == blob]  # not pushed anew meanwhile
        for digest in lost:
            edit.lose_blob(digest)
        return lost

    steps = range(0, len(blobs), _BLOBS)
    return [one for at in steps for one in parts.committer.run(partial(lose, some=blobs[at : at + _BLOBS]))]


def _scan(parts: Parts, pack: int) -> Scan | None:
    """Return what can be read of a pack, but for names; None if that is not even its header."""
    try:
        scan = scan_pack(pack, parts.layout.pack(pack), proves=False, names=False)  # sums of what is bad, too
    except (FileNotFoundError, ValueError):
        return None
    return None if scan.header is None else scan


def _save_chunks(
    parts: Parts, pack: int, scan: Scan | None, writer: PackWriter
) -> tuple[list[Move], list[tuple[ChunkRef, Extent]]]:
    records = () if scan is None else scan.records
    sums = {(entry.key, entry.salt): entry.checksum for record in records for entry in record.body.chunks}
    moves: list[Move] = []
    bad: list[tuple[ChunkRef, Extent]] = []
    entries: list[ChunkEntry] = []
    for ref, row in _chunks_in(parts, pack):
        data = _proven(parts, ref, row, sums.get((ref.key, ref.salt)))
        if data is None:
            bad.append((ref, row.extent))
            continue
        extent, checksum = row.extent, xxhash.xxh3_64_intdigest(data)
        offset = writer.append([data])
        entry = ChunkEntry(ref.key, ref.salt, offset, extent.stored, extent.raw, extent.codec, checksum)
        entries.append(entry)
        moves.append(Move(ref, extent, extent_of(writer.pack, entry)))
        if len(entries) >= _IN_RECORD:
            writer.commit(Body(chunks=entries))
            entries = []
    if entries:
        writer.commit(Body(chunks=entries))
    return moves, bad


def _chunks_in(parts: Parts, pack: int) -> Iterator[tuple[ChunkRef, ChunkRow]]:
    """Yield the chunks that the index places in a pack, in the order they lie there."""
    found: list[tuple[ChunkRef, ChunkRow]] = []
    after = b""
    while rows := parts.index.read(lambda view, after=after: view.stored_chunks(after, _SLICE)):  # type: ignore[misc]
        after = rows[-1][0]
        found += [(ChunkRef(at[:16], row.salt, row.extent.raw), row) for at, row in rows if row.extent.pack == pack]
    yield from sorted(found, key=lambda item: item[1].extent.offset)


def _proven(parts: Parts, ref: ChunkRef, row: ChunkRow, checksum: int | None) -> bytearray | None:
    extent = row.extent
    try:
        data = _read(parts, extent)
        if checksum is not None:
            return data if xxhash.xxh3_64_intdigest(data) == checksum else None
        raw = data if extent.codec is Codec.RAW else parts.codec.decode(data, extent.raw)
    except (FileNotFoundError, Damaged, DiskFailed):
        return None
    return data if xxhash.xxh3_128_digest(raw) == ref.key else None


def _read(parts: Parts, extent: Extent) -> bytearray:
    """Read a chunk, and where the disk fails once more: a good one is not to go for an error that passes."""
    for _ in range(_TRIES - 1):
        with suppress(DiskFailed):
            return parts.files.read(extent.pack, extent.offset, extent.stored)
    return parts.files.read(extent.pack, extent.offset, extent.stored)


def _condemn(edit: Edit, _draft: Draft, bad: Sequence[tuple[ChunkRef, Extent]], now: int) -> None:
    marked = set()
    for ref, extent in bad:
        row = edit.chunk(ref)
        if row is not None and row.extent == extent:
            edit.put_chunk(ref, extent, ChunkState.BAD)
            marked.add(CHUNK_KEY.pack(ref.key, ref.salt))
    end_on(edit, marked, now)  # at once: what compared equal before it rotted is not to be acknowledged now


def _all_segments(parts: Parts) -> Iterator[list[Segment]]:
    """Yield every segment of the index, with the chain that it has after those before it."""
    recipe, chain, after = -1, b"", b""
    while rows := parts.index.read(lambda view, after=after: view.all_segments(after, 64)):  # type: ignore[misc]
        after = rows[-1][0]
        segments = []
        for _, at, start, refs in rows:
            chain = link(chain if at == recipe else b"", refs)
            recipe = at
            segments.append(Segment(at, start, refs, chain))
        yield segments
