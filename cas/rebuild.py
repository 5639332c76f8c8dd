"""The index made anew from the packs alone (I4): everything acknowledged, nothing else.

Layer: L5. Content comes from every believable record; blobs and names only from the journal, following its
links from the
highest number down, so that what a crash left between a journal's sync and its commit stays gone (the void rule).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from cas.commit import JOURNAL_SEQ
from cas.disk import Cell
from cas.extent import Codec, Extent, coalesce
from cas.index import ChunkState, Index, PackRow, PackState
from cas.records import ChunkRef, link
from cas.scan import pack_paths, scan_pack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cas.config import EngineSettings
    from cas.index import Edit, View
    from cas.layout import Layout
    from cas.records import BlobEntry, Body, ChunkEntry, NameChanges, Segment
    from cas.scan import Scan

    _Link = tuple[NameChanges, list[BlobEntry]]

T = TypeVar("T")
_SLICE = 10_000  # entries in one transaction
_NOBODY = bytes(16)


@dataclass(slots=True)
class RebuildReport:
    """What came back, and what could not."""

    packs: int = 0
    chunks: int = 0
    blobs: int = 0
    names: int = 0
    damaged: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Harvest:
    """What the packs say, in memory only as far as order matters."""

    segments: dict[int, list[Segment]] = field(default_factory=dict)
    journal: dict[int, _Link] = field(default_factory=dict)


def rebuild(layout: Layout, settings: EngineSettings) -> RebuildReport:
    """Fill the empty folder of an unfinished index from the packs. The caller has the store for itself."""
    report = RebuildReport()
    index = Index(layout.index_unfinished, settings)
    try:
        harvest = _harvest(index, layout, report)
        chain = list(_committed(harvest.journal, report))
        _replay(index, chain)
        chains = {blob.recipe: blob.chain for _, blobs in chain for blob in blobs}
        _file_recipes(index, harvest.segments, chains, report)
        top = max(harvest.journal, default=0)
        report.damaged += _lost_tail(layout, top)
        index.write(lambda edit: edit.set_number(JOURNAL_SEQ, top))
        _judge(index, report)
    finally:
        index.close()
    return report


def _lost_tail(layout: Layout, top: int) -> list[str]:
    """A number that was reserved and is nowhere: a crash came before it was written, or the newest changes are gone."""
    cell = Cell(layout.journal_cell)
    reserved = cell.read()
    cell.close()
    if reserved <= top:
        return []
    return [
        f"journal records {top + 1} to {reserved} are nowhere: cut off by a crash before they counted, or lost since"
    ]


def _harvest(index: Index, layout: Layout, report: RebuildReport) -> _Harvest:
    harvest = _Harvest()
    for pack, path in pack_paths(layout):
        scan = scan_pack(pack, path)
        report.damaged += scan.complaints
        if scan.header is None:
            continue
        report.packs += 1
        _file_pack(index, scan)
        for record in scan.records:
            _gather(harvest, record.body)
    return harvest


def _file_pack(index: Index, scan: Scan) -> None:
    assert scan.header is not None
    state = PackState.SEALED if scan.sealed else PackState.CLOSED
    row = PackRow(scan.pack, state, scan.header.role, _NOBODY, scan.end)
    index.write(lambda edit: edit.put_pack(row))
    entries = [entry for record in scan.records for entry in record.body.chunks]

    def put(edit: Edit, entry: ChunkEntry) -> None:
        extent = Extent(scan.pack, entry.offset, entry.stored, entry.raw, Codec(entry.codec))
        edit.put_chunk(ChunkRef(entry.key, entry.salt, entry.raw), extent)

    _in_slices(index, entries, put)


def _gather(harvest: _Harvest, body: Body) -> None:
    for segment in body.segments:
        harvest.segments.setdefault(segment.recipe, []).append(segment)
    if body.names is not None:
        harvest.journal[body.names.seq] = body.names, body.blobs


def _committed(journal: dict[int, _Link], report: RebuildReport) -> Iterable[_Link]:
    """Return the changes that were committed, oldest first."""
    chain, at = [], max(journal, default=0)
    while at:
        if at not in journal:
            below = max((seq for seq in journal if seq < at), default=0)
            report.damaged.append(f"journal records {below + 1} to {at} are missing; changes of names in them are lost")
            at = below
            continue
        chain.append(journal[at])
        at = journal[at][0].previous
    return reversed(chain)


def _replay(index: Index, chain: Sequence[_Link]) -> None:
    def put(edit: Edit, link: _Link) -> None:
        names, blobs = link
        for blob in blobs:
            edit.put_blob(blob)
        for change in names.edits:
            if change.record is None:
                edit.delete_record(change.key)
            else:
                edit.put_record(change.key, change.record)

    _in_slices(index, chain, put)


def _file_recipes(
    index: Index, segments: dict[int, list[Segment]], chains: dict[int, bytes], report: RebuildReport
) -> None:
    """Keep the recipes of blobs that some name holds; drop the other blobs: nobody acknowledged or still wants them."""
    blobs = index.read(lambda view: [(blob, bool(view.holders(blob.digest))) for blob in _blobs(view)])

    def put(edit: Edit, item: tuple[BlobEntry, bool]) -> None:
        blob, held = item
        if not held:
            edit.delete_blob(blob.digest)
            return
        for segment in _belonging(segments.get(blob.recipe, []), blob.size, chains.get(blob.recipe, b"")):
            edit.put_segment(segment, _extents(edit, segment))

    _in_slices(index, blobs, put)
    report.blobs = sum(held for _, held in blobs)


def _belonging(segments: Sequence[Segment], size: int, chain: bytes) -> list[Segment]:
    """Choose a blob's own segments, from its end backwards: a writer that was refused may have left others (I3)."""
    if not chain:
        return list(segments)  # of a blob that a single request wrote, by a version that left no chains
    by_end: dict[int, list[Segment]] = {}
    for segment in segments:
        by_end.setdefault(segment.start + segment.raw, []).append(segment)
    found: list[Segment] = []
    last = next((segment for segment in by_end.get(size, ()) if segment.chain == chain), None)
    while last is not None:
        found.append(last)
        before, after = by_end.get(last.start, ()), last
        last = next((one for one in before if link(one.chain, after.refs) == after.chain), None)
    return found


