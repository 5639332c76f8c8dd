"""Stored bytes against what records say of them: many chunks with one read, in the order they lie there.

Layer: L2. Only acquits: of what is not as it should be, whoever asks finds out why, a chunk at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import xxhash

from cas.errors import Damaged, DiskFailed
from cas.extent import Codec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cas.codec import ChunkCodec
    from cas.records import ChunkEntry

    Read = Callable[[int, int], bytearray]  # (size, offset) → the bytes, fewer at the end of the file

_WINDOW_BYTES: Final = 1 << 20  # read at once: stays in a core's cache until it is summed


def doubtful(
    entries: Iterable[ChunkEntry], read: Read, told: Callable[[int], object] = bool, codec: ChunkCodec | None = None
) -> Iterator[ChunkEntry]:
    """Yield the chunks whose stored bytes do not have their checksum, or could not be read.

    Args:
        entries: chunks of one pack.
        read: reads stored bytes of it.
        told: called with a number of stored bytes after they were looked at.
        codec: if given, chunks whose raw bytes do not have their key are doubtful too.
    """
    for window in _windows(sorted(entries, key=_offset)):
        bad = _doubtful(window, read, codec)
        told(sum(entry.stored for entry in window))
        yield from bad


def _doubtful(window: Sequence[ChunkEntry], read: Read, codec: ChunkCodec | None) -> list[ChunkEntry]:
    first, last = window[0].offset, window[-1]
    try:
        data = memoryview(read(last.offset + last.stored - first, first))
    except DiskFailed:
        return list(window)
    stored = [data[entry.offset - first : entry.offset - first + entry.stored] for entry in window]
    sums = map(xxhash.xxh3_64_intdigest, stored)
    bad = [entry for entry, found in zip(window, sums, strict=True) if found != entry.checksum]
    if bad or codec is None:
        return bad
    return [entry for entry, data in zip(window, stored, strict=True) if not _is_true(entry, data, codec)]


def _is_true(entry: ChunkEntry, stored: memoryview, codec: ChunkCodec) -> bool:
    """Whether a chunk's raw bytes have its key."""
    try:
        raw = stored if entry.codec == Codec.RAW else codec.decode(stored, entry.raw)
    except Damaged:
        return False
    return xxhash.xxh3_128_digest(raw) == entry.key


def _offset(entry: ChunkEntry) -> int:
    return entry.offset


def _windows(entries: Sequence[ChunkEntry]) -> Iterator[list[ChunkEntry]]:
    """Group chunks that follow each other closely: each group is one read, and at least one chunk."""
    window: list[ChunkEntry] = []
    for entry in entries:
        if window and entry.offset + entry.stored - window[0].offset > _WINDOW_BYTES:
            yield window
            window = []
        window.append(entry)
    if window:
        yield window
