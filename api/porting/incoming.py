"""Manifests on their way from a folder into a repository, with everything they need, in that order.

Holds the folder to what the API holds a client to: every byte is hashed before it counts, a repository shows a blob
only once its bytes were seen, and nothing comes before what it names. What is there already is not read again; what
was lost of it by damage is, and so comes back. Refuses to know how folders are laid out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final, Protocol, final

from api import strict
from api.content import marks, named, removal, repositories, tags
from api.content.repository import Repository
from api.errors import ApiError
from api.porting import fallback
from api.porting.errors import Unusable
from api.porting.folder import Folder
from api.porting.report import Report
from api.porting.terms import Terms
from api.v2 import document, links, manifest
from api.v2.document import OCI_INDEX, OCI_MANIFEST, Document, Place
from api.v2.errors import MANIFEST_BLOB_UNKNOWN
from api.v2.manifest import Manifest
from api.v2.push import Conditions, Push
from api.v2.uploads import Uploads
from cas import Damaged, Digest, InvalidDigest, Mismatch, Missing, Name, Names, Reads, Store

TRIES: Final = 5  # against collections that give no grace: each takes what is here and not named yet
IMPORTED: Final = "imported"  # in what is remembered of a tag, until a client sets it


class Source(Protocol):
    """One repository in a folder; a path is told only of what that repository has."""

    @property
    def folder(self) -> Folder:
        """Where paths begin."""
        ...

    @property
    def repository(self) -> Repository:
        """Where to."""
        ...

    def manifest(self, digest: Digest) -> str:
        """Return a manifest's path, or raise `Unusable`."""
        ...

    def blob(self, digest: Digest) -> str:
        """Return a blob's path, or raise `Unusable`."""
        ...


@final
class Incoming:
    """What one import brings; remembers which bytes it has seen, and what it left out."""

    def __init__(self, store: Store, terms: Terms, report: Report) -> None:
        self._store, self._terms, self._report = store, terms, report
        self._proven: set[Digest] = set()
        self._damaged: dict[str, str] = {}  # by path: read once, however many need it
        self._here: set[Digest] = set()  # manifests of the repository that is worked on, and those left out of it
        self._left: set[Digest] = set()

    def begin(self, repository: Repository) -> None:
        """Begin a repository; if rows of one of that name are on their way, see to them first."""
        self._report.counts.repositories += 1
        self._here.clear()
        self._left.clear()
        finish_removal(self._store, repository)

    def manifest(self, source: Source, wanted: Digest) -> bool:
        """See to it that a manifest and all it names is there; tell whether it is. What is left out is reported."""
        to_do = [(wanted, False)]
        while to_do:
            digest, are_children_done = to_do.pop()
            if digest in self._here or digest in self._left:
                continue
            if (body := self._body(source.repository, digest)) is not None:
                self._report.counts.unchanged += 1
                self._here.add(digest)
                to_do += [(child, False) for child in self._heal(source, digest, body)]
                continue
            try:
                children = self._try(source, digest)
                if children and are_children_done:
                    raise self._lacking(f"it names {children[0]}, which", children[0])
            except Unusable as error:
                self._left.add(digest)
                self._report.skip(f"{source.repository.short}@{digest}", error)
                continue
            if children:
                to_do += [(digest, True), *((child, False) for child in children)]
            else:
                self._here.add(digest)
        return wanted in self._here

    def _try(self, source: Source, digest: Digest) -> list[Digest]:
        """Store a manifest; or return the manifests that have to come before it."""
        body, read = self._document(source, digest)
        needed = (each.digest for each in read.references if each.place is Place.MANIFEST)
        children = [child for child in needed if self._body(source.repository, child) is None]
        if not children:
            self._take(source, digest, body, read)
        return children

    def _lacking(self, what: str, digest: Digest) -> Unusable:
        """Say why a manifest is not there: it was before, or it never came."""
        return gone(what) if digest in self._here else Unusable(f"{what} was left out")

    def _body(self, repository: Repository, digest: Digest) -> bytes | None:
        """Return the bytes of a manifest that is there; None if it is not, or they were lost."""
        found = self._find(repository, digest)
        if found is None or found.blob is None:
            return None if found is None else found.body
        with suppress(Missing, Damaged), self._store.reader(found.blob) as reader:
            return reader.read()
        return None

    def _heal(self, source: Source, digest: Digest, body: bytes) -> list[Digest]:
        """Bring back what a manifest names and the repository shows, but damage took; return other manifests it names.

        What is not shown was deleted on request, and stays so.
        """
        others: list[Digest] = []
        for each in _named(body):
            if self._find(source.repository, each) is not None:
                others.append(each)
            elif self._is_lost(source.repository, each):
                try:
                    self.blob(source, each)
                except Unusable as error:
                    why = f"blob {each} is lost here, and {error}"
                    self._report.skip(f"{source.repository.short}@{digest}", Unusable(why))
        return others

    def _is_lost(self, repository: Repository, digest: Digest) -> bool:
        def look(reads: Reads) -> bool:
            return reads.stat(digest) is None and links.find(reads, repository, digest) is not None

        return self._store.read(look)

    def blob(self, source: Source, digest: Digest) -> None:
        """See to it that a blob is there and shown in the repository.

        Raises:
            Unusable: it cannot be.
        """
        now = self._terms.clock()
        uploads = Uploads(self._store, source.repository, self._terms.access, now)

        def look(reads: Reads) -> links.Link | None:
            return None if reads.stat(digest) is None else links.find(reads, source.repository, digest)

        shown = self._store.read(look)
        if shown is not None and (not links.is_stale(shown, now) or self._show(uploads, digest)):
            return
        path = source.blob(digest)
        if path in self._damaged:
            raise Unusable(self._damaged[path])
        if digest in self._proven and self._show(uploads, digest):
            return
        try:
            self._read(source.folder, path, uploads, digest)
        except Unusable as error:
            self._damaged[path] = str(error)
            raise
        self._proven.add(digest)

    def tag(self, source: Source, tag: str, digest: Digest) -> None:
        """Point a tag to a manifest; what a client has pushed under it stays.

        Raises:
            Unusable: the manifest is not there, or the tag is a client's.
        """
        repository = source.repository

        def target(reads: Reads) -> tags.Manifest:
            found = manifest.find(reads, repository, digest)
            if found is None:
                raise self._lacking(f"its manifest {digest}", digest)
            return tags.Manifest(digest, found.media_type, found.size)

        if set_tag(self._store, repository, tag, target, {"at": int(self._terms.clock())}):
            self._report.counts.tags += 1

    def takes_for_referrers(self, source: Source, tag: str, digest: Digest) -> bool:
        """Take what a tag of the fallback scheme lists; tell whether it was such a list, and is needed no more."""
        if not fallback.is_tag(tag):
            return False
        _, read = self._document(source, digest)
        if read.media_type != OCI_INDEX:
            return False
        found = [each.digest for each in read.references if self.manifest(source, each.digest)]
        listed = [self._find(source.repository, each) for each in found]
        return all(each is None or (each.subject and fallback.tag_of(each.subject) == tag) for each in listed)

    def _document(self, source: Source, digest: Digest) -> tuple[bytes, Document]:
        path = source.manifest(digest)
        body = source.folder.read(path, self._terms.max_manifest_bytes)
        hasher = digest.hasher()
        hasher.update(body)
        if hasher.digest() != digest.raw:
            raise Unusable(_other_digest(path))
        try:
            return body, document.parse(body, _type_of(body))
        except ApiError as error:
            raise Unusable(error) from None

    def _take(self, source: Source, digest: Digest, body: bytes, read: Document) -> None:
        pushed = Push(source.repository, body, read.media_type, digest, (), Conditions())
        for _ in range(TRIES):
            for each in read.references:
                if each.place is not Place.MANIFEST:
                    self.blob(source, each.digest)
            try:
                pushed.store(self._store, self._terms.access, {}, self._terms.clock())
                break
            except ApiError as error:
                if error.code != MANIFEST_BLOB_UNKNOWN.code:
                    raise Unusable(error) from None
        else:
            raise gone("something it names")
        self._report.counts.manifests += 1
        self._report.moved(self._report)

    def _find(self, repository: Repository, digest: Digest) -> Manifest | None:
        return self._store.read(lambda reads: manifest.find(reads, repository, digest))

    def _show(self, uploads: Uploads, digest: Digest) -> bool:
        def edit(names: Names) -> bool:
            stored = names.stat(digest)
            if stored is not None:
                uploads.show(names, digest, stored.size)
            return stored is not None

        return removal.change(self._store, uploads.repository, edit)

    def _read(self, folder: Folder, path: str, uploads: Uploads, digest: Digest) -> None:
        with folder.open(path) as file:
            arrival = uploads.whole(digest)
            try:
                for block in file.blocks():
                    arrival.begin().write(block)
                    self._report.block(len(block))
                arrival.close(digest)
            except Mismatch:
                raise Unusable(_other_digest(path)) from None
            except ApiError as error:
                raise Unusable(error) from None
            finally:
                arrival.drop()
        self._report.counts.blobs += 1


