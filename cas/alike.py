"""Whether what arrives is stored already: bytes compared with bytes (I3).

Layer: L7. What was pushed before mostly comes again in the order it was stored in, so a window's chunks lie back to
back in one pack: they are read together, into memory that was used before, and past the page cache where they were
written past it; there the next ones are read meanwhile. Whatever that does not prove is looked at chunk by chunk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cas.direct import BLOCK
from cas.errors import Damaged, DiskFailed
from cas.extent import Codec
from cas.tables import ChunkState
from cas.track import Track, same_memory

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cas.extent import Extent
    from cas.parts import Parts
    from cas.tables import ChunkRow


class Alike:
    """What is stored, for one upload. For one thread at a time; to be closed."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._pack = self._direct = -1  # the pack that was last read past the page cache, and its descriptor
        self._track = Track(parts.disk, parts.appenders, parts.steps)
        self._end = -1, 0  # of what was compared last: a pack, and where in it

    def close(self) -> None:
        """Close what is open."""
        self._track.close()
        pack, self._pack = self._pack, -1
        if pack >= 0 and self._direct >= 0:
            self._parts.disk.close(self._direct)

    def find(
        self, chunks: Sequence[memoryview], candidates: Sequence[Sequence[ChunkRow]], *, past_cache: bool
    ) -> list[ChunkRow | None]:
        """Return for each chunk the first candidate that is stored as it is, if it has the same bytes; else None.

        Args:
            chunks: in memory that may be written.
            candidates: what the index has for the key of each.
            past_cache: whether what is read now is unlikely to be asked for soon.
        """
        found: list[ChunkRow | None] = [None] * len(chunks)
        for first, rows in _in_a_row(chunks, candidates):
            alike = self._compare(chunks[first : first + len(rows)], rows, past_cache=past_cache)
            found[first : first + len(rows)] = [
                row if is_alike else None for row, is_alike in zip(rows, alike, strict=True)
            ]
        return found

    def is_alike(self, chunk: memoryview, row: ChunkRow) -> bool:
        """Whether a chunk has the bytes of a candidate."""
        return _is_usable(row, chunk) and same(self.stored(row.extent), chunk)

    def stored(self, extent: Extent) -> bytearray | None:
        """Return a stored chunk's raw bytes, None if unreadable."""
        try:
            stored = self._parts.files.read(extent.pack, extent.offset, extent.stored)
            if extent.codec is Codec.RAW:
                return stored
            return bytearray(self._parts.codec.decode(stored, extent.raw))
        except Damaged:
            self._parts.files.doubt([extent.pack])
        except (FileNotFoundError, DiskFailed):
            pass
        return None  # then these bytes are stored anew; a blob is healed when it is pushed itself

    def _compare(self, chunks: Sequence[memoryview], rows: Sequence[ChunkRow], *, past_cache: bool) -> list[bool]:
        pack, start = rows[0].extent.pack, rows[0].extent.offset
        stop = start + sum(row.extent.stored for row in rows)
        if past_cache and self._is_on_track(pack, start, stop):
            alike = [self._track.is_same(chunk, row.extent.offset) for chunk, row in zip(chunks, rows, strict=True)]
        else:
            alike = self._compare_at_once(chunks, pack, start, stop - start, past_cache=past_cache)
        self._end = pack, stop
        return alike

    def _is_on_track(self, pack: int, start: int, stop: int) -> bool:
        """Tell whether stored bytes are being read ahead; begin to where they go on where the last ones ended."""
        if self._pack == pack and self._track.reaches(start, stop):
            return True
        if self._end != (pack, start):
            return False
        row = self._parts.index.read(lambda view: view.pack(pack))
        if row is None or row.committed < stop:
            return False
        return self._track.begin(self._direct_of(pack), start, row.committed)

    def _compare_at_once(
        self, chunks: Sequence[memoryview], pack: int, start: int, size: int, *, past_cache: bool
    ) -> list[bool]:
        with self._parts.windows.lent(start % BLOCK + size + BLOCK) as memory:
            at = self._read(pack, start, size, memory, past_cache=past_cache)
            if at is None:
                return [False] * len(chunks)
            alike = []
            for chunk in chunks:
                alike.append(same_memory(memory[at : at + len(chunk)], chunk))
                at += len(chunk)
            return alike

    def _read(self, pack: int, start: int, size: int, memory: memoryview, *, past_cache: bool) -> int | None:
        """Read stored bytes into memory; return where they begin there, None if they are not to be had."""
        disk = self._parts.disk
        try:
            if past_cache:
                ragged = start % BLOCK
                whole = memory[: -(-(ragged + size) // BLOCK) * BLOCK]
                if disk.read_direct(self._direct_of(pack), whole, start - ragged) >= ragged + size:
                    return ragged
            self._parts.files.read_into(pack, start, memory[:size])
        except Damaged:
            self._parts.files.doubt([pack])
            return None
        except (FileNotFoundError, DiskFailed):
            return None
        return 0

    def _direct_of(self, pack: int) -> int:
        if self._pack != pack:
            self.close()
            self._direct = self._parts.disk.open_direct(self._parts.layout.pack(pack), reading=True)
            self._pack = pack
        return self._direct


def _in_a_row(
    chunks: Sequence[memoryview], candidates: Sequence[Sequence[ChunkRow]]
) -> Iterator[tuple[int, list[ChunkRow]]]:
    """Yield where chunks begin whose first candidates lie back to back, uncompressed, and these candidates."""
    first: int = 0
    rows: list[ChunkRow] = []
    for number, (chunk, choice) in enumerate(zip(chunks, candidates, strict=True)):
        row = next((one for one in choice if _is_usable(one, chunk) and one.extent.codec is Codec.RAW), None)
        if row is not None and rows and _follows(row.extent, rows[-1].extent):
            rows.append(row)
            continue
        if rows:
            yield first, rows
        first, rows = number, [] if row is None else [row]
    if rows:
        yield first, rows


def _is_usable(row: ChunkRow, chunk: memoryview) -> bool:
    return row.state is ChunkState.GOOD and row.extent.raw == len(chunk)


def _follows(extent: Extent, before: Extent) -> bool:
    return (extent.pack, extent.offset) == (before.pack, before.offset + before.stored)


def same(stored: bytearray | None, chunk: memoryview) -> bool:
    """Compare by memcmp: with a memoryview on both sides Python would compare item by item, twenty times slower."""
    return stored is not None and stored.__eq__(chunk) is True
