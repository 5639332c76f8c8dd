"""What a store lost, kept in its backup: the copy of an index is told where the backup has it still.

Layer: L5. A blob that was found damaged in the store may be whole in an earlier copy. Then the new copy goes on having
it: its recipe, its chunks that are nowhere else, and the packs in which these lie, until the store has it again or no
name holds it any more. Knows two indexes and no file; which bytes are good is asked by whoever reads them.
"""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from cas.extent import coalesce
from cas.records import Segment
from cas.tables import DOUBTED, ChunkState, PackState

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from cas.digest import Digest
    from cas.index import Edit, Index
    from cas.records import BlobEntry
    from cas.tables import ChunkRow, PackRow
    from cas.view import View

_BLOBS: Final = 1000  # looked up in one transaction
_SEGMENTS: Final = 64  # entered or looked through in one


class Retained(NamedTuple):
    """What became of the lost blobs that a name still holds.

    Attributes:
        lost: those that the copy has no more than the store.
        kept: those that the copy goes on having.
        packs: what this takes of the earlier copy's packs.
    """

    lost: tuple[Digest, ...] = ()
    kept: tuple[Digest, ...] = ()
    packs: tuple[PackRow, ...] = ()


class _Piece(NamedTuple):
    """A segment as an earlier copy has it, with where its chunks lie there."""

    segment: Segment
    rows: tuple[ChunkRow, ...]


def retain(copy: Index, earlier: Index | None) -> Retained:
    """Enter into the copy of an index what its store lost and an earlier copy has whole. Nobody else uses either.

    Raises:
        Damaged: a row is not what was written.
        NoSpace, DiskFailed: the copy cannot be finished.
    """
    lost: list[Digest] = []
    kept: list[Digest] = []
    there = [] if earlier is None else earlier.read(_firm_packs)
    packs, needed = {row.pack for row in there}, set[int]()
    doubted = copy.read(_doubted)  # a mend that was ended has named nothing in them bad yet
    for blob in _lost(copy):
        found = None if earlier is None else _whole(earlier, blob.digest, packs)
        if earlier is None or found is None:
            lost.append(blob.digest)
            continue
        for pieces in _batches(_pieces(earlier, found, packs)):
            needed |= copy.write(partial(_enter, pieces=pieces, doubted=doubted))
        copy.write(partial(_find, lost=blob, found=found))
        kept.append(blob.digest)
    rows = copy.write(partial(_name, rows=[row for row in there if row.pack in needed]))
    _refresh_hints(copy, {row.pack for row in rows} | (doubted if kept else set()))
    return Retained(tuple(lost), tuple(kept), tuple(rows))


def _firm_packs(view: View) -> list[PackRow]:
    return [row for row in view.packs() if row.state is not PackState.DYING]


def _doubted(view: View) -> set[int]:
    return {pack for pack, when in view.checked().items() if when == DOUBTED}


def _lost(copy: Index) -> Iterator[BlobEntry]:
    last: Digest | None = None
    while blobs := copy.read(lambda view, last=last: view.lost_after(last, _BLOBS)):  # type: ignore[misc]
        last = blobs[-1].digest
        yield from (blob for blob in blobs if copy.read(lambda view, blob=blob: view.is_held(blob.digest)))  # type: ignore[misc]


def _whole(earlier: Index, digest: Digest, packs: Collection[int]) -> BlobEntry | None:
    """Return a blob that can be read to its end in the earlier copy, as far as its index knows."""
    blob = earlier.read(lambda view: view.blob(digest))
    if blob is None or blob.inline is not None:
        return blob
    return blob if sum(piece.segment.raw for piece in _pieces(earlier, blob, packs)) == blob.size else None


def _pieces(earlier: Index, blob: BlobEntry, packs: Collection[int]) -> Iterator[_Piece]:
    """Yield a blob's segments in order, up to the first that is not whole."""
    at = 0
    while blob.inline is None and at < blob.size:
        piece = earlier.read(lambda view, at=at: _piece(view, blob.recipe, at))  # type: ignore[misc]
        if piece is None or any(row.extent.pack not in packs for row in piece.rows):
            return
        yield piece
        at += piece.segment.raw


def _piece(view: View, recipe: int, at: int) -> _Piece | None:
    stretch = view.stretch(recipe, at)
    if stretch is None or stretch.start != at or not stretch.packed_refs:
        return None
    refs = stretch.refs
    rows = [row for row in map(view.chunk, refs) if row is not None and row.state is not ChunkState.BAD]
    return _Piece(Segment(recipe, at, refs), tuple(rows)) if len(rows) == len(refs) else None


def _batches(pieces: Iterator[_Piece]) -> Iterator[list[_Piece]]:
    while batch := list(islice(pieces, _SEGMENTS)):
        yield batch


def _enter(edit: Edit, pieces: Iterable[_Piece], doubted: Collection[int]) -> set[int]:
    """Enter segments; of their chunks those that the store has nowhere for sure. Return the packs where these lie."""
    packs: set[int] = set()
    for segment, rows in pieces:
        extents = []
        for ref, row in zip(segment.refs, rows, strict=True):
            known = edit.chunk(ref)
            if known is None or known.state is not ChunkState.GOOD or known.extent.pack in doubted:
                edit.put_chunk(ref, row.extent)
                packs.add(row.extent.pack)
                known = row
            extents.append(known.extent)
        edit.put_segment(segment, coalesce(extents))
    return packs


def _find(edit: Edit, lost: BlobEntry, found: BlobEntry) -> None:
    if lost.recipe not in (0, found.recipe):
        edit.delete_recipe(lost.recipe)
    edit.put_blob(found)


def _name(edit: Edit, rows: Iterable[PackRow]) -> list[PackRow]:
    """Name packs that the store has no more; return which those are."""
    named = []
    for row in rows:
        known = edit.pack(row.pack)
        if known is None or known.state is PackState.DYING:
            edit.put_pack(row)
            named.append(row)
    return named


def _refresh_hints(copy: Index, packs: Collection[int]) -> None:
    """Send no reader into these packs for what has moved since: it was no lie while they were gone."""
    after = b""
    while packs and (found := copy.read(lambda view, after=after: view.hints(after, _SEGMENTS))):  # type: ignore[misc]
        after = found[-1][0]
        if stale := [key for key, places in found if not places.isdisjoint(packs)]:
            copy.write(partial(_refresh, keys=stale))


def _refresh(edit: Edit, keys: Iterable[bytes]) -> None:
    for key in keys:
        edit.refresh_hints(key)
