"""A repository, or one tag of it, on its way into an OCI layout.

With everything that its manifests need, and what is about them. A tag gets its name in the layout only once all it
needs is there, and nothing is there that is not what its digest says. Refuses to know how files are written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

from api.content import repositories, tags
from api.content.repository import Repository
from api.errors import ApiError
from api.porting import oci
from api.porting.errors import NothingToExport, Unusable
from api.porting.folder import BLOCK_BYTES
from api.porting.report import Report, reporting
from api.porting.writing import Layout
from api.v2 import document, manifest, referrer
from api.v2.document import Place, Reference
from cas import Damaged, Digest, Missing, Store

_MOST_DEPTH: Final = 8  # of indexes within indexes; real ones have two


def write(
    store: Store, repository: Repository, tag: str | None, folder: Path, most_list_bytes: int, report: Report
) -> None:
    """Export all tags, or one, into a layout whose list may be so long.

    Raises:
        NothingToExport: there is no such repository or tag.
        CannotWrite: the system refuses.
    """
    wanted = _wanted(store, repository, tag)
    report.counts.repositories, report.total = 1, len(wanted)
    with Layout(folder, most_list_bytes) as layout:
        outgoing = _Outgoing(store, repository, layout, report)
        for name, found in wanted:
            report.begin(f"{repository.short}:{name}")
            with reporting(report, report.now):
                outgoing.tag(name, found)
            report.step()
        layout.name(outgoing.listed)


def _wanted(store: Store, repository: Repository, tag: str | None) -> list[tuple[str, tags.Tag]]:
    if repositories.find(store, repository) is None:
        raise NothingToExport(f"there is no repository {repository.short}; `cas repo list` shows all")
    if tag is None:
        return store.read(lambda reads: list(tags.walk(reads, repository)))
    found = store.read(lambda reads: tags.find(reads, repository, tag))
    if found is None:
        raise NothingToExport(f"{repository.short} has no tag {tag[:200]}")
    return [(tag, found)]


@final
@dataclass(frozen=True, slots=True)
class _Row:
    """What the list of a layout says of a manifest."""

    digest: Digest
    media_type: str
    size: int

    def descriptor(self, name: str | None = None) -> dict[str, Any]:
        said = {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size}
        return said if name is None else {**said, "annotations": {oci.REF_NAME: name}}


@final
class _Outgoing:
    """One export; `listed` is what its list will say."""

    def __init__(self, store: Store, repository: Repository, layout: Layout, report: Report) -> None:
        self._store, self._repository, self._layout, self._report = store, repository, layout, report
        self._done: dict[Digest, _Row] = {}
        self.listed: list[dict[str, Any]] = []

    def tag(self, name: str, tag: tags.Tag) -> None:
        """Export what a tag points to."""
        if tag.manifest is None:
            raise Unusable("it is an image of Registry v1; pulling it once by a client of today makes its manifest")
        row = self._manifest(tag.manifest.digest)
        self.listed.append(row.descriptor(name))
        self._report.counts.tags += 1

    def _manifest(self, digest: Digest, depth: int = 0) -> _Row:
        """Write a manifest after all it needs, and then what is about it."""
        if digest in self._done:
            return self._done[digest]
        if depth == _MOST_DEPTH:
            raise Unusable(f"{digest} nests too deeply")
        found = self._store.read(lambda reads: manifest.find(reads, self._repository, digest))
        if found is None:
            raise Unusable(f"its manifest {digest} is missing")
        body = b"".join(self._blocks(found.blob)) if found.blob else found.body
        hashed = digest.hasher()
        hashed.update(body)
        if hashed.digest() != digest.raw:
            raise Unusable(f"its manifest {digest} is damaged: its bytes have another digest")
        try:
            read = document.parse(body, found.media_type)
        except ApiError as error:
            raise Unusable(error) from None
        for each in read.references:
            self._reference(each, depth)
        if not self._layout.has(digest, len(body)):
            self._layout.write(digest, [body])
            self._report.counts.manifests += 1
        else:
            self._report.counts.unchanged += 1
        row = self._done[digest] = _Row(digest, found.media_type, len(body))
        self._about(digest, depth)
        return row

    def _reference(self, reference: Reference, depth: int) -> None:
        digest = reference.digest
        is_manifest = reference.place is Place.MANIFEST
        if reference.place is Place.EITHER:
            is_manifest = self._store.read(lambda reads: manifest.find(reads, self._repository, digest)) is not None
        if is_manifest:
            self._manifest(digest, depth + 1)
        else:
            self._blob(digest)

    def _about(self, subject: Digest, depth: int) -> None:
        """Export what is about a manifest; a layout lists it without a name."""
        for digest in self._store.read(
            lambda reads: [found for found, _ in referrer.walk(reads, self._repository, subject)]
        ):
            if digest in self._done:
                continue
            with reporting(self._report, f"{self._repository.short}@{digest}"):
                self.listed.append(self._manifest(digest, depth + 1).descriptor())

    def _blob(self, digest: Digest) -> None:
        found = self._store.read(lambda reads: reads.stat(digest))
        if found is None:
            raise _missing(digest)
        if not self._layout.has(digest, found.size):
            self._layout.write(digest, self._blocks(digest))
            self._report.counts.blobs += 1

    def _blocks(self, digest: Digest) -> Iterator[bytes]:
        """Yield a blob's bytes.

        Raises:
            Unusable: it is missing or damaged; of bytes that are stored as they came, that shows at their end.
        """
        hashed = digest.hasher()
        try:
            with self._store.reader(digest) as reader:
                for start in range(0, reader.size, BLOCK_BYTES):
                    block = reader.read(start, min(start + BLOCK_BYTES, reader.size))
                    hashed.update(block)
                    self._report.block(len(block))
                    yield block
                if hashed.digest() != digest.raw:
                    raise reader.belied()
        except Missing:
            raise _missing(digest) from None
        except Damaged as error:
            said = f"blob {digest} is damaged: "
            raise Unusable(f"its {said}{str(error).removeprefix(said)}") from None


def _missing(digest: Digest) -> Unusable:
    return Unusable(f"its blob {digest} is missing; `cas fsck` says more")
