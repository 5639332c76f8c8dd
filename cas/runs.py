"""The chunks of one upload on their way into a pack: compared with what is stored, appended, recorded, filed.

Layer: L7. New chunks go to a pack at once, a commit record follows each run, and what a run says is filed in the
index in the background while the next run arrives. A key found in the index is a hint; a chunk is reused only after its
stored bytes compared equal (I3).
"""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import xxhash

from cas.alike import Alike, same
from cas.appends import Appends
from cas.errors import CasError, Damaged
from cas.extent import Codec, Extent, coalesce
from cas.reader import Reader
from cas.records import BlobEntry, Body, ChunkEntry, ChunkRef, Segment, link, pack_refs
from cas.staged import Filing
from cas.threads import submit
from cas.turns import Turn

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from concurrent.futures import Future

    from cas.claims import Claim, SessionClaim
    from cas.commit import Draft
    from cas.digest import Digest
    from cas.index import Edit
    from cas.packs import PackWriter
    from cas.parts import Parts
    from cas.pins import Pin
    from cas.tables import ChunkRow
    from cas.view import View

_READ_BYTES = 1 << 20  # of stored bytes, at a time


@dataclass(slots=True)
class _Run:
    """What was cut since the last commit record."""

    start: int
    refs: list[ChunkRef] = field(default_factory=list)
    extents: list[Extent] = field(default_factory=list)
    entries: list[ChunkEntry] = field(default_factory=list)
    raw: int = 0
    pin: Pin | None = None  # on what this run found stored, until it is filed


@dataclass(slots=True)
class _Fresh:
    """A chunk this upload wrote that the index does not know yet; `data` only while its window is in memory."""

    ref: ChunkRef
    extent: Extent
    data: memoryview | None


