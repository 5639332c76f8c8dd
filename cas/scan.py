"""Reading packs without the index: which records a pack holds and which of them can be believed.

Layer: L4. A sealed pack lists its records in its footer. Without a footer they are found by the pack's random
marker and
believed for their checksum, and their chunks only if the stored bytes match too: a crash may keep a record and lose the
data before it (I2).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING

import xxhash

from cas.errors import Damaged, Unreadable
from cas.extent import Codec, Extent
from cas.finding import REPAIR
from cas.layout import pack_id
from cas.packbytes import PackBytes
from cas.records import (
    HEADER_SIZE,
    RECORD_SIZE,
    TRAILER_SIZE,
    Body,
    Header,
    Record,
    decode_footer,
    decode_header,
    decode_record,
    footer_span,
    record_length,
)
from cas.tables import PackState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from cas.journal import Link, Place
    from cas.layout import Layout
    from cas.records import ChunkEntry
    from cas.tables import PackRow

_NOTHING = Body()


@dataclass(slots=True)
class Scan:
    """One pack, read by itself."""

    pack: int
    header: Header | None = None
    footer: list[int] | None = None  # where its records lie, if it is sealed
    records: list[Record] = field(default_factory=list)
    end: int = 0  # bytes up to which the pack makes sense
    complaints: list[str] = field(default_factory=list)  # of its header, and of records that its footer lists
    sound: int = 0  # bytes up to which no record is missing, nor a chunk that one lists (where chunks are proven)

    @property
    def sealed(self) -> bool:
        """Whether it has a footer."""
        return self.footer is not None


def pack_paths(layout: Layout) -> Iterator[tuple[int, Path]]:
    """Yield the id and path of every pack file."""
    for folder in layout.pack_folders():
        if folder.is_dir():
            for path in sorted(folder.iterdir()):
                pack = pack_id(path.name)
                if pack is not None:
                    yield pack, path


def scan_pack(pack: int, path: Path, *, proves: bool = True, names: bool = True) -> Scan:
    """Read a pack's records, and keep them.

    Args:
        pack: its id.
        path: its file.
        proves: without a footer, leave out chunks whose bytes are not there; not for whoever reads them himself.
        names: keep what records say of names and small blobs, of which a pack of the journal has half a gigabyte; else
            which changes they are, and no more.

    Raises:
        FileNotFoundError: there is no such file.
        Unreadable: the disk, or the system, does not let it be read.
    """
    with PackBytes(path) as data:
        scan = begin(pack, data)
        scan.records += read_records(scan, data, proves=proves, names=names)
    return scan


def each_record(pack: int, path: Path, *, proves: bool = True, names: bool = True) -> Iterator[Record]:
    """Yield a pack's records one by one, for whoever asks nothing else of it; see `scan_pack`."""
    with PackBytes(path) as data:
        yield from read_records(begin(pack, data), data, proves=proves, names=names)


def all_records(pack: int, path: Path, committed: int) -> Iterator[Record]:
    """Yield a pack's records one by one, for whoever is to have every one that is committed.

    Raises:
        Damaged: one was missing, which is known when the others were yielded.
    """
    with PackBytes(path) as data:
        scan, seen = begin(pack, data), list[Record]()
        for record in read_records(scan, data, proves=False):
            if not scan.sealed:
                seen.append(replace(record, body=_NOTHING))
            yield record
        if what := next(iter(scan.complaints), None) or torn(scan, seen, committed):
            raise Damaged(f"pack {pack:016x}: {what}; {REPAIR}")


def begin(pack: int, data: PackBytes) -> Scan:
    """Read a pack's header and footer, and none of its records yet."""
    head = data.read(0, HEADER_SIZE)
    header = decode_header(head)
    if header is None:
        return Scan(pack, complaints=[] if len(head) < HEADER_SIZE or not any(head) else ["its header is damaged"])
    return Scan(pack, header, _footer(data, header.marker))


def read_records(scan: Scan, data: PackBytes, *, proves: bool = True, names: bool = True) -> Iterator[Record]:
    """Yield a pack's records one by one, as often as it is asked; what the scan says goes as far as they were read."""
    if scan.header is None:
        return
    if scan.footer is None:
        yield from _search(scan, scan.header, data, proves=proves, names=names)
    else:
        yield from _listed(scan, scan.header, data, names=names)


