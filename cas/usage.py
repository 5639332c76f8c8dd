"""Whose bytes are whose: what each owner's blobs take in packs, what they share, and what is nobody's.

Layer: L7. Chunks and packs are known here; who the owners are is the caller's business. A chunk that blobs of two
owners name belongs to both, so an owner's deletion frees exactly the chunks that are its alone. The ids of chunks are
walked in as many passes as keep those of one pass in bounded memory, however many owners there are. Nothing is locked:
beside writers, the figures are about right, without them they are exact.
"""

from __future__ import annotations

from array import array
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from cas.packbytes import PackBytes
from cas.records import (
    HEADER_SIZE,
    RECORD_SIZE,
    TRAILER_SIZE,
    Role,
    decode_footer,
    decode_header,
    footer_span,
    record_length,
)
from cas.scan import walk
from cas.session import UploadState
from cas.tables import ChunkState, PackState
from cas.view import View

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from cas.digest import Digest
    from cas.layout import Layout
    from cas.parts import Parts
    from cas.records import BlobEntry
    from cas.tables import ChunkRow, PackRow

    _Table = Callable[[View, Digest | None, int], list[BlobEntry]]

K = TypeVar("K")
_MOST_CHUNKS: Final = 1_000_000  # ids in memory at once
_ROWS: Final = 10_000  # a read transaction is to end within 100 ms
_SEGMENTS: Final = 100
_KEYS: Final = 1 << 64  # how many first halves of keys there are
_NOBODY: Final = 0  # the number of the empty set


class Holder:
    """Who holds a blob: the caller's owners, numbered from 0, and these."""

    UPLOADS: Final = -1  # an upload under way; found here
    KEPT: Final = -2  # so that a deletion can be taken back; counts only where nobody else holds it
    OTHERS: Final = -3  # somebody the caller did not ask about


class Holders(dict[K, "Sequence[int]"]):
    """Who holds what, by numbers; some may be there twice. Nearly all have one holder, and share what says so."""

    def __init__(self) -> None:
        """Begin with nothing."""
        super().__init__()
        self._alone: dict[int, tuple[int]] = {}

    def add(self, key: K, holder: int) -> None:
        """Enter a holder."""
        held = self.get(key)
        if held is None:
            self[key] = self._alone.setdefault(holder, (holder,))
        elif held[-1] != holder:
            if not isinstance(held, array):
                held = self[key] = array("i", held)
            held.append(holder)


class _Sets:
    """Sets of holders by numbers, each kept once: few differ, and one may have a hundred thousand members."""

    def __init__(self) -> None:
        self._numbers = {b"": _NOBODY}
        self._members = [b""]

    def number(self, holders: Iterable[int]) -> int:
        members = array("i", sorted(set(holders))).tobytes()
        number = self._numbers.setdefault(members, len(self._members))
        if number == len(self._members):
            self._members.append(members)
        return number

    def joined(self, numbers: Iterable[int]) -> set[int]:
        """Return the members of several sets."""
        return {holder for number in set(numbers) for holder in memoryview(self._members[number]).cast("i")}


@dataclass(slots=True)
class Usage:
    """What a store's files consist of, in bytes; the numbers from `unique` on sum up to `disk`.

    Attributes:
        logical: for each owner, the sizes of its blobs.
        shared: for each owner, what its blobs take in packs and others' blobs use too.
        disk: all files under the store's root.
        unique: for each owner, what its blobs alone take in packs.
        among: what several owners use, and nobody else.
        beyond: what owners use, and somebody else too.
        others: what only others use.
        uploads: what only uploads under way use.
        kept: what is there only so that a deletion can be taken back.
        garbage: what nobody uses.
        records: what data packs need beside the chunks: headers, records, footers.
        journal: packs of the journal: names, manifests, small blobs.
        index: files of the index.
        rest: everything else under the root.
    """

    logical: list[int]
    shared: list[int]
    disk: int = 0
    unique: list[int] = field(default_factory=list)
    among: int = 0
    beyond: int = 0
    others: int = 0
    uploads: int = 0
    kept: int = 0
    garbage: int = 0
    records: int = 0
    journal: int = 0
    index: int = 0
    rest: int = 0

    @property
    def inside(self) -> int:
        """What deleting all of the owners frees."""
        return sum(self.unique) + self.among


