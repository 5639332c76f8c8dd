"""Mounting: a blob of one repository becomes visible in another, and no byte is sent.

Whoever may pull a blob somewhere may mount it; nobody learns more by it than a pull would tell. Blocking; no HTTP.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

from api.access import policy
from api.access.principal import Action, Caller
from api.access.settings import AccessSettings
from api.content.repository import Repository
from api.v2 import links
from api.v2.uploads import Uploads
from cas import Digest, Missing, Names, Reads

# Repositories looked into when the client names none. Some blobs are in nearly all of them; past it, the client is
# told to upload.
MOST_HOLDERS: Final = 256


@final
@dataclass(frozen=True, slots=True)
class Mount:
    """A blob that a caller wants to see in a repository they may push to.

    Attributes:
        source: where it is to come from; None is anywhere.
    """

    digest: Digest
    source: Repository | None
    caller: Caller
    settings: AccessSettings

    def into(self, uploads: Uploads) -> bool:
        """Make it visible, durably; tell whether it was found where the caller may pull."""
        found = uploads.store.read(lambda reads: self._find(reads, uploads.repository))
        if found is None:
            return False

        def edit(names: Names) -> bool:
            size = self._size(names, found)  # again: it may have been deleted meanwhile, or the right to it
            if size is not None:
                uploads.show(names, self.digest, size)
            return size is not None

        try:
            return uploads.store.change(edit)
        except Missing:
            return False  # a link to what was lost: the upload that follows heals it

    def _find(self, reads: Reads, target: Repository) -> Repository | None:
        """Return a repository that shows the blob to the caller; the target itself, if that is one."""
        sources = links.repositories(reads, self.digest, MOST_HOLDERS) if self.source is None else [self.source]
        return next((one for one in (target, *sources) if self._size(reads, one) is not None), None)

    def _size(self, reads: Reads, source: Repository) -> int | None:
        link = links.find(reads, source, self.digest)
        if link is None or Action.PULL not in policy.rights(reads, self.settings, self.caller, source):
            return None
        return link.size