def finish_removal(store: Store, repository: Repository) -> None:
    """See to what is left of an older repository of that name, so that a new one can be made."""
    if store.get(Name(repositories.GONE, str(repository))) is not None:
        removal.finish(store, repository)


def set_tag(
    store: Store,
    repository: Repository,
    tag: str,
    target: Callable[[Reads], tags.Manifest | tags.Image],
    meta: Mapping[str, Any],
) -> bool:
    """Point a tag to something that `target` finds or refuses; tell whether it was not so already.

    Raises:
        Unusable: a client has pushed the tag; it stays.
    """

    def look(reads: Reads) -> tags.Manifest | tags.Image | None:
        wanted = target(reads)
        return wanted if _may_set(tags.find(reads, repository, tag), wanted) else None

    def edit(names: Names) -> None:
        wanted = look(names)
        if wanted is not None:
            tags.put(names, repository, tag, wanted, {**meta, IMPORTED: True})
            marks.disturb(names, str(repository))

    if store.read(look) is None:
        return False
    store.change(edit)
    return True


def _may_set(before: tags.Tag | None, wanted: tags.Manifest | tags.Image) -> bool:
    if before is None:
        return True
    if before.target == wanted:
        return False
    if not before.meta.get(IMPORTED):
        raise Unusable("the tag is here already, and was pushed by a client; it stays as it is")
    return True


def _named(body: bytes) -> Iterator[Digest]:
    for text in sorted(named.digests(body)):
        with suppress(InvalidDigest):  # it only looks like one
            yield Digest.parse(text)


def gone(what: str) -> Unusable:
    """Say that something went while it was brought, and what to do."""
    return Unusable(f"{what} was removed meanwhile, by a client or a collection without grace; import again after that")


def _other_digest(path: str) -> str:
    return f"{path} is damaged: its bytes have another digest"


def _type_of(body: bytes) -> str | None:
    """Guess the type of a manifest that does not say it, which is an OCI one's right."""
    try:
        content = strict.load(body)
    except ValueError:
        return None  # the parser says it better
    if not isinstance(content, dict) or "mediaType" in content:
        return None
    return OCI_INDEX if "manifests" in content else OCI_MANIFEST
