"""What a store holds, counted, and what that takes on the disk.

Layer: L7.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cas.scan import pack_paths
from cas.tables import PackState

if TYPE_CHECKING:
    from cas.parts import Parts
    from cas.view import View


@dataclass(frozen=True, slots=True)
class Stats:
    """What a store holds. Sizes in bytes; `stored_bytes` is what lies on the disk, packs and index.

    Attributes:
        lost: blobs that were found damaged, and are answered as missing until their bytes are pushed again.
        checked: every pack was read through, or else written, after this (Unix seconds); 0 where there is none.
        unchecked_packs: packs that nobody read through since they were written.
        doubted: packs in which somebody who read saw damage, or that are missing, and that nobody looked into since.
    """

    blobs: int
    chunks: int
    packs: int
    names: int
    logical_bytes: int
    pack_bytes: int
    index_bytes: int
    lost: int = 0
    checked: int = 0
    unchecked_packs: int = 0
    doubted: int = 0

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
        counted = map(view.count, ("blobs", "chunks", "packs", "refs", "lost"))
        return (*counted, view.number("logical_bytes"), sum(map(bool, view.checked().values())))

    blobs, chunks, packs, names, lost, logical, checked = parts.index.read(counts)
    pack_bytes = 0
    for _, path in pack_paths(parts.layout):
        with contextlib.suppress(FileNotFoundError):
            pack_bytes += path.stat().st_size
    index_bytes = sum(path.stat().st_size for path in parts.layout.index.iterdir())
    since = last_read(parts)
    return Stats(
        blobs,
        chunks,
        packs,
        names,
        logical,
        pack_bytes,
        index_bytes,
        lost,
        int(min(filter(None, since.values()), default=0)),
        max(len(since) - checked, 0),
        sum(not when for when in since.values()),
    )


def last_read(parts: Parts) -> dict[int, float]:
    """Return of each pack when it was last read through, or else written, in Unix seconds; of a doubted one, 0."""
    rows, checked = parts.index.read(lambda view: (view.packs(), view.checked()))
    found: dict[int, float] = {}
    for row in rows:
        if row.committed and row.state is not PackState.DYING:
            try:
                marked = checked.get(row.pack)
                found[row.pack] = parts.layout.pack(row.pack).stat().st_mtime if marked is None else marked
            except OSError:
                found[row.pack] = 0  # gone: not a matter of time
    return found
