"""Manifests in the store: the record of one.

    manifest    ns/repo@digest    one line of JSON: {"type", "size", "subject"?}, then the manifest's own bytes

A large manifest's bytes are a blob that the name holds instead. Blocking; no HTTP.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from api.content.repository import Repository
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
    """

    digest: Digest
    media_type: str
    size: int
    subject: Digest | None = None
    body: bytes = b""
    blob: Digest | None = None


def find(reads: Reads, repository: Repository, digest: Digest) -> Manifest | None:
    """Return a manifest, or None."""
    found = reads.get(_name(repository, digest))
    if found is None:
        return None
    head, _, body = found.value.partition(b"\n")
    said: dict[str, Any] = json.loads(head)
    subject = Digest.parse(said["subject"]) if "subject" in said else None
    return Manifest(digest, said["type"], said["size"], subject, body, next(iter(found.holds), None))


def put(names: Names, repository: Repository, manifest: Manifest, staged: Staged | None) -> None:
    """Store a manifest; `staged` is its blob, if it has one."""
    said: dict[str, Any] = {"type": manifest.media_type, "size": manifest.size}
    if manifest.subject is not None:
        said["subject"] = str(manifest.subject)
    value = json.dumps(said, separators=(",", ":")).encode() + b"\n" + manifest.body
    if staged is not None:
        names.keep(staged)
    holds = () if manifest.blob is None else (manifest.blob,)
    names.put(_name(repository, manifest.digest), Record(value, holds, manifest.size))


def delete(names: Names, repository: Repository, digest: Digest) -> bool:
    """Remove a manifest and nothing else; tell whether it was there."""
    return names.delete(_name(repository, digest))


def _name(repository: Repository, digest: Digest) -> Name:
    return Name(MANIFEST, f"{repository}@{digest}")
