"""Links: which blobs can be seen in which repository. A digest alone opens nothing.

    link    ns/repo@digest    {"at": Unix seconds, "size": bytes}    holds the blob

Blocking; no HTTP.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from api.content.repository import Repository
from api.content.values import content, record
from cas import Digest, Name, Names, Reads

LINK: Final = "link"


@dataclass(frozen=True, slots=True)
class Link:
    """A blob as one repository has it: how large it is, and when it was put there (Unix seconds)."""

    size: int
    at: int


def find(reads: Reads, repository: Repository, digest: Digest) -> Link | None:
    """Return a blob's link, None if the repository does not show it."""
    found = reads.get(_name(repository, digest))
    if found is None:
        return None
    value = content(found)
    return Link(value["size"], value["at"])


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
