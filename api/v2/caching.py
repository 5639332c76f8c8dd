"""What clients may keep, and which conditions their requests may carry. Pure.

An answer by digest never changes; one by tag may at any time. The entity tag of either is the digest, in quotes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from starlette.responses import Response

from cas import Digest

FOREVER: Final = "max-age=31536000, immutable"
NEVER: Final = "no-cache"
_ENTITY_TAG: Final = re.compile(r'(?:W/)?"([^"]*)"')
_ANYTHING: Final = "*"


def etag(digest: Digest) -> str:
    """Write a digest as an entity tag."""
    return f'"{digest}"'


def matches(header: str, there: str | None) -> bool:
    """Tell whether one of a condition's entity tags is of what is there; `*` is whatever there is, None is nothing."""
    if there is None:
        return False
    return header.strip() == _ANYTHING or there in _ENTITY_TAG.findall(header)


def not_modified(if_none_match: str | None, digest: Digest, headers: Mapping[str, str]) -> Response | None:
    """Answer 304 if the client has this very content already; the headers are those of the whole answer."""
    if if_none_match is None or not matches(if_none_match, str(digest)):
        return None
    kept = ("ETag", "Cache-Control", "Docker-Content-Digest")
    return Response(status_code=304, headers={name: headers[name] for name in kept})
