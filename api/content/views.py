"""What one generation's protocol asks for when a tag was written by the other: the seam between them.

Who can answer stands above both protocols and is handed to them. Refuses to know how.
"""

from __future__ import annotations

from typing import Protocol

from api.content import tags
from api.content.repository import Repository


class Views(Protocol):
    """Makes of a tag what the other generation calls an image, once, and remembers it with the tag. Blocking."""

    def image(self, repository: Repository, tag: str) -> tags.Image | None:
        """Return the v1 image of a tag on a manifest; None if there is no such tag, or v1 cannot have that."""
        ...

    def manifest(self, repository: Repository, tag: str) -> tags.Manifest | None:
        """Return the manifest of a tag on a v1 image; None if there is no such tag, or that image is not whole."""
        ...
