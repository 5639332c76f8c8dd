"""The names Registry v1 uses, as grammars: image ids, tags, repositories. Text in, checked values out.

Refuses to know what exists. Image ids and tags are never folded to another case: two spellings are two names.
"""

from __future__ import annotations

import re
from typing import Final

from api.content.repository import Repository
from api.errors import ApiError
from api.v1 import refusals

MAX_REPOSITORY: Final = 255  # characters, namespace included, as in today's engines
# Last parts that would make `…/NAME/tags/tags` and its like mean two things.
RESERVED: Final = frozenset({"tags", "images", "json", "properties", "auth"})

_ID = re.compile(r"[0-9a-f]{64}", re.ASCII)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
_PART = re.compile(r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*", re.ASCII)
_OLD_NAMESPACE = re.compile(r"[a-z0-9_]+", re.ASCII)  # user names once could begin and end with _


def is_image_id(text: str) -> bool:
    """Tell whether this could be an image id."""
    return _ID.fullmatch(text) is not None


def image_id(text: str) -> str:
    """Check an image id from a path.

    Raises:
        ApiError: 404; a client takes that for an image that is not here, which it is.
    """
    if not is_image_id(text):
        raise ApiError(*refusals.INVALID_ID)
    return text


def is_tag(text: str) -> bool:
    """Tell whether this could be a tag."""
    return _TAG.fullmatch(text) is not None


def new_tag(text: str) -> str:
    """Check a tag that is about to be written.

    Raises:
        ApiError: 400.
    """
    if not is_tag(text):
        raise ApiError(*refusals.INVALID_TAG)
    return text


def repository(text: str) -> Repository:
    """Read a repository's name as it stands in a path or a token; without a slash it belongs to the library.

    Raises:
        ApiError: 400.
    """
    found = Repository.of(text)
    parts = found.path.split("/")
    good = (
        len(found.namespace) + 1 + len(found.path) <= MAX_REPOSITORY
        and (_PART.fullmatch(found.namespace) or _OLD_NAMESPACE.fullmatch(found.namespace))
        and all(_PART.fullmatch(part) for part in parts)
        and parts[-1] not in RESERVED
    )
    if not good:
        raise ApiError(*refusals.INVALID_REPOSITORY)
    return found
