"""The one door for bytes: an upload is hashed, cut, deduplicated and written while it arrives (I3, I5).

Layer: L7. One pass: new chunks go to a pack at once, a commit record follows each run, and what a run says is filed in
the index in the background while the next run arrives. Memory per upload is the chunker's window and one run's tables.
A key found in the index is a hint; a chunk is reused only after its stored bytes compared equal.
"""

from __future__ import annotations

import contextlib
import hashlib
from concurrent.futures import wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, Self

import xxhash

from cas.chunker import Chunker
from cas.digest import Digest
from cas.errors import CasError, Closed, Damaged, DiskFailed, Mismatch, NoSpace
from cas.extent import Codec, Extent, coalesce
from cas.index import ChunkState
from cas.records import BlobEntry, Body, ChunkEntry, ChunkRef, Segment, pack_refs
from cas.staged import Filing, Staged
from cas.window import Window

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future, ThreadPoolExecutor
    from types import TracebackType

    from cas.commit import Draft
    from cas.index import ChunkRow, Edit, View
    from cas.packs import PackWriter
    from cas.parts import Parts

_ASIDE_BYTES = 64 * 1024  # pieces below this are hashed in line: a thread hop would cost more
_STEP_BYTES = 256 * 1024  # a longer piece enters the window in steps, so that it cannot swell it (I5)


class Tap(Protocol):
    """Somebody who wants every byte of an upload, in order; hash objects are."""

    def update(self, data: bytes, /) -> object:
        """Take the next bytes."""


@dataclass(slots=True)
class _Run:
    """What was cut since the last commit record."""

    start: int
    refs: list[ChunkRef] = field(default_factory=list)
    extents: list[Extent] = field(default_factory=list)
    entries: list[ChunkEntry] = field(default_factory=list)
    stored: int = 0


@dataclass(slots=True)
class _Fresh:
    """A chunk this upload wrote that the index does not know yet; `data` only while its window is in memory."""

    ref: ChunkRef
    extent: Extent
    data: memoryview | None