class Runs:
    """The runs of one upload. For one thread at a time."""

    def __init__(self, parts: Parts, claim: Claim | SessionClaim, start: int = 0, chain: bytes = b"") -> None:
        self.chain = chain  # of the last segment recorded
        self.filed = False  # something may stand in the index
        self.wrote = False  # a record with new chunks was written
        self.is_large = False  # most of the blob will lie beyond what goes into the page cache
        self._parts, self._claim = parts, claim
        self._run = _Run(start)
        self._alike = Alike(parts)
        self._fresh: dict[bytes, list[_Fresh]] = {}
        self._appends = Appends(parts)
        self._in_window: list[_Fresh] = []
        self._pending: tuple[Future[object], Filing] | None = None

    @property
    def start(self) -> int:
        """Where in the blob the present run began."""
        return self._run.start

    @property
    def end(self) -> int:
        """How far in the blob the chunks taken reach."""
        return self._run.start + self._run.raw

    @property
    def is_long(self) -> bool:
        """Whether the present run should end: at places that depend on the blob alone, so that twins keep in step."""
        run, step = self._run, self._parts.settings.run_bytes
        due = self.end // step > run.start // step
        return (due and bool(run.entries)) or len(run.refs) >= self._parts.settings.segment_chunks

    @property
    def is_outdated(self) -> bool:
        """Whether a collection may wait for what the present run relies on."""
        return self._run.pin is not None and self._run.pin.is_outdated

    def take(self, chunks: Sequence[memoryview], *, compress: bool, aside: bool = True) -> None:
        """Take the next chunks; what is new of them is appended to a pack, `aside` if more are to come meanwhile."""
        if chunks and self._run.pin is None:
            self._run.pin = self._parts.pins.take()
        keys = [xxhash.xxh3_128_digest(chunk) for chunk in chunks]
        rows = self._parts.index.read(lambda view: view.chunks(keys))
        found = self._alike.find(chunks, rows, past_cache=self._is_past_cache(self.end))
        for chunk, key, candidates, row in zip(chunks, keys, rows, found, strict=True):
            known = self._match(chunk, key, candidates) if row is None else (_ref(key, row), row.extent)
            ref, extent = known or self._add(chunk, key, compress=compress)
            self._run.refs.append(ref)
            self._run.extents.append(extent)
            self._run.raw += ref.raw
        self._append(aside=aside)

    def end_run(self) -> None:
        """Write the run's record; sync and file it in the background, at most one run behind."""
        self._settle_pending()
        turn = self.turn()
        try:
            self.look_again()
            filing, written = self._write_record()
            if not filing.entries:
                turn.end()  # nobody gains by waiting for this one
            writer = self._appends.lend()
            if filing.end >= self._parts.settings.pack_bytes:
                self._appends.change_packs()  # full: it goes back once this run is filed
            self.filed = True
            self._pending = submit(self._parts.syncers, self._sync_and_file, writer, filing, written, turn), filing
        except BaseException:
            turn.end()
            raise

    def turn(self, blob: Digest | None = None) -> Turn:
        """Wait for this upload's turn with what is new in the present run; nobody needs one if nothing is.

        Twins that found different parts stored, or were cut differently since one of them came in several requests, end
        in another new chunk. At its end each knows what it is going to be.
        """
        new = self._run.entries
        contents = [] if blob is None else [blob.raw]
        return Turn(self._parts.layout, *contents, new[-1].key) if new else Turn(self._parts.layout)

    def hand_over_pin(self) -> Pin | None:
        """Return the pin on what the present run found stored; it is its receiver's to release."""
        pin, self._run.pin = self._run.pin, None
        return pin

    def last(self) -> Filing | None:
        """Record and sync what is left, and return it unfiled; None if the last run ended with the last byte.

        To be called right after `look_again`.
        """
        self._settle_pending()
        if not self._run.refs:
            return None
        filing, _ = self._write_record()
        self._appends.settle()
        self._appends.lend().sync()
        return filing

    def settle(self) -> None:
        """Wait until every run that was ended is filed."""
        self._settle_pending()

    def read(self, start: int, digest: Digest) -> Iterator[bytes | bytearray]:
        """Yield all bytes taken so far from `start` on, as they are stored.

        Raises:
            Damaged: some are not to be had.
        """
        self._appends.settle()
        self._settle_pending()
        blob = BlobEntry(digest, self._run.start, 0, self._claim.recipe)
        with Reader(self._parts, blob) as reader:
            for at in range(start, blob.size, _READ_BYTES):
                yield reader.read(at, at + _READ_BYTES)
        skip = max(start - blob.size, 0)
        for extent in self._run.extents:
            data = self._alike.stored(extent)
            if data is None:
                raise Damaged("what arrived of this upload cannot be read back; begin a new one")
            yield data[skip:]
            skip = max(skip - extent.raw, 0)

    def look_again(self) -> None:
        """Give the run's bytes back if all its new chunks have been filed by somebody else since they were cut."""
        run, found = self._run, {}
        if not run.entries:
            return
        keys = [entry.key for entry in run.entries]
        rows = self._parts.index.read(lambda view: view.chunks(keys))
        if not all(rows):
            return
        self._appends.settle()
        places = dict(zip(run.refs, run.extents, strict=True))
        for entry, candidates in zip(run.entries, rows, strict=True):
            own = ChunkRef(entry.key, entry.salt, entry.raw)
            data = self._alike.stored(places[own])
            match = None if data is None else self._stored_alike(memoryview(data), own.key, candidates)
            if match is None:
                return
            found[own] = match
        self._run = _Run(run.start, raw=run.raw, pin=run.pin)
        for ref, extent in zip(run.refs, run.extents, strict=True):
            ref, extent = found.get(ref, (ref, extent))  # noqa: PLW2901 - the twin takes its place
            self._run.refs.append(ref)
            self._run.extents.append(extent)
        for own in found:
            self._fresh.pop(own.key, None)
        self._roll_back()

    def are_recipe_of(self, blob: BlobEntry) -> bool:
        """Whether a stored blob has exactly these chunks, each of which compared equal when it arrived."""

        def look(view: View) -> bool:
            ours, theirs = hashlib.blake2b(digest_size=16), hashlib.blake2b(digest_size=16)
            for refs in view.packed_refs(self._claim.recipe, self._run.start):
                ours.update(refs)
            ours.update(pack_refs(tuple(self._run.refs)))
            for refs in view.packed_refs(blob.recipe, blob.size):
                theirs.update(refs)
            return ours.digest() == theirs.digest()

        try:
            return self._parts.index.read(look)
        except Damaged:
            return False  # then ours takes the place of the damaged recipe

    @property
    def has_new(self) -> bool:
        """Whether the present run has chunks that were not stored before."""
        return bool(self._run.entries)

    def abandon(self) -> None:
        """Give the space of unfiled bytes back, and the pack."""
        with contextlib.suppress(CasError):
            self._settle_pending()
        self._roll_back()
        self.release()

    def release(self) -> None:
        """Give the pack back, and rely on nothing any more."""
        self._fresh.clear()
        self._alike.close()
        pin = self.hand_over_pin()
        if pin is not None:
            pin.release()
        self._appends.release()

    def _roll_back(self) -> None:
        self._in_window = []
        self._appends.roll_back()

    def _match(self, chunk: memoryview, key: bytes, candidates: Sequence[ChunkRow]) -> tuple[ChunkRef, Extent] | None:
        for fresh in self._fresh.get(key, ()):
            if fresh.data is None:
                self._appends.settle()
            data = self._alike.stored(fresh.extent) if fresh.data is None else bytearray(fresh.data)
            if same(data, chunk):
                return fresh.ref, fresh.extent
        return self._stored_alike(chunk, key, candidates)

    def _stored_alike(
        self, chunk: memoryview, key: bytes, candidates: Sequence[ChunkRow]
    ) -> tuple[ChunkRef, Extent] | None:
        row = next((row for row in candidates if self._alike.is_alike(chunk, row)), None)
        return None if row is None else (_ref(key, row), row.extent)

    def _add(self, chunk: memoryview, key: bytes, *, compress: bool) -> tuple[ChunkRef, Extent]:
        codec, stored = self._parts.codec.encode(chunk) if compress else (Codec.RAW, chunk)
        pack, offset = self._appends.gather(stored)
        ref = ChunkRef(key, int.from_bytes(self._parts.disk.random(4), "big"), len(chunk))
        extent = Extent(pack, offset, len(stored), len(chunk), codec)
        entry = ChunkEntry(key, ref.salt, offset, len(stored), len(chunk), codec, xxhash.xxh3_64_intdigest(stored))
        self._run.entries.append(entry)
        fresh = _Fresh(ref, extent, chunk)
        self._fresh.setdefault(key, []).append(fresh)
        self._in_window.append(fresh)
        return ref, extent

    def _append(self, *, aside: bool) -> None:
        self._appends.hand_over(aside=aside, past_cache=self._is_past_cache(self._run.start))
        for fresh in self._in_window:
            fresh.data = None
        self._in_window = []

    def _is_past_cache(self, at: int) -> bool:
        """Tell whether what lies there in the blob is unlikely to be asked for soon."""
        return self.is_large or at >= self._parts.settings.direct_bytes

    def _write_record(self) -> tuple[Filing, Future[int | None] | None]:
        """Append the run's record; return what it says, and what to wait for before it is in the pack."""
        self._parts.index.read(lambda view: self._claim.check(view, self._run.start))
        run = self._run
        self.wrote |= bool(run.entries)
        self.chain = link(self.chain, tuple(run.refs))
        segment = Segment(self._claim.recipe, run.start, tuple(run.refs), self.chain)
        end, written = self._appends.commit(Body(chunks=run.entries, segments=[segment]))
        self._run = _Run(run.start + segment.raw)
        extents = tuple(coalesce(run.extents))
        return Filing(self._appends.lend().pack, end, tuple(run.entries), segment, extents, run.pin), written

    def _sync_and_file(
        self, writer: PackWriter, filing: Filing, written: Future[int | None] | None, turn: Turn
    ) -> None:
        owner, now = self._parts.owner, int(self._parts.clock())

        def file(edit: Edit, _draft: Draft) -> None:
            self._claim.file(edit, filing.segment, None, now)
            filing.put(edit, owner)

        try:
            if written is not None:
                written.result()
            writer.sync()
            self._parts.committer.run(file)
        finally:
            filing.release()
            turn.end()
            if not self._appends.is_lent(writer):
                self._parts.packs.give_back(writer)

    def _settle_pending(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            future, filing = pending
            future.result()
            for entry in filing.entries:  # the index knows them now
                self._fresh.pop(entry.key, None)


def _ref(key: bytes, row: ChunkRow) -> ChunkRef:
    return ChunkRef(key, row.salt, row.extent.raw)
