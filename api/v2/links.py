"""Links: which blobs can be seen in which repository. A digest alone opens nothing.

    link    ns/repo@digest    {"at": Unix seconds, "size": bytes}    holds the blob

Blocking; no HTTP.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Final

from api.content.repository import Repository
from api.content.values import content, record
from cas import CasError, Digest, Name, Names, Reads, Store

LINK: Final = "link"
TOUCH_S: Final = 3600  # far less than any grace that a schedule may have


@dataclass(frozen=True, slots=True)
class Link:
    """A blob as one repository has it: how large it is, and when a push last counted on it (Unix seconds)."""

    size: int
    at: int


def find(reads: Reads, repository: Repository, digest: Digest) -> Link | None:
    """Return a blob's link, None if the repository does not show it."""
    found = reads.get(_name(repository, digest))
    if found is None:
        return None
    value = content(found)
    return Link(value["size"], value["at"])


def is_stale(link: Link | None, now: float) -> bool:
    """Tell whether a link is to be written (anew), so that a push which counts on it finds it.

    Links that no manifest needs are removed some time after their blob was last put or looked for by a push.
    """
    return link is None or now - link.at >= TOUCH_S


def touch(store: Store, repository: Repository, digest: Digest, now: float) -> None:
    """Remember that a push may count on a link, as far as that can be; one write an hour."""

    def edit(names: Names) -> None:
        link = find(names, repository, digest)
        if link is not None and is_stale(link, now):
            put(names, repository, digest, link.size, now)

    with contextlib.suppress(CasError):
        store.change(edit)


def repositories(reads: Reads, digest: Digest, limit: int) -> list[Repository]:
    """Return up to `limit` repositories that show a blob, in order of their names."""
    return [Repository.of(path.rpartition("@")[0]) for path in reads.holders(LINK, digest, limit)]


def put(names: Names, repository: Repository, digest: Digest, size: int, now: float) -> None:
    """Show a stored blob in a repository."""
    value = {"at": int(now), "size": size}
    names.put(_name(repository, digest), record(value, holds=[digest], logical_bytes=size))


def delete(names: Names, repository: Repository, digest: Digest) -> bool:
    """Stop showing a blob; tell whether it was shown."""
    return names.delete(_name(repository, digest))


def _name(repository: Repository, digest: Digest) -> Name:
    return Name(LINK, f"{repository}@{digest}")
