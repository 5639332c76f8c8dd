"""Manifests in the store: the record of one.

    manifest    ns/repo@digest    one line of JSON: {"type", "size", "at", "subject"?, "made"?}, then its own bytes

A large manifest's bytes are a blob that the name holds instead. Blocking; no HTTP.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from api.content import named, trash
from api.content.repository import Repository
from api.content.trash import Deletion
from cas import Digest, Name, Names, Reads, Record, Staged

MANIFEST: Final = "manifest"
INLINE_BYTES: Final = 64 * 1024  # up to here a read is one look-up; past it, the index would fill with bulk


@dataclass(frozen=True, slots=True)
class Manifest:
    """A stored manifest.

    Attributes:
        digest: what it is called by.
        media_type: as it was pushed.
        size: of its bytes.
        subject: what it is about.
        body: its bytes, unless they are a blob.
        blob: the blob, if they are.
        at: when it was last pushed, in Unix seconds; 0 where nobody knows.
        made: nobody pushed it: it is what a tag on a v1 image shows, and stays no longer than that.
    """

    digest: Digest
    media_type: str
    size: int
    subject: Digest | None = None
    body: bytes = b""
    blob: Digest | None = None
    at: int = 0
    made: bool = False


def find(reads: Reads, repository: Repository, digest: Digest) -> Manifest | None:
    """Return a manifest, or None."""
    found = reads.get(_name(repository, digest))
    return None if found is None else parse(found, digest)


def put(names: Names, repository: Repository, manifest: Manifest, staged: Staged | None) -> None:
    """Store a manifest; `staged` is its blob, if it has one."""
    said: dict[str, Any] = {"type": manifest.media_type, "size": manifest.size, "at": manifest.at}
    if manifest.subject is not None:
        said["subject"] = str(manifest.subject)
    if manifest.made:
        said["made"] = True
    value = json.dumps(said, separators=(",", ":")).encode() + b"\n" + manifest.body
    if staged is not None:
        names.keep(staged)
    holds = () if manifest.blob is None else (manifest.blob,)
    names.put(_name(repository, manifest.digest), Record(value, holds, manifest.size))


def is_damaged(reads: Reads, manifest: Manifest) -> bool:
    """Tell whether damage took something that a manifest names which was made, so that all of it was here."""
    return reads.has_lost and any(reads.stat(Digest.parse(each)) is None for each in named.digests(manifest.body))


def delete(names: Names, repository: Repository, digest: Digest, deletion: Deletion) -> bool:
    """Remove a manifest and nothing else, as part of a deletion; tell whether it was there."""
    return trash.take(names, deletion, _name(repository, digest))


def parse(found: Record, digest: Digest) -> Manifest:
    """Read what `put` wrote."""
    head, _, body = found.value.partition(b"\n")
    said: dict[str, Any] = json.loads(head)
    subject = Digest.parse(said["subject"]) if "subject" in said else None
    blob = next(iter(found.holds), None)
    return Manifest(digest, said["type"], said["size"], subject, body, blob, said.get("at", 0), "made" in said)


def _name(repository: Repository, digest: Digest) -> Name:
    return Name(MANIFEST, f"{repository}@{digest}")
