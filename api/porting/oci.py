"""An OCI image layout, read.

    oci-layout               says that it is one
    index.json               descriptors of manifests; a tag is the annotation org.opencontainers.image.ref.name
    blobs/ALG/HEX            blobs and manifests alike

All of it belongs to one repository, whose name a layout does not say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, final

from api import strict
from api.content.repository import Repository
from api.porting.errors import NotThatKind, Unusable
from api.porting.folder import Folder
from api.porting.incoming import Incoming
from api.porting.report import Report, reporting
from api.porting.terms import Terms
from api.v2 import names
from cas import Digest, InvalidDigest, Store

LAYOUT: Final = "oci-layout"
LAYOUT_CONTENT: Final = b'{"imageLayoutVersion":"1.0.0"}'
INDEX: Final = "index.json"
REF_NAME: Final = "org.opencontainers.image.ref.name"


def path_of(digest: Digest) -> str:
    """Return where a layout has a blob or a manifest."""
    return f"blobs/{digest.algorithm}/{digest.hex}"


def check(folder: Folder) -> None:
    """Refuse a folder of another kind.

    Raises:
        NotThatKind: it is one.
    """
    folder.needs(LAYOUT, "it is no OCI layout; name the folder that has such a file")


def listed(folder: Folder, most_bytes: int) -> list[dict[str, Any]]:
    """Return what the list of a layout names.

    Raises:
        NotThatKind: it is no layout, or its list is damaged.
    """
    check(folder)
    try:
        content = strict.load(folder.read(INDEX, most_bytes))
    except (Unusable, ValueError) as error:
        raise NotThatKind(f"{folder.root / INDEX} cannot be used: {error}") from None
    found = content.get("manifests") if isinstance(content, dict) else None
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise NotThatKind(f"{folder.root / INDEX} has no list of manifests")
    return found


def name_of(descriptor: Mapping[str, Any]) -> str | None:
    """Return the name that a descriptor has in a list; None if it has none."""
    annotations = descriptor.get("annotations")
    name = annotations.get(REF_NAME) if isinstance(annotations, dict) else None
    return name if isinstance(name, str) else None


@final
@dataclass(frozen=True, slots=True)
class _Source:
    """The layout as one repository."""

    folder: Folder
    repository: Repository

    def manifest(self, digest: Digest) -> str:
        """See `Source`."""
        return path_of(digest)

    def blob(self, digest: Digest) -> str:
        """See `Source`."""
        return path_of(digest)


def read(folder: Folder, repository: Repository, store: Store, terms: Terms, report: Report) -> None:
    """Import the layout into a repository.

    Raises:
        NotThatKind: it is none.
    """
    named = list(_named(listed(folder, terms.max_manifest_bytes), report))
    incoming, source = Incoming(store, terms, report), _Source(folder, repository)
    report.total = len(named)
    incoming.begin(repository)
    for tag, digest in named:
        report.begin(f"{repository.short}{f':{tag}' if tag else f'@{digest}'}")
        _read_one(source, tag, digest, incoming, report)
        report.step()


def _named(descriptors: list[dict[str, Any]], report: Report) -> Iterator[tuple[str | None, Digest]]:
    for number, each in enumerate(descriptors):
        with reporting(report, f"{INDEX}: manifests[{number}]"):
            try:
                yield name_of(each), Digest.parse(str(each.get("digest")))
            except InvalidDigest as error:
                raise Unusable(error) from None


def _read_one(source: _Source, tag: str | None, digest: Digest, incoming: Incoming, report: Report) -> None:
    if not incoming.manifest(source, digest) or tag is None:  # what was left out is told already
        return
    with reporting(report, f"{source.repository.short}:{tag}"):
        if not names.is_tag(tag):
            raise Unusable(f"{tag[:200]!r} cannot be a tag; its manifest is here as {digest}")
        if not incoming.takes_for_referrers(source, tag, digest):
            incoming.tag(source, tag, digest)
