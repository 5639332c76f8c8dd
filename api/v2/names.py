"""Grammars of the v2 protocol: repositories, tags, references, digests. Pure: text in, values or a refusal out."""

from __future__ import annotations

import re
from typing import Final

from api.content.repository import Repository
from api.v2.errors import DIGEST_INVALID, NAME_INVALID, TAG_INVALID, Refused
from cas import Digest, InvalidDigest

MOST_NAME_CHARS: Final = 255
_PART: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME: Final = re.compile(rf"{_PART}(?:/{_PART})*", re.ASCII)
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", re.ASCII)
_DIGEST: Final = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+", re.ASCII)
_KNOWN: Final = frozenset({"sha256", "sha512"})


def is_repository(text: str) -> bool:
    """Tell whether a repository may be called this."""
    return len(text) <= MOST_NAME_CHARS and _NAME.fullmatch(text) is not None


def repository(text: str) -> Repository:
    """Read a repository's name, full or short.

    Raises:
        Refused: 400.
    """
    if not is_repository(text):
        raise Refused(NAME_INVALID, {"name": text[:300]})
    return Repository.of(text)


def is_tag(text: str) -> bool:
    """Tell whether a tag may be called this."""
    return _TAG.fullmatch(text) is not None


def tag(text: str) -> str:
    """Check a tag.

    Raises:
        Refused: 400.
    """
    if not is_tag(text):
        raise Refused(TAG_INVALID, {"tag": text[:300]})
    return text


def digest(text: str) -> Digest:
    """Read a digest that somebody pushes by.

    Raises:
        Refused: 400, also for algorithms that this registry does not know.
    """
    try:
        return Digest.parse(text)
    except InvalidDigest as error:
        raise Refused(DIGEST_INVALID, {"digest": text[:300]}, message=str(error)) from None


def known_digest(text: str) -> Digest | None:
    """Read a digest that somebody asks for; None if nothing can be stored under it, its algorithm being unknown.

    Raises:
        Refused: 400 if it is none at all.
    """
    if _DIGEST.fullmatch(text) and text.partition(":")[0] not in _KNOWN:
        return None
    return digest(text)


def reference(text: str) -> str | Digest:
    """Read what a manifest is pushed by: a tag, or a digest; a colon decides.

    Raises:
        Refused: 400.
    """
    return digest(text) if ":" in text else tag(text)
