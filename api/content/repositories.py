"""The record of a repository: that it exists, since when, and who may see it.

    repo    ns/repo    {"created": Unix seconds, "access": "public" | "private", "stamp": text}

The stamp is drawn when it is made, so one that was made anew can be told from the one before.
Blocking; no HTTP. Keeps the catalogue in step. How a repository is removed with all it consists of: `removal`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from api.content import catalogue
from api.content.repository import Repository
from api.content.values import content, record
from api.errors import RETRY_AFTER_S, ApiError
from cas import Name, Names, Reads, Record, Store

REPO: Final = "repo"
GONE: Final = "repo.gone"  # notes of `removal`
_STAMP_BYTES: Final = 8


class BeingRemoved(ApiError):
    """A repository of that name was just deleted or brought back, and its rows are under way. Nobody's fault."""

    def __init__(self, repository: Repository) -> None:
        message = f"{repository} is just being deleted or brought back; try again in a moment"
        super().__init__(503, message, {"Retry-After": str(RETRY_AFTER_S)}, code="UNAVAILABLE")


class Access(StrEnum):
    """Who may pull without being granted it: everybody, or nobody."""

    PUBLIC = "public"
    PRIVATE = "private"


@dataclass(frozen=True, slots=True)
class Info:
    """What is known of a repository.

    Attributes:
        created: when it was made, in Unix seconds.
        access: who may pull.
        stamp: which one of its name it is; nothing for one that an earlier version made.
    """

    created: int
    access: Access
    stamp: str = ""


def find(reads: Reads | Store, repository: Repository) -> Info | None:
    """Return what is known of a repository; None if nobody made it, or somebody deleted it."""
    found = reads.get(_name(repository))
    return None if found is None else _info(found)


def page(reads: Reads, after: str, limit: int) -> list[tuple[Repository, Info]]:
    """Return what is known of up to `limit` repositories that follow a full name, in byte order."""
    return [(Repository.of(name.path), _info(found)) for name, found in reads.scan(REPO, after=after, limit=limit)]


def any_below(reads: Reads, namespace: str) -> bool:
    """Tell whether there is any repository in a name space."""
    return bool(reads.paths(REPO, f"{namespace}/", limit=1))


def any_private(reads: Reads) -> bool:
    """Tell whether there is any repository that not everybody may see."""
    return catalogue.any_of(reads, str(Access.PRIVATE))


def ensure(names: Names, repository: Repository, now: float, access: Access) -> bool:
    """Make a repository unless it is there; say whether it was made.

    Raises:
        BeingRemoved: rows of an older one of that name are left; `removal.change` sees to that.
    """
    if find(names, repository) is not None:
        return False
    if names.get(Name(GONE, str(repository))) is not None:
        raise BeingRemoved(repository)
    _put(names, repository, Info(int(now), access, secrets.token_hex(_STAMP_BYTES)))
    return True


def set_access(names: Names, repository: Repository, access: Access) -> bool:
    """Say who may see a repository; tell whether there is such a one."""
    info = find(names, repository)
    if info is None:
        return False
    if info.access != access:
        catalogue.remove(names, str(info.access), str(repository))
        _put(names, repository, replace(info, access=access))
    return True


def forget(names: Names, repository: Repository, take: Callable[[Name], object]) -> None:
    """Remove the catalogue's entry of a repository and have its record taken away, nothing below them."""
    info = find(names, repository)
    if info is not None:
        catalogue.remove(names, str(info.access), str(repository))
        take(_name(repository))


def enter(names: Names, repository: Repository) -> None:
    """Enter a repository into the catalogue whose record was brought back."""
    info = find(names, repository)
    if info is not None:
        catalogue.add(names, str(info.access), str(repository))


def _info(found: Record) -> Info:
    value = content(found)
    return Info(value["created"], Access(value["access"]), value.get("stamp", ""))


def _put(names: Names, repository: Repository, info: Info) -> None:
    value = {"created": info.created, "access": str(info.access)} | ({"stamp": info.stamp} if info.stamp else {})
    names.put(_name(repository), record(value))
    catalogue.add(names, str(info.access), str(repository))


def _name(repository: Repository) -> Name:
    return Name(REPO, str(repository))
