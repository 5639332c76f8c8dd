"""Checking a store: what the index says held against itself, against the packs, and against the bytes.

Layer: L9. Changes nothing. Pushes, deletions and collections go on meanwhile, so whatever is compared with each other
is read in one transaction. Only what is in files cannot be: a pack that looks wrong is looked at once more while nobody
may move it.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final

import xxhash

from cas import tallies
from cas.errors import Damaged, DiskFailed, Missing
from cas.extent import Codec
from cas.finding import DISK, PUSH, REBUILD, REPAIR, Depth, Finding
from cas.names import Name
from cas.reader import Reader
from cas.records import ChunkRef, Role
from cas.scan import extent_of, pack_paths, scan_pack
from cas.tables import ChunkState, PackState
from cas.tallies import gap

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from contextlib import AbstractContextManager

    from cas.digest import Digest
    from cas.parts import Parts
    from cas.records import BlobEntry, ChunkEntry
    from cas.tables import PackRow
    from cas.view import View

_SLICE: Final = 1000


def check(
    parts: Parts, depth: Depth, alone: Callable[[], AbstractContextManager[None]] = nullcontext
) -> Iterator[Finding]:
    """Yield what is wrong; if the index itself is, that alone, since all else rests on it.

    Args:
        parts: of the store.
        depth: how far to go.
        alone: while it is entered, nobody moves or takes anything; for whom that is so already, nothing.
    """
    for look in (tallies.tables, tallies.rows):
        if wrong := list(look(parts)):
            yield from wrong
            return
    yield from _names(parts)
    for look in (tallies.uploads, tallies.sums, tallies.hints):
        yield from look(parts)
    yield from _recipes(parts, depth)
    yield from _lost(parts)
    first = _Packs(parts, depth)
    if list(first.findings()):  # or somebody moved what lay there: a second look tells, and only that is told
        with alone():
            yield from _Packs(parts, depth, first.suspects).findings()


def _names(parts: Parts) -> Iterator[Finding]:
    after = b""
    while found := parts.index.read(lambda view, after=after: _names_slice(view, after)):  # type: ignore[misc]
        after, findings = found
        yield from findings
    for digest, key in parts.index.read(lambda view: list(view.untrue_holders())):
        text = "it is said to be held by a name that does not hold it, and is never collected"
        yield Finding("names", text, f"blob {digest}", REBUILD, (digest,), (Name.from_key(key),))


def _names_slice(view: View, after: bytes) -> tuple[bytes, list[Finding]] | None:
    rows, findings = view.records(b"", after, _SLICE), []
    for key, record in rows:
        name = Name.from_key(key)
        for digest in record.holds:
            where, them = f"name {name.kind} {name.path}", ((digest,), (name,))
            if not view.holders(digest, key, 1):
                findings.append(Finding("names", f"it is not known to hold blob {digest}", where, REBUILD, *them))
            if not view.blob_rows(digest):
                findings.append(Finding("names", f"it holds blob {digest}, which is not here", where, PUSH, *them))
    return (rows[-1][0], findings) if rows else None


def _recipes(parts: Parts, depth: Depth) -> Iterator[Finding]:
    last: Digest | None = None
    while blobs := parts.index.read(lambda view, last=last: view.blobs_after(last, _SLICE)):  # type: ignore[misc]
        last = blobs[-1].digest
        for digest in (blob.digest for blob in blobs):
            what = parts.index.read(lambda view, digest=digest: flaw(view, digest))  # type: ignore[misc]
            if what is not None:
                yield _about("recipes", what, f"blob {digest}", parts, {digest})
            elif depth is Depth.DEEP and (untrue := _untrue(parts, digest)):
                yield _about(*untrue, f"blob {digest}", parts, {digest})


def flaw(view: View, digest: Digest) -> str | None:
    """Return why a blob cannot be read to its end, as far as the index knows; None if it can."""
    blob = view.blob(digest)
    if blob is None or blob.inline is not None:
        return None
    return gap(view, blob.recipe, blob.size)


def _untrue(parts: Parts, digest: Digest) -> tuple[str, str] | None:
    """Read a blob to its end: which check it fails and why; one deleted meanwhile is nobody's concern."""
    pin = parts.pins.take()
    blob = parts.index.read(lambda view: view.blob(digest))
    if blob is None:
        pin.release()
        return None
    try:
        true = _hash(parts, blob, Reader(parts, blob, pin)) == digest.raw
    except Damaged as error:
        return "blobs", str(error)
    except DiskFailed as error:
        return "unreadable", f"it could not be read to its end: {error}"
    return None if true else ("blobs", "its bytes have another digest")


