"""What rotted in a store before anybody knew, kept in its backup: no good bytes are given up for rotten ones.

Layer: L6. A pack that is copied damaged may have been made, by a collection, of packs that an earlier copy has whole.
Then its chunks stay where they were there, until the store has them again or no name needs them; a pack of which
records are gone is believed for nothing that the earlier copy has. Knows two indexes and no file: which bytes are
good is asked of whoever reads them.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from cas.records import ChunkRef, Role
from cas.sufferers import sufferers
from cas.tables import CHUNK_KEY, ChunkState

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from cas.digest import Digest
    from cas.extent import Extent
    from cas.index import Edit, Index
    from cas.mirror import Rot
    from cas.records import BlobEntry
    from cas.retain import Earlier
    from cas.tables import PackRow
    from cas.view import View

    IsGood = Callable[[ChunkRef, Extent], bool]

_SLICE: Final = 1000


class Spared(NamedTuple):
    """What became of the blobs that a name holds and that stand on damaged bytes.

    Attributes:
        spoilt: those that the copy has no better than the store.
        spared: those that the copy goes on having whole.
        packs: what this takes of the earlier copy's packs.
    """

    spoilt: tuple[Digest, ...] = ()
    spared: tuple[Digest, ...] = ()
    packs: tuple[PackRow, ...] = ()


def spare(copy: Index, earlier: Earlier | None, rotten: Sequence[Rot], is_good: IsGood) -> Spared:
    """Enter into the copy of an index where an earlier copy has what lies in damaged packs.

    Args:
        copy: of the index. Nobody else uses it.
        earlier: the copy whose place it is to take.
        rotten: what is wrong with the packs that were copied.
        is_good: whether the bytes at some place of the copy's folder are those of a chunk.

    Raises:
        Damaged: a row is not what was written.
        NoSpace, DiskFailed: the copy cannot be finished.
    """
    placed = _placed(copy, rotten)
    whose = {chunk: _held(copy, blobs) for chunk, blobs in sufferers(copy, placed).items()}
    places = {chunk: placed[chunk] for chunk, blobs in whose.items() if blobs}
    bad = {chunk for chunk, extent in places.items() if not is_good(_ref(chunk, extent), extent)}
    moved = {} if earlier is None else dict(_places_there(earlier, places, is_good))
    _enter(copy, moved)
    packs = {rot.pack for rot in rotten}
    suffering = {blob for chunk in bad for blob in whose[chunk]}
    spoilt = {blob.digest for chunk in bad - moved.keys() for blob in whose[chunk]}
    if earlier is not None:
        earlier.needed |= {extent.pack for extent in moved.values()} | _journals(copy, earlier, packs)
        for blob in suffering:
            if blob.digest in spoilt and _put_back(earlier, blob, packs, is_good):
                spoilt.remove(blob.digest)
    spared = {blob.digest for blob in suffering} - spoilt
    named = () if earlier is None else earlier.name_packs(packs)
    return Spared(tuple(sorted(spoilt)), tuple(sorted(spared)), named)


def _placed(copy: Index, rotten: Sequence[Rot]) -> dict[bytes, Extent]:
    """Return the chunks, by their ids, that are known to be damaged where they lie, or stand in no good record."""
    found: dict[bytes, Extent] = {}
    told = {chunk: extent for rot in rotten for chunk, extent in rot.chunks.items()}
    torn = {rot.pack for rot in rotten if rot.records}
    after = b""
    while rows := copy.read(lambda view, after=after: view.stored_chunks(after, _SLICE)):  # type: ignore[misc]
        after = rows[-1][0]
        for chunk, row in rows:
            is_meant = row.extent.pack in torn or told.get(chunk) == row.extent
            if is_meant and row.state is not ChunkState.BAD:
                found[chunk] = row.extent
    return found


def _held(copy: Index, blobs: Collection[BlobEntry]) -> set[BlobEntry]:
    return copy.read(lambda view: {blob for blob in blobs if view.is_held(blob.digest)})


def _places_there(earlier: Earlier, places: Mapping[bytes, Extent], is_good: IsGood) -> Iterator[tuple[bytes, Extent]]:
    """Yield where the earlier copy has chunks whole that lie elsewhere now."""
    for chunk, now in places.items():
        ref = _ref(chunk, now)
        row = earlier.index.read(lambda view, ref=ref: view.chunk(ref))  # type: ignore[misc]
        if row is None or row.state is ChunkState.BAD or row.extent == now or row.extent.pack not in earlier.packs:
            continue
        if is_good(ref, row.extent):
            yield chunk, row.extent


def _ref(chunk: bytes, extent: Extent) -> ChunkRef:
    key, salt = CHUNK_KEY.unpack(chunk)
    return ChunkRef(key, salt, extent.raw)


def _enter(copy: Index, places: Mapping[bytes, Extent]) -> None:
    def put(edit: Edit, some: Sequence[tuple[bytes, Extent]]) -> None:
        for chunk, extent in some:
            edit.put_chunk(_ref(chunk, extent), extent)

    moves = list(places.items())
    for first in range(0, len(moves), _SLICE):
        copy.write(partial(put, some=moves[first : first + _SLICE]))


def _put_back(earlier: Earlier, blob: BlobEntry, doubted: Collection[int], is_good: IsGood) -> bool:
    """Let a blob be what it was, if that is whole: it may have been pushed anew since, in other chunks."""
    found = earlier.whole(blob.digest)
    if found is None or not all(
        is_good(ref, row.extent)
        for piece in earlier.pieces(found)
        for ref, row in zip(piece.segment.refs, piece.rows, strict=True)
    ):
        return False
    earlier.put_back(blob, found, doubted)
    return True


def _journals(copy: Index, earlier: Earlier, rotten: Collection[int]) -> set[int]:
    """Return the earlier copy's packs of the journal, if one that may have been made of them is damaged.

    A rebuild reads both. What it may find twice says the same, and no deletion is dropped while older packs are named.
    """

    def look(view: View) -> set[int]:
        rows = map(view.pack, rotten)
        if not any(row is not None and row.role is Role.JOURNAL for row in rows):
            return set()
        return {row.pack for row in earlier.packs.values() if row.role is Role.JOURNAL}

    return copy.read(look)
