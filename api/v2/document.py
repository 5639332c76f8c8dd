"""Manifests as documents: what a stranger's bytes say, checked. Pure: bytes in, values or a refusal out.

Knows the four kinds of manifest and which of their members matter; all the rest is their owner's. A manifest's bytes
are stored and served exactly as they came.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from api import strict
from api.v2.errors import MANIFEST_INVALID, Refused
from cas import Digest, InvalidDigest

OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
INDEXES: Final = frozenset({OCI_INDEX, DOCKER_LIST})
TYPES: Final = INDEXES | {OCI_MANIFEST, DOCKER_MANIFEST}

# Layers that may lie elsewhere: their owners do not let others distribute them.
_ELSEWHERE: Final = (
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
)
_IMAGE_MEMBERS: Final = ("config", "layers")
_INDEX_MEMBERS: Final = ("manifests",)
_SCHEMA: Final = 2
_LARGEST: Final = (1 << 63) - 1  # that clients can read: they keep sizes as signed numbers of 64 bits
_OURS: Final = ("schemaVersion", "mediaType", "config", "layers", "manifests", "subject", "artifactType", "annotations")
_OF_DESCRIPTORS: Final = ("mediaType", "digest", "size", "urls")


class Place(Enum):
    """Where something that a manifest names has to be, in the same repository."""

    BLOB = "blob"
    MANIFEST = "manifest"
    EITHER = "either"  # build caches are indexes that list layers


@dataclass(frozen=True, slots=True)
class Reference:
    """Something that must be there before a manifest can name it."""

    digest: Digest
    place: Place


@dataclass(frozen=True, slots=True)
class Document:
    """What matters of a manifest.

    Attributes:
        media_type: its own.
        references: what it needs, each once.
        subject: what it is about, be that here or not.
        artifact_type: what it is to those who look for things about its subject.
        annotations: its own, in full.
    """

    media_type: str
    references: tuple[Reference, ...]
    subject: Digest | None
    artifact_type: str | None
    annotations: Mapping[str, str] | None


def parse(body: bytes, content_type: str | None) -> Document:
    """Read a manifest that was pushed with this `Content-Type`.

    Raises:
        Refused: 400.
    """
    content = _load(body)
    _check_spelling(content, _OURS, "its")
    media_type = _media_type(content, content_type)
    _check_shape(content, media_type)
    references = _index_references(content) if media_type in INDEXES else _image_references(content)
    subject = content.get("subject")
    return Document(
        media_type=media_type,
        references=tuple(dict.fromkeys(references)),
        subject=None if subject is None else _descriptor(subject, "subject").digest,
        artifact_type=_artifact_type(content, media_type),
        annotations=_annotations(content),
    )


def _load(body: bytes) -> dict[str, Any]:
    try:
        content = strict.load(body)
    except ValueError as error:  # of JSON, its depth, UTF-8, or a number with thousands of digits
        raise _invalid(f"it is not JSON that is taken here: {str(error)[:200]}") from None
    if not isinstance(content, dict):
        raise _invalid("it is not a JSON object")
    return content


def _media_type(content: Mapping[str, Any], content_type: str | None) -> str:
    """Settle what the document is: its header says it, and the document must not contradict."""
    told = None if content_type is None else content_type.partition(";")[0].strip()
    own = content.get("mediaType")
    media_type = told or own
    if own is not None and own != media_type:
        raise _invalid(f"its mediaType is {str(own)[:200]!r}, but its Content-Type {str(told)[:200]!r}")
    if not isinstance(media_type, str) or media_type not in TYPES:
        raise _invalid(f"{str(media_type)[:200]!r} is not one of the types taken here: {', '.join(sorted(TYPES))}")
    return media_type


def _check_shape(content: Mapping[str, Any], media_type: str) -> None:
    version = content.get("schemaVersion")
    if version != _SCHEMA or type(version) is not int:  # 2.0 is another thing to most clients
        raise _invalid("its schemaVersion is not 2; older ones are not taken, push with a newer client")
    foreign = _IMAGE_MEMBERS if media_type in INDEXES else _INDEX_MEMBERS
    for member in foreign:  # two readers could take such a document for two different things
        if member in content:
            raise _invalid(f"a document of type {media_type} must not have the member {member!r}")


def _check_spelling(content: Mapping[str, Any], known: tuple[str, ...], whose: str) -> None:
    """Refuse what some clients take for a member that counts, and others, as this registry, for none."""
    meant = {name.casefold(): name for name in known}
    for name in content:
        own = meant.get(name.casefold(), name)
        if name != own:
            raise _invalid(f"{whose} member {name[:200]!r} differs from {own!r} by its case alone")


def _image_references(content: Mapping[str, Any]) -> Iterator[Reference]:
    if not isinstance(content.get("config"), dict):
        raise _invalid("it has no config")
    yield Reference(_descriptor(content["config"], "config").digest, Place.BLOB)
    for at, member in enumerate(_list(content, "layers")):
        layer = _descriptor(member, f"layers[{at}]")
        if not (layer.urls and layer.media_type.startswith(_ELSEWHERE)):
            yield Reference(layer.digest, Place.BLOB)


def _index_references(content: Mapping[str, Any]) -> Iterator[Reference]:
    for at, member in enumerate(_list(content, "manifests")):
        child = _descriptor(member, f"manifests[{at}]")
        yield Reference(child.digest, Place.MANIFEST if child.media_type in TYPES else Place.EITHER)


@dataclass(frozen=True, slots=True)
class _Descriptor:
    media_type: str
    digest: Digest
    urls: bool


def _descriptor(value: object, where: str) -> _Descriptor:
    if not isinstance(value, dict):
        raise _invalid(f"its {where} is not an object")
    _check_spelling(value, _OF_DESCRIPTORS, f"of its {where}, the")
    media_type, digest, size = value.get("mediaType"), value.get("digest"), value.get("size")
    if not isinstance(media_type, str) or not isinstance(digest, str):
        raise _invalid(f"its {where} lacks a mediaType or a digest")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _LARGEST:
        raise _invalid(f"its {where} has no size, or one that no client can read")
    try:
        parsed = Digest.parse(digest)
    except InvalidDigest as error:
        raise _invalid(f"the digest of its {where}: {error}") from None
    return _Descriptor(media_type, parsed, bool(value.get("urls")))


def _list(content: Mapping[str, Any], member: str) -> list[Any]:
    """Return a list; one that is missing or null is empty, as some encoders write that."""
    value = content.get(member)
    if value is None:
        return []
    if not isinstance(value, list):
        raise _invalid(f"its {member} are not a list")
    return value


def _artifact_type(content: Mapping[str, Any], media_type: str) -> str | None:
    own = content.get("artifactType")
    if own is not None and not isinstance(own, str):
        raise _invalid("its artifactType is not a text")
    if own:
        return own
    return None if media_type in INDEXES else str(content["config"]["mediaType"])


def _annotations(content: Mapping[str, Any]) -> dict[str, str] | None:
    value = content.get("annotations")
    if value is None:
        return None
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise _invalid("its annotations are not texts by name")
    return value


def _invalid(reason: str) -> Refused:
    return Refused(MANIFEST_INVALID, {"reason": reason}, message=f"not a manifest that can be stored: {reason}")