def usage(parts: Parts, holders: Mapping[Digest, Collection[int]], count: int) -> Usage:
    """Measure the store; see `Store.usage`."""
    found, sets = Usage([0] * count, [0] * count, unique=[0] * count), _Sets()
    recipes = _recipes(parts, holders, found, sets)
    rows = parts.index.read(lambda view: view.packs())
    in_packs = dict.fromkeys((row.pack for row in rows if parts.layout.pack(row.pack).exists()), 0)
    _measure_chunks(parts, recipes, sets, found, in_packs)
    _measure_files(parts, rows, in_packs, found)
    return found


# --- who names what ---------------------------------------------------------------------------------------


def _recipes(parts: Parts, holders: Mapping[Digest, Collection[int]], found: Usage, sets: _Sets) -> dict[int, int]:
    """Return for each recipe which set of holders it has, and add up the sizes of blobs."""
    recipes = dict.fromkeys(parts.index.read(_arriving), sets.number([Holder.UPLOADS]))
    for table in (View.blobs_after, View.lost_after):  # what is lost may become whole again, and keeps its recipe
        last: Digest | None = None
        while rows := parts.index.read(partial(_held, table=table, after=last)):
            for blob, held in rows:
                number = sets.number(holders.get(blob.digest, (Holder.OTHERS,))) if held else _NOBODY
                for owner in _owners(sets.joined([number])):
                    found.logical[owner] += blob.size
                if blob.inline is None:
                    before = recipes.get(blob.recipe, number)
                    recipes[blob.recipe] = number if before == number else sets.number(sets.joined([before, number]))
            last = rows[-1][0].digest
    return recipes


def _arriving(view: View) -> list[int]:
    sessions = [row.recipe for _, row in view.sessions() if row.state is UploadState.OPEN]
    return [recipe for recipe, _ in view.uploads()] + sessions


def _held(view: View, table: _Table, after: Digest | None) -> list[tuple[BlobEntry, bool]]:
    return [(blob, view.is_held(blob.digest)) for blob in table(view, after, _ROWS)]


def _owners(holders: Iterable[int]) -> list[int]:
    return [holder for holder in holders if holder >= 0]


# --- chunks -----------------------------------------------------------------------------------------------


