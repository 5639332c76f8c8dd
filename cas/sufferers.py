"""Whose a chunk is: the blobs that cannot be whole without it.

Layer: L4. There is no way back from a chunk to those who name it, so all recipes are walked; only damage asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection

    from cas.digest import Digest
    from cas.index import Index
    from cas.records import BlobEntry

_SLICE: Final = 1000


def sufferers(index: Index, chunks: Collection[bytes]) -> dict[bytes, set[BlobEntry]]:
    """Return the blobs of which each of these chunks, given by their ids, is a part."""
    recipes: dict[int, set[bytes]] = {}
    wanted, after = frozenset(chunks), b""
    if not wanted:
        return {}
    while rows := index.read(lambda view, after=after: view.named_chunks(after, _SLICE)):  # type: ignore[misc]
        after = rows[-1][0]
        for _, recipe, named in rows:
            if hit := wanted.intersection(named):
                recipes.setdefault(recipe, set()).update(hit)
    whose: dict[bytes, set[BlobEntry]] = {}
    last: Digest | None = None
    while recipes and (blobs := index.read(lambda view, last=last: view.blobs_after(last, _SLICE))):  # type: ignore[misc]
        last = blobs[-1].digest
        for blob in blobs:
            for chunk in recipes.get(blob.recipe, ()):
                whose.setdefault(chunk, set()).add(blob)
    return whose
