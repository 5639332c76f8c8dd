"""What one generation's protocol asks for when a tag was written by the other: the seam between them.

Who can answer stands above both protocols and is handed to them. Refuses to know how.
"""

from __future__ import annotations

from typing import Protocol

from api.content import tags
from api.content.repository import Repository
from cas import Reads


class NotShown(Exception):
    """What a tag points to cannot be shown to the other generation, and why. Its pusher's to change."""


class Views(Protocol):
    """Makes of a tag what the other generation calls an image, once, and remembers it with the tag.

    That may take as long as unpacking all layers does; it is done in a thread.
    """

    async def image(self, repository: Repository, tag: str) -> tags.Image | None:
        """Return the v1 image of a tag; None if there is no such tag, or v1 cannot have what it points to."""
        ...

    def has_no_image(self, reads: Reads, repository: Repository, tag: tags.Tag) -> bool:
        """Tell whether there can never be a v1 image of a tag, as far as rows alone say; blocking."""
        ...

    async def manifest(self, repository: Repository, tag: str) -> tags.Manifest | None:
        """Return the manifest of a tag; None if there is no such tag.

        Raises:
            NotShown: the v1 image is not whole, or nothing that today's clients could use.
        """
        ...