def _blobs(view: View) -> Iterator[BlobEntry]:
    for digest in view.digests():
        blob = view.blob(digest)
        assert blob is not None
        yield blob


def _extents(view: View, segment: Segment) -> list[Extent]:
    rows = [view.chunk(ref) for ref in segment.refs]
    if any(row is None for row in rows):
        return []  # no hint: the reader asks for each chunk and reports the missing one
    return coalesce(row.extent for row in rows if row is not None)


def _judge(index: Index, report: RebuildReport) -> None:
    report.chunks = index.read(lambda view: view.count("chunks"))
    report.names = index.read(lambda view: view.count("refs"))
    report.damaged += index.read(lambda view: list(_holes(view)))


def _holes(view: View) -> Iterator[str]:
    for blob in _blobs(view):
        if blob.inline is not None:
            continue
        at = 0
        for stretch in view.segments(blob.recipe):
            rows = [view.chunk(ref) for ref in stretch.refs]
            if stretch.start != at or any(row is None or row.state is not ChunkState.GOOD for row in rows):
                break
            at += sum(ref.raw for ref in stretch.refs)
        if at != blob.size:
            yield f"blob {blob.digest} is incomplete from byte {at} on"


def _in_slices(index: Index, items: Sequence[T], put: Callable[[Edit, T], None]) -> None:
    def work(edit: Edit, part: Sequence[T]) -> None:
        for item in part:
            put(edit, item)

    for first in range(0, len(items), _SLICE):
        index.write(partial(work, part=items[first : first + _SLICE]))
