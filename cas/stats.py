"""What a store holds, counted, and what that takes on the disk.

Layer: L7.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cas.era import eras
from cas.scan import pack_paths
from cas.tables import DOUBTED, PackState

if TYPE_CHECKING:
    from cas.parts import Parts
    from cas.view import View

_BELIEVED_S: Final = 86400.0  # a time so far in the future was told by a clock that was set back since
_NOBODY_KNOWS: Final = 1.0  # long ago, and not DOUBTED


@dataclass(frozen=True, slots=True)
class Stats:
    """What a store holds. Sizes in bytes; `stored_bytes` is what lies on the disk, packs and index.

    Attributes:
        lost: blobs that were found damaged, and are answered as missing until their bytes are pushed again.
        checked: every pack was read through, or else written, after this (Unix seconds); 0 where there is none, 1 where
            nobody knows, since that was while the clock was ahead.
        unchecked_packs: packs that nobody read through since they were written.
        doubted: packs in which somebody who read saw damage, or that are missing, and that nobody looked into since;
            and those found damaged that nobody mended.
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
        blobs, chunks, packs, names, lost = map(view.count, ("blobs", "chunks", "packs", "refs", "lost"))
        return (
            *(blobs, chunks, packs, names - len(eras(view)), lost),
            view.number("logical_bytes"),
            sum(DOUBTED < when <= latest for when in view.checked().values()),
        )

    latest = _latest(parts)
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
    """Return of each pack when it was last read through, or else written, in Unix seconds; of a doubted one, 0.

    What is told from the future was told by a clock that was wrong: who read then never did, and what was written then
    may be of any age.
    """
    latest = _latest(parts)
    rows, checked = parts.index.read(lambda view: (view.packs(), view.checked()))
    found: dict[int, float] = {}
    for row in rows:
        if row.committed and row.state is not PackState.DYING:
            try:
                marked = checked.get(row.pack)
                if marked is None or marked > latest:
                    written = parts.layout.pack(row.pack).stat().st_mtime
                    found[row.pack] = written if written <= latest else _NOBODY_KNOWS
                else:
                    found[row.pack] = marked
            except OSError:
                found[row.pack] = 0  # gone: not a matter of time
    return found


def _latest(parts: Parts) -> float:
    """Return what a clock that is right may tell at most; those of machines differ a little."""
    return parts.clock() + _BELIEVED_S