def _measure_chunks(
    parts: Parts, recipes: Mapping[int, int], sets: _Sets, found: Usage, in_packs: dict[int, int]
) -> None:
    """Share out the chunks that lie in packs which are there, and add up what lies in which."""
    passes = -(-parts.index.read(lambda view: view.count("chunks")) // _MOST_CHUNKS) or 1
    bounds = [(_KEYS * number // passes).to_bytes(9, "big")[1:] for number in range(passes)]
    for low, high in zip(bounds, [*bounds[1:], b""], strict=True):
        named = _named(parts, recipes, low, high)
        sizes: Counter[int] = Counter()
        for chunk, row in _stored(parts, low, high):
            if row.extent.pack in in_packs and row.state is not ChunkState.BAD:  # a bad one's pack may be anywhere
                in_packs[row.extent.pack] += row.extent.stored
                numbers = named.get(chunk, (_NOBODY,))
                if len(numbers) == 1:
                    sizes[numbers[0]] += row.extent.stored
                else:  # nearly no two are alike: to keep what they have in common would take more than to join them
                    _share_out(found, sets.joined(numbers), row.extent.stored)
        for number, size in sizes.items():
            _share_out(found, sets.joined([number]), size)


def _named(parts: Parts, recipes: Mapping[int, int], low: bytes, high: bytes) -> Holders[bytes]:
    """Return for each chunk in `[low, high)` the sets of those who name it."""
    named = Holders[bytes]()
    at = b""
    while rows := parts.index.read(partial(lambda view, after: view.named_chunks(after, _SEGMENTS), after=at)):
        for _, recipe, chunks in rows:
            number = recipes.get(recipe, _NOBODY)
            for chunk in chunks if number != _NOBODY else ():
                if low <= chunk and (not high or chunk < high):
                    named.add(chunk, number)
        at = rows[-1][0]
    return named


def _stored(parts: Parts, low: bytes, high: bytes) -> Iterator[tuple[bytes, ChunkRow]]:
    at = low
    while rows := parts.index.read(partial(lambda view, after: view.stored_chunks(after, _ROWS), after=at)):
        for chunk, row in rows:
            if high and chunk >= high:
                return
            yield chunk, row
        at = rows[-1][0]


def _share_out(found: Usage, holders: Collection[int], size: int) -> None:
    owners = _owners(holders)
    outside = Holder.OTHERS in holders or Holder.UPLOADS in holders
    if len(owners) == 1 and not outside:
        found.unique[owners[0]] += size
        return
    for owner in owners:
        found.shared[owner] += size
    if owners and outside:
        found.beyond += size
    elif owners:
        found.among += size
    elif Holder.OTHERS in holders:
        found.others += size
    elif Holder.UPLOADS in holders:
        found.uploads += size
    elif Holder.KEPT in holders:
        found.kept += size
    else:
        found.garbage += size


# --- files ------------------------------------------------------------------------------------------------


def _measure_files(parts: Parts, rows: Sequence[PackRow], in_packs: Mapping[int, int], found: Usage) -> None:
    layout = parts.layout
    for row in rows:
        path = layout.pack(row.pack)
        with suppress(FileNotFoundError):  # registered and not made yet, or unlinked just now
            size = path.stat().st_size
            if row.role is Role.JOURNAL:
                found.journal += size
                continue
            records = _record_bytes(path, row)
            found.records += records
            ahead = max(size - max(row.committed, records), 0)  # what no record stands behind yet
            if row.state is PackState.OPEN:
                found.uploads += ahead
            else:
                found.garbage += ahead
            found.garbage += size - ahead - records - in_packs.get(row.pack, 0)
    found.index = sum(path.stat().st_size for path in layout.index.iterdir())
    known, aside = {layout.pack(row.pack) for row in rows}, layout.quarantines
    for path in _all_files(layout):
        with suppress(FileNotFoundError):
            if path.is_file():
                size = path.stat().st_size
                found.disk += size
                if path.is_relative_to(layout.packs) and path.parent not in aside:
                    found.garbage += 0 if path in known else size
                elif not path.is_relative_to(layout.index):
                    found.rest += size


def _all_files(layout: Layout) -> Iterator[Path]:
    """Yield whatever lies under the root, and under folders that are links from there to another disk."""
    for folder in (layout.root, *(folder for folder in layout.growing if folder.is_symlink())):
        yield from folder.rglob("*")


def _record_bytes(path: Path, row: PackRow) -> int:
    """Return what a data pack has beside chunks: by its footer, else by a search for its records."""
    with PackBytes(path) as data:
        header, end = decode_header(data.read(0, HEADER_SIZE)), len(data)
        if header is None:
            return 0
        span = footer_span(data.read(max(end - TRAILER_SIZE, 0), end))
        if row.state is PackState.SEALED and span is not None and sum(span) == end:
            size = HEADER_SIZE + span[1]
            for offset in decode_footer(data.read(span[0], end), header.marker) or ():
                size += record_length(data.read(offset, offset + RECORD_SIZE))
            return size
        records = [record for _, record in walk(data, header.marker) if record is not None]
        return HEADER_SIZE + sum(record.end - record.offset for record in records if record.end <= row.committed)
