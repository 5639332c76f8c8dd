"""What a collection that only looks would take: chunks and recipes. A compaction that only looks goes by it.

Layer: L2, pure. Ids of chunks come in their order, so they are kept packed, twenty bytes each, and are found by halves.
Knows nothing of why they go, nor of where they lie.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from cas.tables import CHUNK_KEY

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from cas.records import ChunkRef

_SIZE = CHUNK_KEY.size


class Doomed:
    """What is there still and counts as gone."""

    def __init__(self, recipes: Collection[int] = ()) -> None:
        self.recipes = frozenset(recipes)
        self._chunks = bytearray()

    def add(self, chunks: Iterable[bytes]) -> None:
        """Add chunks, whose ids are greater than all before."""
        for chunk in chunks:
            self._chunks += chunk

    def has(self, chunk: bytes) -> bool:
        """Whether a chunk of this id goes."""
        at = bisect_left(range(len(self._chunks) // _SIZE), chunk, key=self._id)
        return self._id(at) == chunk

    def names(self, ref: ChunkRef) -> bool:
        """Whether the chunk that is referred to goes."""
        return self.has(CHUNK_KEY.pack(ref.key, ref.salt))

    def _id(self, at: int) -> bytes:
        return bytes(self._chunks[at * _SIZE : (at + 1) * _SIZE])
