"""The storage folder of distribution, Docker's registry of the second generation, as its filesystem driver lays it out.

    docker/registry/v2/blobs/ALG/HH/HEX/data                          every blob and manifest, once
    docker/registry/v2/repositories/NAME/
        _layers/ALG/HEX/link                                          blobs that the repository shows
        _manifests/revisions/ALG/HEX/link                             manifests that it has
        _manifests/tags/TAG/current/link                              what a tag points to

A link is a file that says a digest. What a repository does not link is not taken for it, though the blob may be there:
somebody deleted it, or may not see it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, final

from api.content.repository import Repository
from api.errors import ApiError
from api.porting.errors import Unusable
from api.porting.folder import Folder
from api.porting.incoming import Incoming
from api.porting.report import Report, reporting
from api.porting.terms import Terms
from api.v2 import names
from cas import Digest, InvalidDigest, Store

_BASE: Final = "docker/registry/v2"
_REPOSITORIES: Final = f"{_BASE}/repositories"
_MOST_LINK_BYTES: Final = 256


@final
@dataclass(frozen=True, slots=True)
class _Source:
    """One repository of the folder."""

    folder: Folder
    name: str
    repository: Repository

    @property
    def path(self) -> str:
        """Where its links are."""
        return f"{_REPOSITORIES}/{self.name}"

    def manifest(self, digest: Digest) -> str:
        """See `Source`."""
        return self._linked(f"{self.path}/_manifests/revisions", digest)

    def blob(self, digest: Digest) -> str:
        """See `Source`."""
        return self._linked(f"{self.path}/_layers", digest)

    def listed(self, links: str, report: Report) -> list[Digest]:
        """Return what is linked in a folder of links; what was deleted leaves its folder behind."""
        found = []
        for algorithm in self.folder.names(f"{self.path}/{links}"):
            for text in self.folder.names(f"{self.path}/{links}/{algorithm}"):
                path = f"{self.path}/{links}/{algorithm}/{text}"
                with reporting(report, path):
                    if self.folder.has(f"{path}/link"):
                        found.append(_digest(f"{algorithm}:{text}"))
        return found

    def has_data(self, digest: Digest) -> bool:
        """Tell whether the bytes are there at all."""
        return self.folder.has(_data(digest))

    def link(self, path: str) -> Digest:
        """Read a link."""
        text = self.folder.read(f"{path}/link", _MOST_LINK_BYTES)
        return _digest(text.decode(errors="replace").strip())

    def _linked(self, links: str, digest: Digest) -> str:
        at = f"{links}/{digest.algorithm}/{digest.hex}"
        if not self.folder.has(f"{at}/link"):
            raise Unusable(f"{digest} is not linked in {links}")
        if self.link(at) != digest:
            raise Unusable(f"{at}/link is damaged: it says another digest")
        return _data(digest)


def check(folder: Folder) -> None:
    """Refuse a folder of another kind.

    Raises:
        NotThatKind: it is one.
    """
    folder.needs(_REPOSITORIES, "name the folder that the old registry's configuration calls rootdirectory")


def read(folder: Folder, store: Store, terms: Terms, report: Report) -> None:
    """Import all repositories.

    Raises:
        NotThatKind: there are none.
    """
    check(folder)
    incoming = Incoming(store, terms, report)
    sources = list(_sources(folder, report))
    for source in sources:
        with reporting(report, source.name):
            report.total += len(folder.names(f"{source.path}/_manifests/revisions/sha256"))
    for source in sources:
        incoming.begin(source.repository)
        with reporting(report, source.name):
            _read_repository(source, incoming, report)


def _sources(folder: Folder, report: Report) -> Iterator[_Source]:
    """Find the repositories; one may have others below it."""
    to_do, taken = [""], dict[Repository, str]()
    while to_do:
        name = to_do.pop()
        with reporting(report, name):
            entries = folder.names(f"{_REPOSITORIES}/{name}".rstrip("/"))
            below = [f"{name}/{each}".lstrip("/") for each in reversed(entries) if not each.startswith("_")]
            to_do += [each for each in below if len(each) <= names.MOST_NAME_CHARS]
            if "_manifests" in entries:
                yield _Source(folder, name, _named(name, taken))


def _named(name: str, taken: dict[Repository, str]) -> Repository:
    try:
        repository = names.repository(name)
    except ApiError as error:
        raise Unusable(error) from None
    if taken.setdefault(repository, name) != name:
        raise Unusable(f"here this is the same repository as {taken[repository]}; rename one of the two there")
    return repository


def _read_repository(source: _Source, incoming: Incoming, report: Report) -> None:
    for digest in source.listed("_manifests/revisions", report):
        report.begin(f"{source.name}@{digest}")
        incoming.manifest(source, digest)
        report.step()
    for tag in source.folder.names(f"{source.path}/_manifests/tags"):
        with reporting(report, f"{source.name}:{tag}"):
            _read_tag(source, tag, incoming)
    layers = source.listed("_layers", report)
    for digest in layers:  # those that no manifest names; most are here by now
        with reporting(report, f"{source.name}@{digest}"):
            if source.has_data(digest):
                incoming.blob(source, digest)


def _read_tag(source: _Source, tag: str, incoming: Incoming) -> None:
    if not names.is_tag(tag):
        raise Unusable("this is no tag")
    digest = source.link(f"{source.path}/_manifests/tags/{tag}/current")
    if not incoming.takes_for_referrers(source, tag, digest):
        incoming.tag(source, tag, digest)


def _digest(text: str) -> Digest:
    try:
        return Digest.parse(text)
    except InvalidDigest as error:
        raise Unusable(error) from None


def _data(digest: Digest) -> str:
    return f"{_BASE}/blobs/{digest.algorithm}/{digest.hex[:2]}/{digest.hex}/data"
