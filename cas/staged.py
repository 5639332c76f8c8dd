"""A blob between its last byte and the change that names it: durable, proven, invisible.

Layer: L6. What an upload leaves behind, and how it enters the index as part of a change.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cas.claims import FOUND_DAMAGED
from cas.errors import Busy
from cas.extent import Codec, Extent
from cas.records import BlobEntry, ChunkEntry, ChunkRef, Role, Segment
from cas.tables import ChunkState, PackRow, PackState

if TYPE_CHECKING:
    from cas.claims import Claim, SessionClaim
    from cas.commit import Draft
    from cas.digest import Digest
    from cas.index import Edit
    from cas.pins import Pin


class Collected(Exception):
    """The blob that an upload relied on was collected while it arrived. What arrived can be kept in its own right."""


@dataclass(frozen=True, slots=True)
class Filing:
    """What a synced commit record says, ready for the index."""

    pack: int
    end: int
    entries: tuple[ChunkEntry, ...]
    segment: Segment
    extents: tuple[Extent, ...]
    pin: Pin | None = None  # on what the segment names

    def release(self) -> None:
        """Rely on nothing any more: it was filed, durably, or never will be."""
        if self.pin is not None:
            self.pin.release()

    def put(self, edit: Edit, owner: bytes) -> None:
        """Enter it into the index.

        Raises:
            Busy: a chunk of the same key drew the same salt, which takes ill will and luck; new salts will be drawn.
                Or a chunk it relies on was collected, which only a lock that could not be had makes possible, or was
                found damaged since it compared equal.
        """
        row = edit.pack(self.pack)
        if row is None or row.state is PackState.DYING:
            raise Busy("the pack these bytes went to was emptied meanwhile; send it again")
        for entry in self.entries:
            ref = ChunkRef(entry.key, entry.salt, entry.raw)
            extent = Extent(self.pack, entry.offset, entry.stored, entry.raw, Codec(entry.codec))
            known = edit.chunk(ref)
            if known is not None and known.extent != extent:
                raise Busy("two chunks drew the same identity; send it again")
            edit.put_chunk(ref, extent)
        self._hold_on(edit)
        edit.put_segment(self.segment, self.extents)
        edit.touch(self.segment)
        edit.extend_pack(PackRow(self.pack, PackState.OPEN, Role.DATA, owner, self.end))

    def _hold_on(self, edit: Edit) -> None:
        """Take back from the collection what this segment names and nobody else did."""
        own = {(entry.key, entry.salt) for entry in self.entries}
        for ref in {ref for ref in self.segment.refs if (ref.key, ref.salt) not in own}:
            row = edit.chunk(ref)
            if row is None:
                raise Busy("bytes that were stored already were collected while this arrived; send it again")
            if row.state is ChunkState.BAD:
                raise Busy(FOUND_DAMAGED)
            if row.state is ChunkState.DYING:
                edit.put_chunk(ref, row.extent)


@dataclass(frozen=True, slots=True)
class Staged:
    """A blob that is proven and durable but named by nobody yet; `Names.keep` makes it part of a change.

    Attributes:
        blob: what will stand in the index.
        owner: the lease of this process.
        claim: what the upload has in the index until then.
        start: from which byte on its segments are not filed yet.
        filing: the last run, not in the index yet.
        wrote: some chunk was not stored before, or the blob was here and stood on other chunks.
        relies: nothing was written because the blob was here when the upload finished.
        pin: keeps what the upload found stored until this is kept or dropped.
    """

    blob: BlobEntry
    owner: bytes
    claim: Claim | SessionClaim
    start: int = 0
    filing: Filing | None = None
    wrote: bool = False
    relies: bool = False
    pin: Pin | None = field(default=None, compare=False, repr=False)

    @property
    def digest(self) -> Digest:
        """The digest of the bytes that arrived."""
        return self.blob.digest

    @property
    def size(self) -> int:
        """How many bytes arrived."""
        return self.blob.size

    def release(self) -> None:
        """Rely on nothing any more: it was kept, durably."""
        if self.pin is not None:
            self.pin.release()

    def keep(self, edit: Edit, draft: Draft) -> None:
        """Make the blob readable, within a change.

        A blob that is here already stays as it is, unless these bytes had to be written anew: then some chunk of
        the old recipe was missing or damaged, and the proven new recipe takes its place (I9).
        """
        self.claim.keep(edit, self.start, self.blob)
        old = edit.sound_blob(self.digest)
        if old is None and self.relies:
            raise Collected(f"{self.digest} was collected while it arrived; send it again")
        if old is not None and not self.wrote:
            if old.recipe != self.claim.recipe:
                edit.delete_recipe(self.claim.recipe)
            return
        if self.filing is not None:
            self.filing.put(edit, self.owner)
        if old is not None and old.recipe not in (0, self.blob.recipe):
            edit.delete_recipe(old.recipe)
        edit.put_blob(self.blob)
        draft.blobs.append(self.blob)
