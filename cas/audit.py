"""Packs held against the index: whether each is here, its records whole, and its bytes what their checksums say.

Layer: L8. Changes nothing but the note of when a pack was last read through. A pack is read as it lies there, beside
whoever writes, moves or removes packs, so what looks wrong is looked at once more while nobody may; see `check`.
"""

from __future__ import annotations

import contextlib
import os
from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING, Final

import xxhash

from cas.commit import JOURNAL_SEQ
from cas.diary import awaits_index
from cas.disk import refusals
from cas.errors import CasError, Damaged, DiskFailed, Missing, Unreadable
from cas.extent import Codec
from cas.files import file_size
from cas.finding import DISK, PUSH, REPAIR, RESTATE, Depth, Finding
from cas.names import Name
from cas.proof import doubtful
from cas.records import Role
from cas.scan import extent_of, flaws, pack_paths, scan_pack
from cas.sufferers import sufferers
from cas.tables import DOUBTED, TOLD, ChunkState, PackState, is_usable, pack_place

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from cas.commit import Draft
    from cas.digest import Digest
    from cas.finding import Scope
    from cas.index import Edit
    from cas.parts import Parts
    from cas.records import ChunkEntry
    from cas.scan import Scan
    from cas.tables import PackRow

_SLICE: Final = 1000
_LOST_WITH: Final = {  # what a rebuild of the index would not find without one of its records
    Role.DATA: "a rebuild of the index would miss the chunks and recipes that it lists",
    Role.JOURNAL: "a rebuild of the index would miss the changes of names in it",
}


def about(check_name: str, what: str, where: str, parts: Parts, blobs: set[Digest], pack: int | None = None) -> Finding:
    keys = parts.index.read(lambda view: {key for digest in blobs for key in view.holders(digest)})
    names = tuple(Name.from_key(key) for key in sorted(keys))
    if check_name == "unreadable":
        return Finding(check_name, what, where, DISK, tuple(sorted(blobs)), names)
    return Finding(check_name, what, where, PUSH if pack is None else REPAIR, tuple(sorted(blobs)), names, pack)


