"""Where bytes lie: stored pieces of a blob inside packs, and the arithmetic of ranges over them.

Layer: L0, pure. Ranges are half-open. An extent is what one read or one `sendfile` can serve.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Codec(IntEnum):
    """How stored bytes relate to raw bytes. On disk: append only."""

    RAW = 0
    ZSTD = 1


class Extent(NamedTuple):
    """Bytes `[offset, offset + stored)` of one pack, standing for `raw` bytes of a blob."""

    pack: int
    offset: int
    stored: int
    raw: int
    codec: Codec


def coalesce(extents: Iterable[Extent]) -> list[Extent]:
    """Join raw extents that lie back to back in one pack: the fewer extents, the longer each `sendfile`."""
    joined: list[Extent] = []
    size = 0  # of the last one, with what was joined to it; made anew once, since a rebuild joins millions
    for extent in extents:
        last = joined[-1] if joined else None
        if (
            last is not None
            and last.codec is extent.codec is Codec.RAW
            and last.pack == extent.pack
            and last.offset + size == extent.offset
            and size + extent.stored < 1 << 32
        ):
            size += extent.stored
            continue
        _lengthen(joined, size)
        joined.append(extent)
        size = extent.stored
    _lengthen(joined, size)
    return joined


def _lengthen(joined: list[Extent], size: int) -> None:
    if joined and joined[-1].stored != size:
        joined[-1] = joined[-1]._replace(stored=size, raw=size)


@dataclass(frozen=True, slots=True)
class FileRange:
    """Bytes `[offset, offset + count)` of an open file."""

    fd: int
    offset: int
    count: int


Part = tuple[Extent, int, int]
"""Raw bytes `[first, last)` of an extent, relative to its start."""


def adjacent(extents: Iterable[Extent]) -> list[list[Extent]]:
    """Put extents that lie back to back in one pack into one row: one read takes their stored bytes."""
    rows: list[list[Extent]] = []
    for extent in extents:
        last = rows[-1][-1] if rows else None
        if last is not None and (last.pack, last.offset + last.stored) == (extent.pack, extent.offset):
            rows[-1].append(extent)
        else:
            rows.append([extent])
    return rows


def overlap(extents: Iterable[Extent], start: int, stop: int) -> Iterator[Part]:
    """Yield `(extent, first, last)` for each extent that touches raw bytes `[start, stop)`, relative to its start."""
    at = 0
    for extent in extents:
        if at >= stop:
            return
        first, last = max(start - at, 0), min(stop - at, extent.raw)
        if first < last:
            yield extent, first, last
        at += extent.raw
