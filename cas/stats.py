"""What a store holds, counted, and what that takes on the disk.

Layer: L7.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cas.scan import pack_paths

if TYPE_CHECKING:
    from cas.parts import Parts
    from cas.view import View


@dataclass(frozen=True, slots=True)
class Stats:
    """What a store holds. Sizes in bytes; `stored_bytes` is what lies on the disk, packs and index."""

    blobs: int
    chunks: int
    packs: int
    names: int
    logical_bytes: int
    pack_bytes: int
    index_bytes: int

    @property
    def stored_bytes(self) -> int:
        """Bytes on disk."""
        return self.pack_bytes + self.index_bytes

    @property
    def dedup_ratio(self) -> float:
        """How many pushed bytes one stored byte stands for; 0 for an empty store."""
        return self.logical_bytes / self.stored_bytes if self.stored_bytes else 0.0


def stats(parts: Parts) -> Stats:
    """Return what the store holds and what that takes on the disk."""

    def counts(view: View) -> tuple[int, ...]:
        return (*map(view.count, ("blobs", "chunks", "packs", "refs")), view.number("logical_bytes"))

    blobs, chunks, packs, names, logical = parts.index.read(counts)
    pack_bytes = 0
    for _, path in pack_paths(parts.layout):
        with contextlib.suppress(FileNotFoundError):
            pack_bytes += path.stat().st_size
    index_bytes = sum(path.stat().st_size for path in parts.layout.index.iterdir())
    return Stats(blobs, chunks, packs, names, logical, pack_bytes, index_bytes)