class Upload:
    """One blob on its way in. Blocking; for one thread at a time. Leaving its `with` block unfinished discards it."""

    def __init__(self, parts: Parts, taps: Sequence[Tap] = ()) -> None:
        self.size = 0
        self._parts, self._taps = parts, taps
        self._hash = hashlib.sha256()
        self._window = Window()
        self._chunker = Chunker()
        self._recipe = int.from_bytes(parts.disk.random(8), "big") or 1
        self._run = _Run(0)
        self._fresh: dict[bytes, list[_Fresh]] = {}
        self._buffers: list[bytes | memoryview] = []
        self._buffered = 0
        self._base = 0  # where in the lent pack the buffers will lie
        self._appending: Future[object] | None = None
        self._in_window: list[_Fresh] = []
        self._writer: PackWriter | None = None
        self._kept = 0  # bytes of the lent pack that a record of ours, or somebody before us, stands on
        self._pending: tuple[Future[object], Filing] | None = None
        self._hashing: list[Future[object]] = []
        self._filed = self._wrote = self._over = False
        self._chunks = hashlib.blake2b(digest_size=16)  # over the whole recipe

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Discard what is unfinished, and what is finished too if an error leads out of the block."""
        if error is not None or not self._over:
            self.discard()

    def write(self, *data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes, in one piece or several; about a MiB a call is best.

        Raises:
            NoSpace, DiskFailed, ReadOnly: the upload is lost; nothing of it is visible.
            Closed: the upload was finished or discarded before.
        """
        if self._over:
            raise Closed("this upload is over; begin a new one")
        try:
            self._take([bytes(piece) for piece in data])
        except BaseException:
            self.discard()  # half taken: who went on would have a wrong recipe proven by a right hash
            raise

    def _take(self, pieces: Sequence[bytes]) -> None:
        updates = [self._hash.update, *(tap.update for tap in self._taps)]
        if sum(map(len, pieces)) >= _ASIDE_BYTES:
            self._hashing = [_submit(self._parts.hashers, _feed, update, pieces) for update in updates]
        else:
            for update in updates:
                _feed(update, pieces)
        for piece in pieces:
            for start in range(0, len(piece), _STEP_BYTES):
                self._add_to_window(memoryview(piece)[start : start + _STEP_BYTES])
        self._settle_hashing()

    def _settle_hashing(self) -> None:
        """Wait until every hash has seen what came."""
        hashing, self._hashing = self._hashing, []
        for future in hashing:
            future.result()

    def _add_to_window(self, step: memoryview) -> None:
        self.size += len(step)
        self._window.add(step, self._chunker.wants)
        if self.size > self._parts.settings.inline_bytes and len(self._window) >= self._chunker.wants:
            self._cut(final=False)

    def finish(self, expect: Digest | None = None) -> Staged:
        """Prove the digest and make the bytes durable; visible only once a change keeps the result.

        Raises:
            Mismatch: the bytes do not hash to `expect`; the upload is discarded.
            NoSpace, DiskFailed, ReadOnly, Busy, Closed: as for `write`.
        """
        if self._over:
            raise Closed("this upload is over; begin a new one")
        digest = Digest("sha256", self._hash.digest())
        if expect is not None and expect != digest:
            self.discard()
            raise Mismatch(f"the bytes hash to {digest}, not to {expect}; send the right bytes or digest")
        created = int(self._parts.clock())
        if self.size <= self._parts.settings.inline_bytes:
            self._over = True
            return Staged(BlobEntry(digest, self.size, created, inline=bytes(self._window.view())), self._parts.owner)
        blob = BlobEntry(digest, self.size, created, self._recipe)
        try:
            self._cut(final=True)
            staged = self._prove(blob)
        except BaseException:
            self.discard()
            raise
        self._release()
        return staged

    def discard(self) -> None:
        """Drop everything; give the space of unfiled bytes back. What a change kept meanwhile stays."""
        if self._over:
            self._forget()
            return
        self._over = True
        wait(self._hashing)
        with contextlib.suppress(CasError):
            self._settle_append()
        with contextlib.suppress(CasError):
            self._settle_pending()
        if self._writer is not None:
            self._writer.roll_back(self._kept)
        self._release()
        self._forget()

    def _forget(self) -> None:
        """Take what was filed of an upload that nobody kept out of the index; its owner's death would do it too."""

        def forget(edit: Edit, _draft: Draft) -> None:
            if edit.has_upload(self._recipe):
                edit.delete_recipe(self._recipe)

        if self._filed:
            self._filed = False
            with contextlib.suppress(CasError):
                self._parts.committer.submit(forget)

    def _release(self) -> None:
        self._over = True
        self._window.clear()
        self._fresh.clear()
        writer, self._writer = self._writer, None
        if writer is not None:
            self._parts.packs.give_back(writer)

    def _cut(self, *, final: bool) -> None:
        self._window.drop(self._take_chunks(self._window.view(), final=final))
        settings = self._parts.settings
        if self._run.stored >= settings.run_bytes or len(self._run.refs) >= settings.segment_chunks:
            self._end_run()

    def _take_chunks(self, window: memoryview, *, final: bool) -> int:
        at, chunks = 0, []
        for length in self._chunker.cut(window, final=final):
            chunks.append(window[at : at + length])
            at += length
        keys = [xxhash.xxh3_128_digest(chunk) for chunk in chunks]
        rows = self._parts.index.read(lambda view: view.chunks(keys))
        for chunk, key, candidates in zip(chunks, keys, rows, strict=True):
            ref, extent = self._match(chunk, key, candidates) or self._add(chunk, key)
            self._run.refs.append(ref)
            self._run.extents.append(extent)
        self._append()
        return at

    def _match(self, chunk: memoryview, key: bytes, candidates: Sequence[ChunkRow]) -> tuple[ChunkRef, Extent] | None:
        for fresh in self._fresh.get(key, ()):
            if fresh.data is None:
                self._settle_append()
            data = self._stored(fresh.extent) if fresh.data is None else bytearray(fresh.data)
            if _same(data, chunk):
                return fresh.ref, fresh.extent
        for row in candidates:
            usable = row.state is ChunkState.GOOD and row.extent.raw == len(chunk)
            if usable and _same(self._stored(row.extent), chunk):
                return ChunkRef(key, row.salt, len(chunk)), row.extent
        return None

    def _stored(self, extent: Extent) -> bytearray | None:
        """Return a stored chunk's raw bytes, None if unreadable."""
        try:
            stored = self._parts.files.read(extent.pack, extent.offset, extent.stored)
            if extent.codec is Codec.RAW:
                return stored
            return bytearray(self._parts.codec.decode(stored, extent.raw))
        except (FileNotFoundError, Damaged, DiskFailed):
            return None  # then these bytes are stored anew; a blob is healed when it is pushed itself

    def _add(self, chunk: memoryview, key: bytes) -> tuple[ChunkRef, Extent]:
        compress = self._chunker.profile is not None and self._chunker.profile.compress
        codec, stored = self._parts.codec.encode(chunk) if compress else (Codec.RAW, chunk)
        writer = self._lend()
        ref = ChunkRef(key, int.from_bytes(self._parts.disk.random(4), "big"), len(chunk))
        extent = Extent(writer.pack, self._base + self._buffered, len(stored), len(chunk), codec)
        entry = ChunkEntry(
            key, ref.salt, extent.offset, len(stored), len(chunk), codec, xxhash.xxh3_64_intdigest(stored)
        )
        self._buffers.append(stored)
        self._buffered += len(stored)
        self._run.entries.append(entry)
        self._run.stored += len(stored)
        fresh = _Fresh(ref, extent, chunk)
        self._fresh.setdefault(key, []).append(fresh)
        self._in_window.append(fresh)
        self._wrote = True
        return ref, extent

    def _append(self) -> None:
        if not self._buffers:
            return
        settings = self._parts.settings
        free, whole = self._parts.disk.free_bytes(self._parts.layout.root)
        if free < self._buffered + min(settings.reserve_bytes, int(whole * settings.reserve_share)):
            raise NoSpace("the disk is full (its last part is kept for deletes); free some space and send it again")
        self._settle_append()
        buffers, self._buffers = self._buffers, []
        self._base, self._buffered = self._base + self._buffered, 0
        if self._parts.copies.acquire(blocking=False):
            self._append_aside(b"".join(buffers))
        else:
            self._lend().append(buffers)
        for fresh in self._in_window:
            fresh.data = None
        self._in_window = []

    def _append_aside(self, data: bytes) -> None:
        """Write a copy of the window in another thread, so that the next one can be cut meanwhile."""

        def append(writer: PackWriter) -> None:
            try:
                writer.append([data])
            finally:
                self._parts.copies.release()

        try:
            self._appending = _submit(self._parts.appenders, append, self._lend())
        except Closed:
            self._parts.copies.release()
            raise

    def _settle_append(self) -> None:
        appending, self._appending = self._appending, None
        if appending is not None:
            appending.result()

    def _lend(self) -> PackWriter:
        if self._writer is None:
            self._writer = self._parts.packs.take()
            self._kept = self._base = self._writer.end
        return self._writer

    def _end_run(self) -> None:
        """Write the run's record; sync and file it in the background, at most one run behind."""
        filing = self._write_record()
        self._settle_pending()
        self._filed = True
        writer = self._lend()
        if writer.end >= self._parts.settings.pack_bytes:
            self._writer = None  # full: it goes back once this run is filed, and the next run begins a new one
        self._pending = _submit(self._parts.syncers, self._sync_and_file, writer, filing), filing

    def _write_record(self) -> Filing:
        self._settle_append()
        run, writer = self._run, self._lend()
        segment = Segment(self._recipe, run.start, tuple(run.refs))
        self._chunks.update(pack_refs(segment.refs))
        end = writer.commit(Body(chunks=run.entries, segments=[segment]))
        self._run = _Run(run.start + segment.raw)
        self._kept = self._base = end
        return Filing(writer.pack, end, tuple(run.entries), segment, tuple(coalesce(run.extents)))

    def _sync_and_file(self, writer: PackWriter, filing: Filing) -> None:
        owner, recipe = self._parts.owner, self._recipe

        def file(edit: Edit, _draft: Draft) -> None:
            filing.put(edit, owner)
            edit.put_upload(recipe, owner)

        try:
            writer.sync()
            self._parts.committer.run(file)
        finally:
            if writer is not self._writer:
                self._parts.packs.give_back(writer)

    def _settle_pending(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            future, filing = pending
            future.result()
            for entry in filing.entries:  # the index knows them now
                self._fresh.pop(entry.key, None)

    def _prove(self, blob: BlobEntry) -> Staged:
        self._settle_pending()
        owner = self._parts.owner
        old = self._parts.index.read(lambda view: view.sound_blob(blob.digest))
        if old is not None and not self._wrote:
            if self._parts.index.read(lambda view: self._stands_on_the_same(view, old)):
                return Staged(blob, owner, relies=True)  # every byte is here already and proven: nothing to write
            self._wrote = True  # it stands on other chunks, which may be damaged; on ours it is whole (I9)
        filing = None
        if self._run.refs:  # else the last run ended with the last byte
            filing = self._write_record()
            self._lend().sync()
        return Staged(blob, owner, filing, self._wrote)

    def _stands_on_the_same(self, view: View, old: BlobEntry) -> bool:
        """Whether the blob that is here has this upload's chunks, each of which compared equal a moment ago."""
        ours, theirs, at = self._chunks.copy(), hashlib.blake2b(digest_size=16), 0
        ours.update(pack_refs(tuple(self._run.refs)))
        while at < old.size:
            stretch = view.stretch(old.recipe, at)
            if stretch is None or stretch.start != at:
                return False
            theirs.update(pack_refs(stretch.refs))
            at += sum(ref.raw for ref in stretch.refs)
        return ours.digest() == theirs.digest()


def _submit(pool: ThreadPoolExecutor, work: Callable[..., object], *arguments: object) -> Future[object]:
    try:
        return pool.submit(work, *arguments)
    except RuntimeError:  # how a pool says that it was shut down
        raise Closed("this store was closed; open it anew") from None


def _feed(update: Callable[[bytes], object], pieces: Sequence[bytes]) -> None:
    for piece in pieces:
        update(piece)


def _same(stored: bytearray | None, chunk: memoryview) -> bool:
    """Compare by memcmp: with a memoryview on both sides Python would compare item by item, twenty times slower."""
    return stored is not None and stored.__eq__(chunk) is True