def _hash(parts: Parts, blob: BlobEntry, reader: Reader) -> bytes:
    running = hashlib.new(blob.digest.algorithm)
    with reader:
        for piece in reader.pieces():
            if isinstance(piece, bytes):
                running.update(piece)
                continue
            for at in range(0, piece.count, 1 << 20):
                count = min(1 << 20, piece.count - at)
                data = parts.disk.read(piece.fd, count, piece.offset + at)
                if len(data) != count:
                    raise Damaged("a pack ends early")
                running.update(data)
    return running.digest()


def _lost(parts: Parts) -> Iterator[Finding]:
    last: Digest | None = None
    while blobs := parts.index.read(lambda view, last=last: view.lost_after(last, _SLICE)):  # type: ignore[misc]
        last = blobs[-1].digest
        for blob in blobs:
            text = "it was found damaged before and is answered as missing"
            yield _about("lost", text, f"blob {blob.digest}", parts, {blob.digest})


def _about(
    check_name: str, what: str, where: str, parts: Parts, blobs: set[Digest], pack: int | None = None
) -> Finding:
    keys = parts.index.read(lambda view: {key for digest in blobs for key in view.holders(digest)})
    names = tuple(Name.from_key(key) for key in sorted(keys))
    if check_name == "unreadable":
        return Finding(check_name, what, where, DISK, tuple(sorted(blobs)), names)
    return Finding(check_name, what, where, PUSH if pack is None else REPAIR, tuple(sorted(blobs)), names, pack)


