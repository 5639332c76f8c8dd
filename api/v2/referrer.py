"""Referrers in the store: which manifests of a repository are about which.

    referrer    ns/repo@SUBJECT@DIGEST    the manifest's descriptor, JSON, as lists show it

The digests are in a compact form, because two long ones in hex would be too long for a name.

Whoever lists referrers in a tag of the fallback scheme pushes them as manifests with a subject, so they are all here
already, and what such a tag lists beyond is not about the subject. Blocking; no HTTP.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any, Final

from api.content import trash
from api.content.repository import Repository
from api.content.trash import Deletion
from api.v2.document import Document
from cas import Digest, Name, Names, Reads, Record

REFERRER: Final = "referrer"
_STEP: Final = 64  # names looked at in one go; their descriptors are read one at a time, since some are megabytes


def put(names: Names, repository: Repository, subject: Digest, digest: Digest, descriptor: bytes) -> None:
    """Enter a manifest among what is about its subject."""
    names.put(row(repository, subject, digest), Record(descriptor))


def delete(names: Names, repository: Repository, subject: Digest, digest: Digest, deletion: Deletion) -> None:
    """Take it out, as part of a deletion."""
    trash.take(names, deletion, row(repository, subject, digest))


def walk(
    reads: Reads, repository: Repository, subject: Digest, after: Digest | None = None
) -> Iterator[tuple[Digest, bytes]]:
    """Yield what is about a subject and follows `after`, as digest and descriptor, in an order of its own."""
    prefix = _prefix(repository, subject)
    low = prefix if after is None else prefix + _compact(after)
    while paths := reads.paths(REFERRER, prefix, after=low, limit=_STEP):
        for path in paths:
            found = reads.get(Name(REFERRER, path))
            assert found is not None  # within one read
            yield _expand(path.removeprefix(prefix)), found.value
        low = paths[-1]


def describe(document: Document, digest: Digest, size: int) -> bytes:
    """Write a manifest's descriptor as lists of referrers show it."""
    said: dict[str, Any] = {"mediaType": document.media_type, "digest": str(digest), "size": size}
    if document.artifact_type:
        said["artifactType"] = document.artifact_type
    if document.annotations:
        said["annotations"] = document.annotations
    return json.dumps(said, separators=(",", ":")).encode()


def row(repository: Repository, subject: Digest, digest: Digest) -> Name:
    """Return where the entry stands."""
    return Name(REFERRER, _prefix(repository, subject) + _compact(digest))


def _prefix(repository: Repository, subject: Digest) -> str:
    return f"{repository}@{_compact(subject)}@"


def _compact(digest: Digest) -> str:
    return base64.urlsafe_b64encode(digest.pack()).decode().rstrip("=")


def _expand(text: str) -> Digest:
    return Digest.unpack(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
