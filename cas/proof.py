"""Stored bytes against the checksums that records give them: many chunks with one read, in the order they lie there.

Layer: L2. Only acquits: of what is not as it should be, whoever asks finds out why, a chunk at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import xxhash

from cas.errors import DiskFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cas.records import ChunkEntry

    Read = Callable[[int, int], bytearray]  # (size, offset) → the bytes, fewer at the end of the file

_WINDOW_BYTES: Final = 1 << 20  # stays in a core's cache from the read to the sum


def doubtful(entries: Iterable[ChunkEntry], read: Read, told: Callable[[int], object] = bool) -> Iterator[ChunkEntry]:
    """Yield the chunks whose stored bytes do not have their checksum, or could not be read.

    Args:
        entries: chunks of one pack.
        read: reads stored bytes of it.
        told: called with a number of stored bytes after they were looked at.
    """
    for window in _windows(sorted(entries, key=_offset)):
        first = window[0].offset
        try:
            data = read(window[-1].offset + window[-1].stored - first, first)
        except DiskFailed:
            data = bytearray()
        with memoryview(data) as view:
            bad = [
                entry
                for entry in window
                if xxhash.xxh3_64_intdigest(view[entry.offset - first : entry.offset - first + entry.stored])
                != entry.checksum
            ]
        told(sum(entry.stored for entry in window))
        yield from bad


def _offset(entry: ChunkEntry) -> int:
    return entry.offset


def _windows(entries: list[ChunkEntry]) -> Iterator[list[ChunkEntry]]:
    """Group chunks that follow each other closely: each group is one read, and at least one chunk."""
    window: list[ChunkEntry] = []
    for entry in entries:
        if window and entry.offset + entry.stored - window[0].offset > _WINDOW_BYTES:
            yield window
            window = []
        window.append(entry)
    if window:
        yield window