class _Packs:
    """Packs against the index; chunks found bad are told at the end, when it is looked up whose they are."""

    def __init__(self, parts: Parts, depth: Depth, only: Collection[int] | None = None) -> None:
        self._parts, self._depth, self._only = parts, depth, only
        self.suspects: set[int] = set()  # packs of which something was found
        self._bad: dict[bytes, tuple[str, str, str, int]] = {}  # chunk → check, what, where, pack

    def findings(self) -> Iterator[Finding]:
        # In this order: a pack's row comes before its file, and its row says how far before chunks lie there.
        files = {pack for pack, _ in pack_paths(self._parts.layout)}
        placed = self._placed()
        rows = self._parts.index.read(lambda view: view.packs())
        known = {row.pack for row in rows}
        for pack in self._those(files - known):
            yield Finding("packs", "the index does not know it; cas gc sets it aside", f"pack {pack:016x}", "cas gc")
        for row in rows:
            if row.state is not PackState.DYING and (self._only is None or row.pack in self._only):
                for finding in self._pack(row, placed[row.pack]):
                    self.suspects.add(row.pack)
                    yield finding
        for pack in self._those(placed.keys() - known):
            yield Finding("packs", f"{placed[pack]} chunks lie in it, and it is not here", f"pack {pack:016x}")
        yield from self._told()

    def _those(self, packs: Iterable[int]) -> list[int]:
        """Return those that are to be told of, and suspect them."""
        wanted = sorted(pack for pack in packs if self._only is None or pack in self._only)
        self.suspects.update(wanted)
        return wanted

    def _placed(self) -> Counter[int]:
        """Count the chunks that the index places in each pack, but for those known to be bad."""
        placed, after = Counter[int](), b""
        while rows := self._parts.index.read(lambda view, after=after: view.stored_chunks(after, _SLICE)):  # type: ignore[misc]
            after = rows[-1][0]
            placed.update(row.extent.pack for _, row in rows if row.state is not ChunkState.BAD)
        return placed

    def _pack(self, row: PackRow, placed: int) -> Iterator[Finding]:
        path, where = self._parts.layout.pack(row.pack), f"pack {row.pack:016x}"
        try:
            size = path.stat().st_size
            if size < row.committed:
                yield Finding("packs", f"it ends {row.committed - size} bytes early", where, REPAIR, pack=row.pack)
            if not size:
                return
            scan = scan_pack(row.pack, path, committed=row.committed)
        except FileNotFoundError:
            if row.committed or placed:
                yield Finding("packs", f"its file is missing, with {placed} chunks", where, REPAIR, pack=row.pack)
                self._unrecorded(row.pack, {})
            return
        except OSError as error:
            yield Finding("unreadable", f"it could not be read: {error.strerror}", where, DISK)
            return
        if row.state is PackState.SEALED and not scan.sealed and row.committed:
            yield Finding("packs", "its header or footer is damaged", where, REPAIR, pack=row.pack)
        yield from (Finding("packs", text, where, REPAIR, pack=row.pack) for text in scan.complaints)
        entries = {e.key + e.salt.to_bytes(4, "big"): e for record in scan.records for e in record.body.chunks}
        if row.role is Role.DATA:
            self._recorded(row.pack, entries, placed)

    def _recorded(self, pack: int, entries: dict[bytes, ChunkEntry], placed: int) -> None:
        """Hold what a pack tells of its chunks against the index; only if some are missing, ask which."""
        told, found = list(entries.items()), 0
        for start in range(0, len(told), _SLICE):
            some = told[start : start + _SLICE]
            refs = [ChunkRef(entry.key, entry.salt, entry.raw) for _, entry in some]
            rows = self._parts.index.read(lambda view, refs=refs: [view.chunk(ref) for ref in refs])  # type: ignore[misc]
            for (chunk, entry), row in zip(some, rows, strict=True):
                if row is None or row.extent != extent_of(pack, entry) or row.state is ChunkState.BAD:
                    continue
                found += 1
                if self._depth > Depth.QUICK and (bad := self._spoilt(pack, entry)):
                    self._bad[chunk] = (*bad, f"pack {pack:016x}, byte {entry.offset}", pack)
        if found < placed:
            self._unrecorded(pack, entries)

    def _unrecorded(self, pack: int, entries: dict[bytes, ChunkEntry]) -> None:
        """Find the chunks that the index places in a pack and of which no record there tells."""
        after = b""
        while rows := self._parts.index.read(lambda view, after=after: view.stored_chunks(after, _SLICE)):  # type: ignore[misc]
            after = rows[-1][0]
            for chunk, row in rows:
                if row.extent.pack != pack or row.state is ChunkState.BAD:
                    continue
                entry, where = entries.get(chunk), f"pack {pack:016x}, byte {row.extent.offset}"
                if entry is None or extent_of(pack, entry) != row.extent:
                    self._bad[chunk] = ("packs", "no good record tells of this chunk", where, pack)

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
            if self._depth is Depth.DEEP:
                raw = data if entry.codec == Codec.RAW else self._parts.codec.decode(data, entry.raw)
                if xxhash.xxh3_128_digest(raw) != entry.key:
                    return "keys", "a chunk's bytes have another key"
        except (Damaged, Missing, FileNotFoundError) as error:
            return "chunks", f"a chunk is damaged: {error}"
        except DiskFailed as error:
            return "unreadable", f"a chunk could not be read, which is not rot: {error}"
        return None

    def _told(self) -> Iterator[Finding]:
        whose = self._whose()
        for chunk, (check_name, what, where, pack) in self._bad.items():
            self.suspects.add(pack)
            yield _about(check_name, what, where, self._parts, whose.get(chunk, set()), pack)

    def _whose(self) -> dict[bytes, set[Digest]]:
        """Return the blobs of which each bad chunk is a part."""
        recipes: dict[int, set[bytes]] = {}
        after = b""
        if not self._bad:
            return {}
        while rows := self._parts.index.read(lambda view, after=after: view.named_chunks(after, _SLICE)):  # type: ignore[misc]
            after = rows[-1][0]
            for _, recipe, chunks in rows:
                if hit := self._bad.keys() & set(chunks):
                    recipes.setdefault(recipe, set()).update(hit)
        whose: dict[bytes, set[Digest]] = {}
        last: Digest | None = None
        while recipes and (blobs := self._parts.index.read(lambda view, last=last: view.blobs_after(last, _SLICE))):  # type: ignore[misc]
            last = blobs[-1].digest
            for blob in blobs:
                for chunk in recipes.get(blob.recipe, ()):
                    whose.setdefault(chunk, set()).add(blob.digest)
        return whose