class Audit:
    """Packs against the index; chunks found bad are told at the end, when it is looked up whose they are.

    Attributes:
        suspects: packs of which something was found.
        read: packs that were read through as far as that could be had, and when that began.
    """

    def __init__(self, parts: Parts, scope: Scope, only: Collection[int] | None = None) -> None:
        self.suspects: set[int] = set()
        self.read: dict[int, int] = {}
        self._parts, self._scope, self._only = parts, scope, only
        self._bad: dict[bytes, tuple[str, str, str, int]] = {}  # chunk → check, what, where, pack
        self._untold: dict[int, set[bytes]] = {}  # pack → its chunks of which no good record tells
        self._links: dict[int, int] = {}  # number of a change → the one before it
        self._unread: set[int] = set()  # packs of which nobody knows what is in them
        self._doubted: set[int] = set()  # packs that were when their reading began

    def findings(self) -> Iterator[Finding]:
        """Yield what is wrong with these packs, or with all."""
        # In this order: a pack's row comes before its file, and its row says how far before chunks lie there.
        files = {pack for pack, _ in pack_paths(self._parts.layout)}
        placed = self._placed()
        top, rows = self._parts.index.read(lambda view: (view.number(JOURNAL_SEQ), view.packs()))
        known = {row.pack for row in rows}
        strangers = files - known
        if strangers and awaits_index(self._parts.layout, top):
            strangers.clear()
        for pack in self._those(strangers):
            yield Finding("packs", "the index does not know it; cas gc sets it aside", f"pack {pack:016x}", "cas gc")
        for row in rows:
            if row.state is not PackState.DYING and (self._only is None or row.pack in self._only):
                for finding in self._pack(row, placed[row.pack]):
                    self.suspects.add(row.pack)
                    yield finding
                self._note_clean(row.pack)
        for pack in self._those(placed.keys() - known):
            yield Finding("packs", f"{placed[pack]} chunks lie in it, and it is not here", f"pack {pack:016x}")
        yield from self._told()
        journal = {row.pack for row in rows if row.role is Role.JOURNAL}
        if not journal & self._unread and (self._only is None or journal <= set(self._only)):
            for finding in gaps(self._links, top):
                self.suspects |= journal
                yield finding

    def note(self, but: Collection[int] = (), doubted: Collection[int] = ()) -> None:
        """Remember of all packs that were read, but for some, when that was, and of others that they are doubted."""
        read = {pack: when for pack, when in self.read.items() if pack not in but}
        note_checked(self._parts, read | dict.fromkeys(doubted, DOUBTED), self._doubted)
        self.read.clear()

    def leave(self, packs: Collection[int]) -> None:
        """Remember of packs that they were found damaged, and that nobody is going to mend them."""
        now = int(self._parts.clock())
        note_checked(self._parts, {pack: TOLD | self.read.pop(pack, now) for pack in packs}, packs)

    def _note_clean(self, pack: int) -> None:
        is_clean = pack not in self.suspects and pack not in self._untold
        if pack in self.read and is_clean and all(bad[3] != pack for bad in self._bad.values()):
            note_checked(self._parts, {pack: self.read.pop(pack)}, self._doubted)

    def _those(self, packs: Iterable[int]) -> list[int]:
        """Return those that are to be told of, and suspect them."""
        wanted = sorted(pack for pack in packs if self._only is None or pack in self._only)
        self.suspects.update(wanted)
        return wanted

    def _placed(self) -> Counter[int]:
        """Count the chunks that the index places in each pack, but for those known to be bad."""
        placed, after = Counter[int](), b""
        while found := self._parts.index.read(lambda view, after=after: view.chunk_places(after, _SLICE)):  # type: ignore[misc]
            after, some = found
            placed += some
        return placed

    def _pack(self, row: PackRow, placed: int) -> Iterator[Finding]:
        path, where = self._parts.layout.pack(row.pack), f"pack {row.pack:016x}"
        if self._reads(row.pack) or (row.role is Role.JOURNAL and self._scope.depth > Depth.QUICK):
            self.read[row.pack] = int(self._parts.clock())
            if self._parts.index.read(lambda view: view.is_doubted(row.pack)):
                self._doubted.add(row.pack)
        try:
            with refusals(f"read {path.name}", Unreadable):
                size = file_size(path)
            if size < row.committed:
                yield Finding("packs", f"it ends {row.committed - size} bytes early", where, REPAIR, pack=row.pack)
            if not size:
                return
            scan = scan_pack(row.pack, path, proves=False, names=False)
        except FileNotFoundError:
            if row.committed or placed:
                yield Finding("packs", f"its file is missing, with {placed} chunks", where, REPAIR, pack=row.pack)
                self._unrecorded(row.pack, {})
            return
        except Unreadable as error:
            self._unread.add(row.pack)
            yield Finding("unreadable", f"it could not be read: {error}", where, DISK)
            return
        yield from self._records(row, scan, size)
        if row.role is Role.DATA:
            entries = {e.key + e.salt.to_bytes(4, "big"): e for record in scan.records for e in record.body.chunks}
            with self._open(row.pack):
                self._recorded(row.pack, entries, placed)

    def _records(self, row: PackRow, scan: Scan, size: int) -> Iterator[Finding]:
        """Say which records of a pack are gone, and remember the links of those of the journal."""
        where, effect = f"pack {row.pack:016x}", _LOST_WITH[row.role]
        if not scan.sealed or row.role is Role.JOURNAL:
            self._scope.told(size)
        for what in flaws(scan, row):
            yield Finding("packs", f"{what}; {effect}", where, REPAIR, pack=row.pack)
        self._links |= _links(scan)

    def _reads(self, pack: int) -> bool:
        return self._scope.depth > Depth.QUICK and self._scope.has_pack(pack)

    @contextlib.contextmanager
    def _open(self, pack: int) -> Iterator[None]:
        """Keep a pack's file, should it be removed meanwhile, and out of the cache what nobody else reads of it."""
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(FileNotFoundError, DiskFailed):
                fd = self._parts.files.acquire(pack)
                stack.callback(self._parts.files.release, pack)
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_NOREUSE)
            yield

    def _recorded(self, pack: int, entries: dict[bytes, ChunkEntry], placed: int) -> None:
        """Hold what a pack tells of its chunks against the index; only if some are missing, ask which."""
        told: list[tuple[bytes, ChunkEntry]] = list(entries.items())
        living: list[ChunkEntry] = []
        for start in range(0, len(told), _SLICE):
            some = told[start : start + _SLICE]
            chunks = [chunk for chunk, _ in some]
            rows = self._parts.index.read(lambda view, chunks=chunks: view.chunk_rows(chunks))  # type: ignore[misc]
            living += [
                entry
                for (_, entry), row in zip(some, rows, strict=True)
                if is_usable(row) and row.startswith(pack_place(extent_of(pack, entry)))
            ]
        if self._reads(pack):
            self._prove(pack, living)
        if len(living) < placed:
            self._unrecorded(pack, entries)

    def _prove(self, pack: int, living: Sequence[ChunkEntry]) -> None:
        """Hold the bytes of chunks against their checksums, and by a deep check their keys."""
        codec = self._parts.codec if self._scope.depth is Depth.DEEP else None

        def read(size: int, offset: int) -> bytearray:
            try:
                return self._parts.files.read(pack, offset, size)
            except (Damaged, Missing, FileNotFoundError):
                return bytearray()

        for entry in doubtful(living, read, self._scope.told, codec):
            if bad := self._spoilt(pack, entry):
                chunk = entry.key + entry.salt.to_bytes(4, "big")
                self._bad[chunk] = (*bad, f"pack {pack:016x}, byte {entry.offset}", pack)

    def _unrecorded(self, pack: int, entries: dict[bytes, ChunkEntry]) -> None:
        """Find the chunks that the index places in a pack and of which no record there tells."""
        after = b""
        while rows := self._parts.index.read(lambda view, after=after: view.stored_chunks(after, _SLICE)):  # type: ignore[misc]
            after = rows[-1][0]
            for chunk, row in rows:
                if row.extent.pack != pack or row.state is ChunkState.BAD:
                    continue
                entry = entries.get(chunk)
                if entry is None or extent_of(pack, entry) != row.extent:
                    self._untold.setdefault(pack, set()).add(chunk)

    def _spoilt(self, pack: int, entry: ChunkEntry) -> tuple[str, str] | None:
        files = self._parts.files
        try:
            data = files.read(pack, entry.offset, entry.stored)
            if xxhash.xxh3_64_intdigest(data) != entry.checksum:
                fd = files.acquire(pack)  # perhaps it was the memory: ask the disk once more before it is called rot
                try:
                    os.posix_fadvise(fd, entry.offset, entry.stored, os.POSIX_FADV_DONTNEED)
                finally:
                    files.release(pack)
                data = files.read(pack, entry.offset, entry.stored)
            if xxhash.xxh3_64_intdigest(data) != entry.checksum:
                return "chunks", "stored bytes of a chunk have another checksum"
            if self._scope.depth is Depth.DEEP:
                raw = data if entry.codec == Codec.RAW else self._parts.codec.decode(data, entry.raw)
                if xxhash.xxh3_128_digest(raw) != entry.key:
                    return "keys", "a chunk's bytes have another key"
        except (Damaged, Missing, FileNotFoundError) as error:
            return "chunks", f"a chunk is damaged: {error}"
        except DiskFailed as error:
            return "unreadable", f"a chunk could not be read, which is not rot: {error}"
        return None

    def _told(self) -> Iterator[Finding]:
        whose = sufferers(self._parts.index, self._bad.keys() | set[bytes]().union(*self._untold.values()))
        for pack, chunks in self._untold.items():
            self.suspects.add(pack)
            what = f"no good record tells of {len(chunks)} chunks in it"
            blobs = {blob.digest for chunk in chunks for blob in whose.get(chunk, ())}
            yield about("packs", what, f"pack {pack:016x}", self._parts, blobs, pack)
        for chunk, (check_name, what, where, pack) in self._bad.items():
            self.suspects.add(pack)
            blobs = {blob.digest for blob in whose.get(chunk, ())}
            yield about(check_name, what, where, self._parts, blobs, pack)


