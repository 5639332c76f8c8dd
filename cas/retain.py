"""What a store lost, kept in its backup: the copy of an index is told where the backup has it still.

Layer: L5. A blob that was found damaged in the store may be whole in an earlier copy. Then the new copy goes on having
it: its recipe, its chunks that are nowhere else, and the packs in which these lie, until the store has it again or no
name holds it any more. Knows two indexes and no file; which bytes are good is asked by whoever reads them.
"""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from cas.errors import Damaged
from cas.extent import coalesce
from cas.records import Segment
from cas.tables import DOUBTED, ChunkState, PackState

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

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


class Piece(NamedTuple):
    """A segment as an earlier copy has it, with where its chunks lie there."""

    segment: Segment
    rows: tuple[ChunkRow, ...]


class Earlier:
    """An earlier copy beside the copy of an index that is to take its place. Nobody else uses either.

    Attributes:
        index: of the earlier copy.
        packs: those of its rows that are meant to stay.
        needed: the packs of which something was entered.
    """

    def __init__(self, copy: Index, index: Index) -> None:
        self.index, self._copy = index, copy
        self.packs = {row.pack: row for row in index.read(_firm_packs)}
        self.needed: set[int] = set()

    def whole(self, digest: Digest) -> BlobEntry | None:
        """Return a blob that can be read to its end there, as far as its index knows."""
        blob = self.index.read(lambda view: view.blob(digest))
        if blob is None or blob.inline is not None:
            return blob
        return blob if sum(piece.segment.raw for piece in self.pieces(blob)) == blob.size else None

    def pieces(self, blob: BlobEntry) -> Iterator[Piece]:
        """Yield a blob's segments in order, up to the first that is not whole."""
        at = 0
        while blob.inline is None and at < blob.size:
            piece = self.index.read(lambda view, at=at: _piece(view, blob.recipe, at))  # type: ignore[misc]
            if piece is None or any(row.extent.pack not in self.packs for row in piece.rows):
                return
            yield piece
            at += piece.segment.raw

    def put_back(self, now: BlobEntry, found: BlobEntry, doubted: Collection[int]) -> None:
        """Let a blob be what it was there, in place of what the copy says of it; chunks in doubted packs as well."""
        pieces = self.pieces(found)
        while batch := list(islice(pieces, _SEGMENTS)):
            self.needed |= self._copy.write(partial(_enter, pieces=batch, doubted=doubted))
        self._copy.write(partial(_replace, now=now, found=found))

    def name_packs(self, doubted: Collection[int]) -> tuple[PackRow, ...]:
        """Enter the packs that are needed, and say anew what lies where in these, and in those doubted."""
        rows = self._copy.write(partial(_name, rows=[self.packs[pack] for pack in sorted(self.needed)]))
        _refresh_hints(self._copy, {row.pack for row in rows} | set(doubted))
        return tuple(rows)


def without_index(root: Path, state: str, remedy: str) -> Damaged:
    """Return the error for whoever finds that nobody can tell what an earlier copy has."""
    return Damaged(
        f"the backup in {root} may alone have what this store lost, and its index is {state}; "
        f"run cas fsck {remedy} --root {root}, or choose another folder"
    )


def retain(copy: Index, earlier: Earlier | None) -> Retained:
    """Enter into the copy of an index what its store lost and an earlier copy has whole.

    Raises:
        Damaged: a row is not what was written.
        NoSpace, DiskFailed: the copy cannot be finished.
    """
    lost: list[Digest] = []
    kept: list[Digest] = []
    doubted = copy.read(_doubted)  # a mend that was ended has named nothing in them bad yet
    for blob in _lost(copy):
        found = None if earlier is None else earlier.whole(blob.digest)
        if earlier is None or found is None:
            lost.append(blob.digest)
        else:
            earlier.put_back(blob, found, doubted)
            kept.append(blob.digest)
    packs = () if earlier is None else earlier.name_packs(doubted if kept else ())
    return Retained(tuple(lost), tuple(kept), packs)


def _firm_packs(view: View) -> list[PackRow]:
    return [row for row in view.packs() if row.state is not PackState.DYING]


def _doubted(view: View) -> set[int]:
    return {pack for pack, when in view.checked().items() if when == DOUBTED}


def _lost(copy: Index) -> Iterator[BlobEntry]:
    last: Digest | None = None
    while blobs := copy.read(lambda view, last=last: view.lost_after(last, _BLOBS)):  # type: ignore[misc]
        last = blobs[-1].digest
        yield from (blob for blob in blobs if copy.read(lambda view, blob=blob: view.is_held(blob.digest)))  # type: ignore[misc]


def _piece(view: View, recipe: int, at: int) -> Piece | None:
    stretch = view.stretch(recipe, at)
    if stretch is None or stretch.start != at or not stretch.packed_refs:
        return None
    refs = stretch.refs
    rows = [row for row in map(view.chunk, refs) if row is not None and row.state is not ChunkState.BAD]
    return Piece(Segment(recipe, at, refs), tuple(rows)) if len(rows) == len(refs) else None


def _enter(edit: Edit, pieces: Iterable[Piece], doubted: Collection[int]) -> set[int]:
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


def _replace(edit: Edit, now: BlobEntry, found: BlobEntry) -> None:
    if now.recipe not in (0, found.recipe):
        edit.delete_recipe(now.recipe)
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
