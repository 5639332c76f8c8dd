"""A blob between its last byte and the change that names it: durable, proven, invisible.

Layer: L6. What an upload leaves behind, and how it enters the index as part of a change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cas.errors import Busy
from cas.extent import Codec, Extent
from cas.index import PackRow, PackState
from cas.records import BlobEntry, ChunkEntry, ChunkRef, Role, Segment

if TYPE_CHECKING:
    from cas.claims import Claim, SessionClaim
    from cas.commit import Draft
    from cas.digest import Digest
    from cas.index import Edit


@dataclass(frozen=True, slots=True)
class Filing:
    """What a synced commit record says, ready for the index."""

    pack: int
    end: int
    entries: tuple[ChunkEntry, ...]
    segment: Segment
    extents: tuple[Extent, ...]

    def put(self, edit: Edit, owner: bytes) -> None:
        """Enter it into the index.

        Raises:
            Busy: a chunk of the same key drew the same salt, which takes ill will and luck; new salts will be drawn.
        """
        for entry in self.entries:
            ref = ChunkRef(entry.key, entry.salt, entry.raw)
            extent = Extent(self.pack, entry.offset, entry.stored, entry.raw, Codec(entry.codec))
            known = edit.chunk(ref)
            if known is not None and known.extent != extent:
                raise Busy("two chunks drew the same identity; send it again")
            edit.put_chunk(ref, extent)
        edit.put_segment(self.segment, self.extents)
        edit.extend_pack(PackRow(self.pack, PackState.OPEN, Role.DATA, owner, self.end))


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
    """

    blob: BlobEntry
    owner: bytes
    claim: Claim | SessionClaim
    start: int = 0
    filing: Filing | None = None
    wrote: bool = False
    relies: bool = False

    @property
    def digest(self) -> Digest:
        """The digest of the bytes that arrived."""
        return self.blob.digest

    @property
    def size(self) -> int:
        """How many bytes arrived."""
        return self.blob.size

    def keep(self, edit: Edit, draft: Draft) -> None:
        """Make the blob readable, within a change.

        A blob that is here already stays as it is, unless these bytes had to be written anew: then some chunk of
        the old recipe was missing or damaged, and the proven new recipe takes its place (I9).
        """
        self.claim.keep(edit, self.start, self.blob)
        old = edit.sound_blob(self.digest)
        if old is None and self.relies:
            raise Busy(f"{self.digest} was collected while it arrived; send it again")
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
