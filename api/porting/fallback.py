"""Tags of the fallback scheme: lists of referrers that clients keep where a registry keeps none. Pure."""

from __future__ import annotations

import re
from typing import Final

from cas import Digest

_TAG: Final = re.compile(r"sha(?:256|512)-[0-9a-f]{64}", re.ASCII)
_MOST_HEX: Final = 64


def is_tag(text: str) -> bool:
    """Tell whether a tag may be such a list; a longer one, as of signatures, is a tag like any other."""
    return _TAG.fullmatch(text) is not None


def tag_of(subject: Digest) -> str:
    """Return the tag under which clients list what is about a manifest."""
    return f"{subject.algorithm}-{subject.hex[:_MOST_HEX]}"
