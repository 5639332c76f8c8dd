"""The index made anew from the packs alone (I4): everything acknowledged, nothing else.

Layer: L5. Content comes from every believable record that follows a whole one, or is needed all the same; blobs and
names only from the journal, following its links from the highest number down, so that what a crash left between a
journal's sync and its commit stays gone (the void rule).
"""

from __future__ import annotations

import itertools
import shutil
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from cas.commit import JOURNAL_SEQ
from cas.config import EngineSettings
from cas.diary import half_copied
from cas.disk import Cell, Disk, make_folder
from cas.era import eras
from cas.errors import CasError, IndexPresent, InUse, NoSpace, OtherDisk
from cas.extent import coalesce
from cas.index import Index
from cas.journal import Place, committed, fullness
from cas.lease import present
from cas.locks import lock_folder
from cas.packbytes import PackBytes
from cas.records import HEADER_SIZE, ChunkRef, Role, Segment, decode_header, link, pack_refs, unpack_refs
from cas.root import FOLDER_MODE, find
from cas.scan import begin, extent_of, is_there, pack_paths, read_changes, read_records, scan_pack
from cas.tables import PackRow, PackState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from cas.digest import Digest
    from cas.extent import Extent
    from cas.index import Edit
    from cas.layout import Layout
    from cas.records import BlobEntry, ChunkEntry, Header, Record
    from cas.scan import Scan
    from cas.tables import ChunkRow
    from cas.view import View

T = TypeVar("T")
_SLICE = 10_000  # entries in one transaction
_CHANGES = 2_000  # of names in one: each touches pages all over the index, which wait in memory
_NOBODY = bytes(16)


@dataclass(slots=True)
class RebuildReport:
    """What came back, and what could not.

    Attributes:
        packs, chunks, blobs, names: how many there are.
        damaged: what is wrong, a line each.
        concerned: of the lines that tell of a blob, which one it is.
    """

    packs: int = 0
    chunks: int = 0
    blobs: int = 0
    names: int = 0
    damaged: list[str] = field(default_factory=list)
    concerned: dict[str, Digest] = field(default_factory=dict)


class _Packed(NamedTuple):
    """A segment as few bytes as it can be, since all of them wait in memory until the last pack is read."""

    start: int
    chain: bytes
    refs: bytes


@dataclass(slots=True)
class _Harvest:
    """What the packs say, in memory only as far as order matters.

    Behind a gap, be it a record that is missing or one that lacks a chunk, an unsealed pack has a tail. Mostly nobody
    was told of it: a crash came before it was all durable. But if rot made the gap, it counts, and then something in it
    is needed that lies nowhere else.

    Attributes:
        segments: of recipes that may be wanted.
        journal: where changes of names are told, by their numbers.
        tails: packs that have one, with its records.
        spare: chunks in tails.
        needed: packs whose tails count.
        ends: packs that have a tail, with where it ends.
    """

    segments: dict[int, list[_Packed]] = field(default_factory=dict)
    journal: dict[int, Place] = field(default_factory=dict)
    tails: dict[tuple[int, Path], list[Record]] = field(default_factory=dict)
    spare: dict[ChunkRef, Extent] = field(default_factory=dict)
    needed: set[int] = field(default_factory=set)
    ends: dict[int, int] = field(default_factory=dict)


def rebuild_index(
    root: Path, settings: EngineSettings | None = None, *, force: bool = False, disk: Disk | None = None
) -> RebuildReport:
    """Make the index of a store anew from its packs. Nobody may use the store meanwhile.

    Args:
        root: the store's folder.
        settings: tunables.
        force: move an index that is there aside, to `index.old-N`, once the new one is whole, instead of refusing.
        disk: the file layer, for tests that break it.

    Raises:
        OpenError: not a store, an index is there already, or a process has the store open.
        NoSpace, DiskFailed: the new index could not be written; the packs and an old index are untouched, try again.
    """
    disk, settings = disk or Disk(), settings or EngineSettings()
    layout, _ = find(root, create=False, disk=disk, wait_s=settings.write_wait_s)
    with lock_folder(root, settings.write_wait_s):
        alive = present(layout)
        if alive:
            raise InUse(f"{root} is in use by {len(alive)} process(es); stop the server first")
        is_there = layout.index_data.is_file()
        if is_there and not force:
            raise IndexPresent(f"{layout.index} is there already; --force moves it aside once there is a new one")
        shutil.rmtree(layout.index_unfinished, ignore_errors=True)
        layout.index_unfinished.mkdir(FOLDER_MODE)
        try:
            report = rebuild(layout, settings, disk)
        except CasError as error:
            shutil.rmtree(layout.index_unfinished, ignore_errors=True)
            if is_there and isinstance(error, NoSpace):
                raise NoSpace(f"{error}; the index that is there was left as it was") from error
            raise
        disk.sync_folder(layout.index_unfinished)
        _put_in_place(layout, disk)
        return report


