"""How manifests come and go: each with its tags and its entry among referrers, in one change.

Knows what must be there before one is taken. Blocking; no HTTP.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, final

from api.content import marks, removal, repositories, tags, trash
from api.content.repositories import Access
from api.content.repository import Repository
from api.v2 import caching, document, links, manifest, pointing, referrer
from api.v2.document import Document, Place, Reference
from api.v2.errors import DIGEST_MISMATCH, MANIFEST_BLOB_UNKNOWN, MANIFEST_UNKNOWN, PRECONDITION_FAILED, Refused
from api.v2.manifest import INLINE_BYTES, Manifest
from cas import Digest, Names, Reads, Staged, Store

_MOST_TOLD: Final = 100  # missing things named in one refusal


@dataclass(frozen=True, slots=True)
class Conditions:
    """What must be so for a push to happen: entity tags of the manifest that each of its tags points to."""

    if_match: str | None = None
    if_none_match: str | None = None

    def check(self, there: str | None, what: str) -> None:
        """Refuse unless what is there now is as the client expects; None is nothing.

        Raises:
            Refused: 412.
        """
        expected = self.if_match is None or caching.matches(self.if_match, there)
        unexpected = self.if_none_match is not None and caching.matches(self.if_none_match, there)
        if unexpected or not expected:
            raise Refused(PRECONDITION_FAILED, {"reference": what, "there": there})


@final
@dataclass(frozen=True, slots=True)
class Push:
    """A manifest on its way in.

    Attributes:
        repository: where to.
        body: its bytes.
        content_type: what its header says it is.
        digest: what it is pushed as; None lets the server name it.
        tags: what shall point to it.
        conditions: what must be so.
    """

    repository: Repository
    body: bytes
    content_type: str | None
    digest: Digest | None
    tags: tuple[str, ...]
    conditions: Conditions

    def store(self, store: Store, access: Access, meta: Mapping[str, Any], now: float) -> Manifest:
        """Store it, durably; `access` is for a repository that this makes, `meta` goes with the tags.

        Raises:
            Refused: 400, 412.
        """
        digest = self._prove()
        read = document.parse(self.body, self.content_type)
        store.read(partial(self._check, read.references))  # once before anybody waits for the writer
        descriptor = None if read.subject is None else referrer.describe(read, digest, len(self.body))
        with ExitStack() as stack:
            staged = self._stage(store, stack)
            entry = replace(self._manifest(read, digest, staged), at=int(now))

            def edit(names: Names) -> None:
                self._check(read.references, names)
                self._check_conditions(names, digest)
                repositories.ensure(names, self.repository, now, access)
                manifest.put(names, self.repository, entry, staged)
                if descriptor is not None and read.subject is not None:
                    referrer.put(names, self.repository, read.subject, digest, descriptor)
                for tag in self.tags:
                    target = tags.Manifest(digest, entry.media_type, entry.size)
                    tags.put(names, self.repository, tag, target, meta)
                marks.disturb(names, str(self.repository))  # what it names is needed from now on

            removal.change(store, self.repository, edit)
        return entry

    def _prove(self) -> Digest:
        if self.digest is None:
            return Digest.of(self.body)
        hasher = self.digest.hasher()
        hasher.update(self.body)
        found = Digest(self.digest.algorithm, hasher.digest())
        if found != self.digest:
            raise Refused(DIGEST_MISMATCH, {"digest": str(self.digest), "found": str(found)})
        return found

    def _stage(self, store: Store, stack: ExitStack) -> Staged | None:
        if len(self.body) <= INLINE_BYTES:
            return None
        upload = stack.enter_context(store.upload())
        upload.write(self.body)
        return upload.finish()

    def _manifest(self, read: Document, digest: Digest, staged: Staged | None) -> Manifest:
        size = len(self.body)
        if staged is None:
            return Manifest(digest, read.media_type, size, read.subject, self.body)
        return Manifest(digest, read.media_type, size, read.subject, blob=staged.digest)

    def _check(self, references: Iterable[Reference], reads: Reads) -> None:
        missing = [each for each in references if not self._has(reads, each)]
        if missing:
            told = [str(each.digest) for each in missing[:_MOST_TOLD]]
            raise Refused(MANIFEST_BLOB_UNKNOWN, {"digest": told[0], "missing": told})

    def _has(self, reads: Reads, reference: Reference) -> bool:
        """Tell whether something is shown here, and is here: what damage took keeps its names (I9)."""
        place, digest = reference.place, reference.digest
        is_shown = place is not Place.MANIFEST and links.find(reads, self.repository, digest) is not None
        if is_shown and reads.stat(digest) is not None:
            return True
        found = None if place is Place.BLOB else manifest.find(reads, self.repository, digest)
        return found is not None and (found.blob is None or reads.stat(found.blob) is not None)

    def _check_conditions(self, reads: Reads, digest: Digest) -> None:
        if self.conditions == Conditions():
            return
        if not self.tags:
            there = manifest.find(reads, self.repository, digest)
            self.conditions.check(None if there is None else str(there.digest), str(digest))
        for tag in self.tags:
            found = tags.find(reads, self.repository, tag)
            self.conditions.check(None if found is None else _entity(found), tag)


class NotMade(Refused):
    """A tag on a v1 image of which no manifest was made yet, or none that damage took nothing of."""


def find(reads: Reads, repository: Repository, reference: str | Digest) -> Manifest:
    """Return the manifest that a tag or a digest means.

    Raises:
        NotMade: the tag's has to be made first; see `api.content.views`.
        Refused: 404.
    """
    tag = tags.find(reads, repository, reference) if isinstance(reference, str) else None
    digest = pointing.shown(tag) if isinstance(reference, str) else reference
    found = None if digest is None else manifest.find(reads, repository, digest)
    is_made = tag is not None and isinstance(tag.target, tags.Image)
    if found is None or (is_made and manifest.is_damaged(reads, found)):
        raise (NotMade if is_made else Refused)(MANIFEST_UNKNOWN, {"reference": str(reference)})
    return found


def delete(store: Store, repository: Repository, reference: str | Digest, now: float) -> None:
    """Remove a tag and no more; or a manifest, every tag that points to it, and its entry among referrers.

    All of it can be brought back for a while.

    Raises:
        Refused: 404.
    """
    store.read(lambda reads: _check_there(reads, repository, reference))  # a 404 waits for no writer
    if isinstance(reference, str):
        removal.change(store, repository, partial(_delete_tag, repository, reference, now), frees=True)
        return
    for is_last in (*(False,) * pointing.LOOKS, True):  # at last the others wait: a deletion comes to its end
        looked = None if is_last else pointing.look(store, repository, reference)
        edit = partial(_delete_manifest, repository, reference, now, looked)
        with suppress(pointing.SetMeanwhile):
            removal.change(store, repository, edit, frees=True)
            return


def _delete_tag(repository: Repository, tag: str, now: float, names: Names) -> None:
    _check_there(names, repository, tag)
    deletion = trash.begin(names, repository, f"{repository}:{tag}", now)
    tags.delete(names, repository, tag, deletion)


def _delete_manifest(
    repository: Repository, digest: Digest, now: float, looked: pointing.Looked | None, names: Names
) -> None:
    found = find(names, repository, digest)
    deletion = trash.begin(names, repository, f"{repository}@{digest}", now)
    for tag in pointing.listed(names, repository, digest, looked):
        tags.delete(names, repository, tag, deletion)
    if found.subject is not None:
        referrer.delete(names, repository, found.subject, digest, deletion)
    manifest.delete(names, repository, digest, deletion)


def _check_there(reads: Reads, repository: Repository, reference: str | Digest) -> None:
    """Refuse what is not here; a tag on a v1 image is, whether somebody has seen its manifest or not."""
    with suppress(NotMade):
        find(reads, repository, reference)


def _entity(tag: tags.Tag) -> str:
    """Name what a tag shows as its entity tag does; a v1 image that nobody saw here has only its own name."""
    shown = pointing.shown(tag)
    if shown is not None:
        return str(shown)
    assert tag.image is not None, "it shows one or the other"
    return tag.image.id
