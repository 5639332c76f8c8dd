"""Bytes out: a blob's range as pieces, raw ones as places in files (for `sendfile`), compressed ones decoded.

Layer: L7. Works segment by segment, each in its own short read transaction. Extents are tried first because they save
the chunk look-ups; where they lead nowhere (a pack moved or was condemned) the chunk list decides (hint and truth).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Self

import xxhash

from cas.errors import Damaged
from cas.extent import Codec, Extent, FileRange, adjacent, coalesce, overlap
from cas.finding import REPAIR
from cas.pins import current
from cas.tables import ChunkState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType

    from cas.digest import Digest
    from cas.extent import Part
    from cas.parts import Parts
    from cas.pins import Pin
    from cas.records import BlobEntry
    from cas.tables import ChunkRow, Stretch
    from cas.view import View

_LOOKS = 3  # for a chunk whose pack was moved between the look and the opening of its file
_BATCH_BYTES = 512 * 1024  # compressed chunks are read together and joined to pieces of about this size


@dataclass(frozen=True, slots=True)
class Packed:
    """So many bytes of a blob, once they are loaded: read and decoded, by any thread, until the reader is closed.

    Loading raises Damaged if they cannot be trusted.
    """

    count: int
    load: Callable[[], list[memoryview]]


class Reader:
    """One blob on its way out. Files it handed out stay open until `close`. Used by one thread at a time.

    What it planned (`Packed`) may be loaded by others meanwhile.
    """

    def __init__(self, parts: Parts, blob: BlobEntry, pin: Pin | None = None) -> None:
        """Not for callers: use `Store.reader`.

        Args:
            parts: of the store.
            blob: what to read.
            pin: taken before `blob` was looked up; None if somebody else sees to it that it stays.
        """
        self._parts, self._blob, self._pin = parts, blob, pin
        if blob.inline is not None:
            self._unpin()
        self._held: dict[int, int] = {}  # pack → descriptor

    @property
    def digest(self) -> Digest:
        """The blob's digest."""
        return self._blob.digest

    @property
    def size(self) -> int:
        """The blob's length in bytes."""
        return self._blob.size

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Let go of the files."""
        held, self._held = self._held, {}
        for pack in held:
            self._parts.files.release(pack)
        self._unpin()

    def _unpin(self) -> None:
        pin, self._pin = self._pin, None
        if pin is not None:
            pin.release()

    def pieces(self, start: int = 0, stop: int | None = None) -> Iterator[FileRange | bytes]:
        """Yield the blob's bytes `[start, stop)` in order, lazily, and decoded where they are compressed.

        Raises:
            Damaged: the next bytes cannot be trusted; whatever was sent so far must not be finished as if whole.
            Unreadable: they cannot be had now.
        """
        for piece in self.plan(start, stop):
            yield b"".join(piece.load()) if isinstance(piece, Packed) else piece

    def plan(self, start: int = 0, stop: int | None = None) -> Iterator[FileRange | Packed | bytes]:
        """Yield what `pieces` does, with what is compressed still to be loaded.

        Raises:
            Damaged: see `pieces`.
        """
        start, stop = max(start, 0), self.size if stop is None else min(stop, self.size)
        if self._blob.inline is not None:
            if start < stop:
                yield self._blob.inline[start:stop]
            return
        while start < stop:
            stretch = self._stretch(start)
            length = stretch.raw
            last = min(stop, stretch.start + length)
            yield from self._segment(stretch, start - stretch.start, last - stretch.start)
            start = last

    def read(self, start: int = 0, stop: int | None = None) -> bytes:
        """Return the blob's bytes `[start, stop)`.

        Raises:
            Damaged: see `pieces`.
        """
        return b"".join(
            bytes(self._load(piece)) if isinstance(piece, FileRange) else piece for piece in self.pieces(start, stop)
        )

    def _load(self, piece: FileRange) -> bytearray:
        data = self._parts.disk.read(piece.fd, piece.count, piece.offset)
        if len(data) != piece.count:
            raise self.ends_early(piece.fd, piece.count - len(data))
        return data

    def ends_early(self, fd: int, missing: int) -> Damaged:
        """Return the error for whoever finds so many bytes of a `FileRange` missing in its file."""
        return self._damage(
            f"a pack ends {missing} bytes early", *(p for p, held in list(self._held.items()) if held == fd)
        )

    def belied(self) -> Damaged:
        """Return the error for whoever read all of it, and found that its bytes have another digest.

        Reads it once more: packs are doubted in which chunks are not what was stored. Where all are now, those that
        were read.

        Raises:
            Damaged, Unreadable: it cannot be read.
        """
        return self._damage("its bytes have another digest", *(set(self._untrue()) or self._held))

    def _untrue(self) -> Iterator[int]:
        """Yield the pack of each chunk whose bytes do not have its key."""
        at = self.size if self._blob.inline is not None else 0
        while at < self.size:
            stretch = self._stretch(at)
            for ref, row in zip(stretch.refs, self._rows(stretch), strict=True):
                extent = row.extent
                stored = self._load(FileRange(self._held[extent.pack], extent.offset, extent.stored))
                raw = stored if extent.codec is Codec.RAW else self._decode(extent, memoryview(stored))
                if xxhash.xxh3_128_digest(raw) != ref.key:
                    yield extent.pack
            at = stretch.start + stretch.raw

    def _stretch(self, at: int) -> Stretch:
        def look(view: View) -> Stretch | None:
            found = view.stretch(self._blob.recipe, at)
            if found is None:  # the same bytes were pushed anew meanwhile, and a proven recipe took this one's place
                self._blob = view.blob(self._blob.digest) or self._blob
                found = view.stretch(self._blob.recipe, at)
            return found

        self._keep_up()
        stretch = self._parts.index.read(look)
        if stretch is None or at >= stretch.start + stretch.raw:
            raise self._damage(f"its recipe has a hole at byte {at}")
        return stretch

    def _keep_up(self) -> None:
        """Rely on the present instead of the past while the blob is there, so that slow readers hold nobody up."""
        old = self._pin
        if old is None or self._parts.index.read(current) == old.epoch:
            return
        pin = self._parts.pins.take()
        now = self._parts.index.read(lambda view: view.sound_blob(self._blob.digest))
        if now is None:
            pin.release()  # deleted: as it was, it is there to the end
        else:
            self._blob, self._pin = now, pin
            old.release()

    def _segment(self, stretch: Stretch, start: int, stop: int) -> Iterator[FileRange | Packed]:
        extents = list(stretch.extents)
        whole = sum(extent.raw for extent in extents) == stretch.raw
        if not whole or not all(self._open(extent.pack) for extent in {e.pack: e for e in extents}.values()):
            extents = self._resolve(stretch)
        packed: list[Part] = []
        size = 0
        for extent, first, last in overlap(extents, start, stop):
            if extent.codec is Codec.RAW:
                if packed:
                    yield Packed(size, partial(self._unpacked, packed))
                    packed, size = [], 0
                yield FileRange(self._held[extent.pack], extent.offset + first, last - first)
                continue
            packed.append((extent, first, last))
            size += last - first
            if size >= _BATCH_BYTES:
                yield Packed(size, partial(self._unpacked, packed))
                packed, size = [], 0
        if packed:
            yield Packed(size, partial(self._unpacked, packed))

    def _unpacked(self, parts: Sequence[Part]) -> list[memoryview]:
        """Return the raw bytes of parts of compressed extents, as they lie; what lies back to back is read at once."""
        raw: list[memoryview] = []
        for row in adjacent(extent for extent, _, _ in parts):
            stored = self._load(FileRange(self._held[row[0].pack], row[0].offset, sum(each.stored for each in row)))
            rest = memoryview(stored)
            for extent in row:
                # One call for all of them costs more: it makes a context of its own, and takes memory not used before.
                raw.append(memoryview(self._decode(extent, rest[: extent.stored])))
                rest = rest[extent.stored :]
        return [each[first:last] for each, (_, first, last) in zip(raw, parts, strict=True)]

    def _decode(self, extent: Extent, stored: memoryview) -> bytes:
        try:
            return self._parts.codec.decode(stored, extent.raw)
        except Damaged as error:
            raise self._damage(f"{error} (pack {extent.pack:016x}, byte {extent.offset})", extent.pack) from error

    def _open(self, pack: int) -> bool:
        if pack in self._held:
            return True
        try:
            self._held[pack] = self._parts.files.acquire(pack)
        except FileNotFoundError:
            return False
        return True

    def _resolve(self, stretch: Stretch) -> list[Extent]:
        return coalesce(row.extent for row in self._rows(stretch))

    def _rows(self, stretch: Stretch) -> list[ChunkRow]:
        """Return where its chunks lie, their packs opened."""
        gone: list[int] = []
        for _ in range(_LOOKS):
            rows = self._parts.index.read(lambda view: [view.chunk(ref) for ref in stretch.refs])
            there = [row for row in rows if row is not None and row.state is not ChunkState.BAD]
            if len(there) < len(rows):
                break
            gone = [pack for pack in {row.extent.pack for row in there} if not self._open(pack)]
            if not gone:
                return there
        raise self._damage("a chunk of it is missing", *gone)

    def _damage(self, what: str, *packs: int) -> Damaged:
        self._parts.files.doubt(packs)
        return Damaged(f"blob {self.digest} is damaged: {what}; {REPAIR}")