def torn(scan: Scan, records: Iterable[Record], committed: int) -> str | None:
    """Return what of an unsealed pack's records is gone below its committed end; None if they are whole."""
    if scan.sealed or committed <= HEADER_SIZE:
        return None
    if scan.header is None:
        return "its header is damaged"
    for first, last in gaps(records, committed):
        return f"a record between byte {first} and {last} is damaged"
    return None


def gaps(records: Iterable[Record], committed: int) -> Iterator[tuple[int, int]]:
    """Yield the stretches of an unsealed pack in which a record is missing.

    Each record names the one before it, and the last one ends where the index says that the pack does.
    """
    before, end = 0, HEADER_SIZE
    for record in records:
        if record.end > committed:
            break
        if record.previous != before:
            yield end, record.offset
        before, end = record.offset, record.end
    if end != committed:
        yield end, committed


def flaws(scan: Scan, row: PackRow) -> Iterator[str]:
    """Yield what is wrong with a pack's header, records and footer, as far as its row says that they are committed."""
    if scan.header is not None and scan.header.pack != scan.pack:
        yield "its header is that of another pack"
    if row.committed and row.state is PackState.SEALED and not scan.sealed:
        yield "its header or footer is damaged"
    elif what := torn(scan, scan.records, row.committed):
        yield what
    if scan.header is not None or row.committed <= HEADER_SIZE:
        yield from scan.complaints


def walk(data: PackBytes, marker: bytes, *, names: bool = True) -> Iterator[tuple[int, Record | None]]:
    """Yield every place where a record begins, with the record, or None where that is damaged."""
    at = data.find(marker, HEADER_SIZE)
    while at >= 0:
        record = _record_at(data, at, marker, names=names)
        yield at, record
        at = data.find(marker, at + 1 if record is None else record.end)


def extent_of(pack: int, entry: ChunkEntry) -> Extent:
    """Return the place that a record of this pack gives a chunk."""
    return Extent(pack, entry.offset, entry.stored, entry.raw, Codec(entry.codec))


def read_changes(places: Iterable[Place]) -> Iterator[Link]:
    """Read changes once more, where they lie.

    Raises:
        Unreadable: one cannot be read any more.
    """
    for path, some in groupby(places, attrgetter("path")):
        with PackBytes(path) as data:
            header = decode_header(data.read(0, HEADER_SIZE))
            for place in some:
                record = header and _record_at(data, place.offset, header.marker)
                if not record or record.body.names is None:
                    raise Unreadable(f"{path.name}: the record at byte {place.offset} was good a moment ago; try again")
                yield record.body.names, record.body.blobs


def _footer(data: PackBytes, marker: bytes) -> list[int] | None:
    size = len(data)
    span = footer_span(data.read(max(size - TRAILER_SIZE, 0), size))
    if span is None or sum(span) != size:
        return None
    return decode_footer(data.read(span[0], size), marker)


def _listed(scan: Scan, header: Header, data: PackBytes, *, names: bool) -> Iterator[Record]:
    scan.end = scan.sound = len(data)
    scan.complaints = []
    for offset in scan.footer or ():
        record = _record_at(data, offset, header.marker, names=names)
        if record is None:
            scan.complaints.append(f"the record at byte {offset} is damaged")
        else:
            yield record


def _search(scan: Scan, header: Header, data: PackBytes, *, proves: bool, names: bool) -> Iterator[Record]:
    scan.end = scan.sound = HEADER_SIZE
    before, whole = 0, True
    for _, record in walk(data, header.marker, names=names):
        if record is not None:
            whole &= record.previous == before and (not proves or _believe_chunks(record.body, data))
            before, scan.end = record.offset, record.end
            if whole:
                scan.sound = record.end
            yield record


def _record_at(data: PackBytes, offset: int, marker: bytes, *, names: bool = True) -> Record | None:
    head = data.read(offset, offset + RECORD_SIZE)
    if len(head) < RECORD_SIZE:
        return None
    return decode_record(data.read(offset, offset + record_length(head)), offset, marker, names=names)


def _believe_chunks(body: Body, data: PackBytes) -> bool:
    """Leave out of a record the chunks that are not there; return whether all are."""
    listed = body.chunks
    body.chunks = [entry for entry in listed if is_there(entry, data)]
    return len(body.chunks) == len(listed)


def is_there(entry: ChunkEntry, data: PackBytes) -> bool:
    """Whether a pack has the bytes that a record of it lists."""
    return xxhash.xxh3_64_intdigest(data.read(entry.offset, entry.offset + entry.stored)) == entry.checksum