def gaps(links: Mapping[int, int], top: int) -> Iterator[Finding]:
    """Follow the journal down from its highest number, as a rebuild does, and yield where it cannot."""
    for below, at in missing_links(links, top):
        what = f"changes of names {below + 1} to {at} are recorded nowhere; a rebuild of the index would lose them"
        yield Finding("journal", what, "journal", RESTATE)


def missing_links(links: Mapping[int, int], top: int) -> Iterator[tuple[int, int]]:
    """Yield the stretches `(below, at)` of the journal that are gone: `at` is needed, `below` the next that is here."""
    at, known = top, sorted(links)
    while at:
        if at in links:
            at = links[at]
            continue
        below = known[bisect_left(known, at) - 1] if known and known[0] < at else 0
        yield below, at
        at = below


def journal_links(parts: Parts) -> dict[int, int]:
    """Return the links of the whole journal: the number of each change, and that of the one before it."""
    links: dict[int, int] = {}
    rows = parts.index.read(lambda view: view.packs())
    for row in (row for row in rows if row.role is Role.JOURNAL):
        with contextlib.suppress(FileNotFoundError, ValueError):  # none, or an empty one
            links |= _links(scan_pack(row.pack, parts.layout.pack(row.pack), names=False))
    return links


def _links(scan: Scan) -> dict[int, int]:
    names = (record.body.names for record in scan.records)
    return {change.seq: change.previous for change in names if change is not None}


def note_checked(parts: Parts, packs: Mapping[int, int], doubted: Collection[int]) -> None:
    """Note when packs were last read through; a check is none the worse where that cannot be written.

    Those that were not `doubted` when that began, and are now, stay so: it may have rotted behind whoever read.
    """

    def put(edit: Edit, _draft: Draft) -> None:
        for pack, when in packs.items():
            if pack in doubted or not edit.is_doubted(pack):
                edit.put_checked(pack, when)

    if packs:
        with contextlib.suppress(CasError):
            parts.committer.run(put)
