"""Tags: one record for every protocol, whatever its target is.

    tag    ns/repo:tag    {"target": …, "meta": {…}, "view": …}

    target    {"kind": "v1", "id": …} or {"kind": "manifest", "digest": …, "type": …, "size": …}
    view      the same of the other kind, once somebody asked: what the target is to the other generation

Setting a tag leaves no view behind, so both change together. Blocking; no HTTP.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from api.content import trash
from api.content.repository import Repository
from api.content.trash import Deletion
from api.content.values import content, record
from cas import Digest, Name, Names, Reads, Record

TAG: Final = "tag"
_STEP: Final = 1000  # tags looked at in one go


@dataclass(frozen=True, slots=True)
class Image:
    """A v1 image as a target."""

    id: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest as a target, with what a HEAD of the tag says."""

    digest: Digest
    type: str
    size: int


@dataclass(frozen=True, slots=True)
class Tag:
    """What a tag points to; `meta` is whatever its last writer wanted to be remembered.

    Attributes:
        target: what was pushed.
        view: what that is to the other generation of clients, as far as it was made.
    """

    target: Image | Manifest
    meta: Mapping[str, Any]
    view: Image | Manifest | None = None

    @property
    def image(self) -> Image | None:
        """The v1 image, pushed or made."""
        return next((each for each in (self.target, self.view) if isinstance(each, Image)), None)

    @property
    def manifest(self) -> Manifest | None:
        """The manifest, pushed or made."""
        return next((each for each in (self.target, self.view) if isinstance(each, Manifest)), None)


def find(reads: Reads, repository: Repository, tag: str) -> Tag | None:
    """Return a tag, or None."""
    found = reads.get(_name(repository, tag))
    return None if found is None else read(found)


def put(names: Names, repository: Repository, tag: str, target: Image | Manifest, meta: Mapping[str, Any]) -> None:
    """Set a tag, whatever it pointed to before."""
    names.put(_name(repository, tag), record({"target": _write(target), "meta": dict(meta)}))


def show(names: Names, repository: Repository, tag: str, target: Image | Manifest, view: Image | Manifest) -> bool:
    """Remember what a tag's target is to the other generation; tell whether the tag still points there."""
    found = find(names, repository, tag)
    if found is None or found.target != target:
        return False
    if found.view != view:
        value = {"target": _write(target), "meta": dict(found.meta), "view": _write(view)}
        names.put(_name(repository, tag), record(value))
    return True


def delete(names: Names, repository: Repository, tag: str, deletion: Deletion) -> bool:
    """Remove a tag as part of a deletion; tell whether it was there."""
    return trash.take(names, deletion, _name(repository, tag))


def walk(reads: Reads, repository: Repository, after: str = "", *, step: int = _STEP) -> Iterator[tuple[str, Tag]]:
    """Yield the tags that follow `after`, in byte order, reading no more than `step` ahead."""
    prefix = f"{repository}:"
    low = prefix + after
    while found := reads.scan(TAG, prefix, after=low, limit=min(step, _STEP)):
        for name, each in found:
            yield name.path.removeprefix(prefix), read(each)
        low = found[-1][0].path


def _write(target: Image | Manifest) -> dict[str, Any]:
    match target:
        case Image(id):
            return {"kind": "v1", "id": id}
        case Manifest(digest, media_type, size):
            return {"kind": "manifest", "digest": str(digest), "type": media_type, "size": size}


def read(found: Record) -> Tag:
    """Read what `put` wrote."""
    value = content(found)
    view = value.get("view")
    return Tag(_read(value["target"]), value["meta"], None if view is None else _read(view))


def _read(target: Mapping[str, Any]) -> Image | Manifest:
    if target["kind"] == "v1":
        return Image(target["id"])
    return Manifest(Digest.parse(target["digest"]), target["type"], target["size"])


def _name(repository: Repository, tag: str) -> Name:
    return Name(TAG, f"{repository}:{tag}")