def _put_in_place(layout: Layout, disk: Disk) -> None:
    """Let the new index, which is whole, take the place of what is there; an old index is kept, and so is no folder."""
    if layout.index_data.exists() or not layout.index.is_dir():
        aside = next(path for path in map(layout.old_index, itertools.count(1)) if not path.exists())
        with suppress(FileNotFoundError):
            _put_aside(layout, aside, disk)
    shutil.rmtree(layout.index, ignore_errors=True)  # an index without data is none
    disk.rename(layout.index_unfinished, layout.index)
    disk.sync_folder(layout.root)


def _put_aside(layout: Layout, aside: Path, disk: Disk) -> None:
    try:
        disk.rename(layout.index, aside)
    except OtherDisk:  # overlayfs: a folder that came with a container's image stays where it is, its files do not
        make_folder(aside, FOLDER_MODE)
        disk.rename(layout.index_data, aside / layout.index_data.name)
        disk.sync_folder(aside)


def rebuild(layout: Layout, settings: EngineSettings, disk: Disk) -> RebuildReport:
    """Fill the empty folder of an unfinished index from the packs. The caller has the store for itself."""
    report = RebuildReport()
    index = Index(layout.index_unfinished, settings)
    try:
        harvest, halves = _Harvest(), half_copied(layout)
        headers = list(_headers(layout, report))
        for role in (Role.JOURNAL, Role.DATA):  # then it is known which recipes are still wanted
            for place in (place for header, place in headers if header.role is role):
                end = halves.get(place[1].name) if role is Role.JOURNAL else None
                if end != 0:  # else a copy that was cut off had brought all of it
                    _harvest(index, place, end, disk, harvest, report)
            _harvest_tails(harvest)
            if role is Role.JOURNAL:
                top = max(harvest.journal, default=0)
                chains = _replay(index, committed(harvest.journal, report.damaged))
                harvest.journal.clear()
                harvest.segments = {recipe: [] for recipe in chains}
        _file_recipes(index, harvest, chains, report)
        index.write(partial(_lengthen, harvest=harvest))
        report.damaged += _lost_tail(layout, top)
        index.write(lambda edit: edit.set_number(JOURNAL_SEQ, top))
        report.chunks = index.read(lambda view: view.count("chunks"))
        report.names = index.read(lambda view: view.count("refs") - len(eras(view)))
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


def _headers(layout: Layout, report: RebuildReport) -> Iterator[tuple[Header, tuple[int, Path]]]:
    for pack, path in pack_paths(layout):
        try:
            with PackBytes(path) as data:
                header = decode_header(data.read(0, HEADER_SIZE))
        except FileNotFoundError:
            report.damaged.append(f"pack {pack:016x} is no file, though something has its name")
            continue
        if header is None:
            report.damaged += [f"pack {pack:016x} has a damaged header"] * bool(scan_pack(pack, path).complaints)
        else:
            yield header, (pack, path)


def _durable(scan: Scan, path: Path, disk: Disk) -> Scan:
    """See to it that whoever relies on a pack from now on relies on the disk: what wrote it may have been killed."""
    if not scan.sealed:
        fd = disk.open_read(path)
        try:
            disk.sync(fd)
        finally:
            disk.close(fd)
        disk.sync_folder(path.parent)
    return scan


def _harvest(
    index: Index, place: tuple[int, Path], end: int | None, disk: Disk, harvest: _Harvest, report: RebuildReport
) -> None:
    """Take what a pack says, up to a byte if a copy that was cut off had brought what follows."""
    pack, path = place
    entries: list[ChunkEntry] = []

    def put(part: Sequence[ChunkEntry], edit: Edit) -> None:
        for entry in part:
            ref = ChunkRef(entry.key, entry.salt, entry.raw)
            if edit.chunk(ref) is None or is_there(entry, data):  # moved, and rotten in one of two packs
                edit.put_chunk(ref, extent_of(pack, entry))

    with PackBytes(path) as data:
        scan = _durable(begin(pack, data), path, disk)
        assert scan.header is not None
        for record in read_records(scan, data, names=False):
            if end is not None and record.end > end:
                continue
            if record.end > scan.sound:
                harvest.tails.setdefault(place, []).append(record)
            else:
                entries += record.body.chunks
                _gather(harvest, path, record)
        entries.sort()  # in the order of the table
        _in_slices(index, entries, put)
    if place in harvest.tails:
        harvest.ends[pack] = scan.end if end is None else min(scan.end, end)
    report.damaged += [f"pack {pack:016x}: {text}" for text in scan.complaints]
    report.packs += 1
    state = PackState.SEALED if scan.sealed else PackState.CLOSED
    sound = scan.sound if end is None else min(scan.sound, end)
    row = PackRow(pack, state, scan.header.role, _NOBODY, sound)
    index.write(lambda edit: edit.put_pack(row))


