"""What an import goes by: the registry's own limits and choices, and the time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from api.content.repositories import Access
from api.v1.settings import V1Settings


@dataclass(frozen=True, slots=True)
class Terms:
    """Tunables of an import; what is longer than the API would take is left out.

    Attributes:
        access: who may pull a repository that is made.
        clock: the time, in Unix seconds.
        max_manifest_bytes: of a manifest, an index, or a layout's list.
        max_json_bytes: of a v1 image's json, or a v1 repository's image list.
        v1: limits of v1 images.
    """

    access: Access
    clock: Callable[[], float]
    max_manifest_bytes: int
    max_json_bytes: int
    v1: V1Settings