def _harvest_tails(harvest: _Harvest) -> None:
    """Take segments and changes of names that stand nowhere else."""
    for (pack, path), records in harvest.tails.items():
        for record in records:
            body = record.body
            harvest.spare |= {ChunkRef(e.key, e.salt, e.raw): extent_of(pack, e) for e in body.chunks}
            fresh = [one for one in body.segments if _is_missing(one, harvest)]
            names = body.names if body.names is not None and body.names.seq not in harvest.journal else None
            if fresh or names is not None:
                harvest.needed.add(pack)
                _gather(harvest, path, replace(record, body=replace(body, segments=fresh, names=names)))
    harvest.tails.clear()


def _is_missing(segment: Segment, harvest: _Harvest) -> bool:
    known = harvest.segments.get(segment.recipe)
    return known is not None and _packed(segment) not in known


def _lengthen(edit: Edit, harvest: _Harvest) -> None:
    """Count the tails that are needed."""
    for row in map(edit.pack, harvest.needed):
        assert row is not None
        edit.put_pack(replace(row, committed=harvest.ends[row.pack]))


def _gather(harvest: _Harvest, path: Path, record: Record) -> None:
    for segment in record.body.segments:
        if segment.recipe in harvest.segments:
            harvest.segments[segment.recipe].append(_packed(segment))
    names = record.body.names
    if names is not None:
        place = Place(names.previous, path, record.offset)
        known = harvest.journal.get(names.seq)
        if known is not None:
            place = max(known, place, key=lambda one: fullness(*read_changes([one])))
        harvest.journal[names.seq] = place


def _packed(segment: Segment) -> _Packed:
    return _Packed(segment.start, segment.chain, pack_refs(segment.refs))


def _replay(index: Index, journal: Sequence[Place]) -> dict[int, bytes]:
    """Do again what the journal says; return the recipes of the blobs that some name holds, with their chains."""
    chains: dict[int, bytes] = {}

    def put(part: Sequence[Place], edit: Edit) -> None:
        for names, blobs in read_changes(part):
            for blob in blobs:
                edit.put_blob(blob)
                chains[blob.recipe] = blob.chain
            for change in names.edits:
                if change.record is None:
                    edit.delete_record(change.key)
                else:
                    edit.put_record(change.key, change.record)

    _in_slices(index, journal, put, _CHANGES)
    held = index.read(lambda view: {blob.recipe for blob in _blobs(view) if view.holders(blob.digest, limit=1)})
    return {recipe: chain for recipe, chain in chains.items() if recipe in held}


def _file_recipes(index: Index, harvest: _Harvest, chains: dict[int, bytes], report: RebuildReport) -> None:
    """Keep the recipes of blobs that some name holds; drop the other blobs: nobody acknowledged or still wants them."""
    broken: dict[Digest, int] = {}  # from which byte on; a slice may be done twice

    def put(part: Sequence[Digest], edit: Edit) -> None:
        for blob in filter(None, map(edit.blob, part)):
            if not edit.holders(blob.digest, limit=1):
                edit.delete_blob(blob.digest)
                continue
            packed = harvest.segments.get(blob.recipe, ())
            found = [Segment(blob.recipe, one.start, unpack_refs(one.refs), one.chain) for one in packed]
            chosen = _belonging(found, blob.size, chains.get(blob.recipe, b""))
            whole = blob.size if blob.inline is not None else _put_segments(edit, chosen, harvest)
            if whole != blob.size:
                edit.lose_blob(blob.digest)
                broken[blob.digest] = whole

    _in_slices(index, index.read(lambda view: view.digests()), put)
    report.blobs = index.read(lambda view: view.count("blobs") + view.count("lost"))
    report.concerned = {f"blob {digest} is incomplete from byte {at} on": digest for digest, at in broken.items()}
    report.damaged += report.concerned


def _put_segments(edit: Edit, segments: Sequence[Segment], harvest: _Harvest) -> int:
    """Enter a recipe; return up to which byte nothing of it is missing."""
    end, broken = 0, False
    for segment in sorted(segments, key=lambda segment: segment.start):
        rows = [edit.chunk(ref) or _from_tail(edit, ref, harvest) for ref in segment.refs]
        there = [row for row in rows if row is not None]
        complete = len(there) == len(rows)
        # Without extents the reader asks for each chunk, and reports the missing one.
        edit.put_segment(segment, coalesce(row.extent for row in there) if complete else [])
        broken |= not complete or segment.start > end
        if not broken:
            end = max(end, segment.start + segment.raw)
    return end


def _from_tail(edit: Edit, ref: ChunkRef, harvest: _Harvest) -> ChunkRow | None:
    extent = harvest.spare.get(ref)
    if extent is None:
        return None
    edit.put_chunk(ref, extent)
    harvest.needed.add(extent.pack)
    return edit.chunk(ref)


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


def _in_slices(index: Index, items: Sequence[T], put: Callable[[Sequence[T], Edit], None], size: int = _SLICE) -> None:
    for first in range(0, len(items), size):
        index.write(partial(put, items[first : first + size]))
