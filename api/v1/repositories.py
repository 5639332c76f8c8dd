"""Repositories and what they consist of in the store: their record, their tags, their image list.

    repo       ns/repo        when it was made, who may see it
    tag        ns/repo:tag    one name for every protocol: its target, and who pushed it
    v1.member  ns/repo:id     one row an image, so that no push rewrites a long list

Blocking; no HTTP. Deleting any of these keeps the images.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from api.errors import ApiError
from api.v1 import image, refusals
from api.v1.names import Repository, is_tag
from cas import Name, Names, Record, Store

REPO: Final = "repo"
TAG: Final = "tag"
MEMBER: Final = "v1.member"
PUBLIC: Final = "public"
ACCESSES: Final = frozenset({PUBLIC, "private"})

_LIST_STEP: Final = 1000  # rows a change: a list of any length never keeps the other writers waiting for long


def _value(content: Mapping[str, Any]) -> Record:
    return Record(json.dumps(content, separators=(",", ":")).encode())


def _read(record: Record) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(record.value)
    return content


def _repo(repository: Repository) -> Name:
    return Name(REPO, str(repository))


def _tag(repository: Repository, tag: str) -> Name:
    return Name(TAG, f"{repository}:{tag}")


def _member(repository: Repository, image_id: str) -> Name:
    return Name(MEMBER, f"{repository}:{image_id}")


def exists(names: Names | Store, repository: Repository) -> bool:
    """Tell whether a repository was ever made and not deleted."""
    return names.get(_repo(repository)) is not None


def _ensure(names: Names, repository: Repository, now: float) -> None:
    if not exists(names, repository):
        names.put(_repo(repository), _value({"created": int(now), "access": PUBLIC}))


# --- the image list ---------------------------------------------------------------------------------------


def add_images(store: Store, repository: Repository, images: Mapping[str, str | None], now: float) -> None:
    """Make a repository if need be and add to its image list. Nothing is ever taken from the list.

    An empty list is how today's engines end every push; it means nothing.
    """
    fresh = [pair for pair in images.items() if _adds(store, repository, *pair)]
    if not fresh and exists(store, repository):
        return
    for start in range(0, max(len(fresh), 1), _LIST_STEP):
        store.change(partial(_add_some, repository, fresh[start : start + _LIST_STEP], now))


def _add_some(repository: Repository, images: list[tuple[str, str | None]], now: float, names: Names) -> None:
    _ensure(names, repository, now)
    for image_id, checksum in images:
        if _adds(names, repository, image_id, checksum):
            names.put(_member(repository, image_id), _listed(checksum))


def _listed(checksum: str | None) -> Record:
    return _value({"checksum": checksum} if checksum else {})


def _adds(names: Names | Store, repository: Repository, image_id: str, checksum: str | None) -> bool:
    """Tell whether a listed image is new, or now comes with a checksum that was not known."""
    record = names.get(_member(repository, image_id))
    return record is None or (checksum is not None and "checksum" not in _read(record))


def list_images(store: Store, repository: Repository) -> list[dict[str, str]]:
    """List a repository's images with the checksums that were given for them.

    Raises:
        ApiError: 404.
    """
    if not exists(store, repository):
        raise ApiError(*refusals.IMAGES_NOT_FOUND)
    prefix = f"{repository}:"
    return [{"id": name.path.removeprefix(prefix), **_read(record)} for name, record in store.scan(MEMBER, prefix)]


# --- tags -------------------------------------------------------------------------------------------------


def list_tags(store: Store, repository: Repository) -> dict[str, str]:
    """Map a repository's tags to image ids.

    Raises:
        ApiError: 404 if there is no such repository.
    """
    if not exists(store, repository):
        raise ApiError(*refusals.REPOSITORY_NOT_FOUND)
    prefix = f"{repository}:"
    found = ((name.path.removeprefix(prefix), _target(record)) for name, record in store.scan(TAG, prefix))
    return {tag: image_id for tag, image_id in found if image_id is not None}


def _target(record: Record) -> str | None:
    """Return the image a tag points to; None if it points to something of another protocol."""
    target = _read(record)["target"]
    return target["id"] if target["kind"] == "v1" else None


def get_tag(store: Store, repository: Repository, tag: str) -> str:
    """Return the image a tag points to.

    Raises:
        ApiError: 404.
    """
    record = store.get(_tag(repository, tag)) if is_tag(tag) else None
    target = _target(record) if record else None
    if target is None:
        raise ApiError(*refusals.TAG_NOT_FOUND)
    return target


def put_tag(
    store: Store, repository: Repository, tag: str, image_id: str, meta: Mapping[str, object], now: float
) -> None:
    """Point a tag to a complete image, in a repository that is made if need be.

    Raises:
        ApiError: 404 if the image is unknown or still being uploaded.
    """

    def edit(names: Names) -> None:
        target = image.find(names, image_id)
        if target is None or not target.complete:
            raise ApiError(*refusals.IMAGE_NOT_FOUND)
        _ensure(names, repository, now)
        if _adds(names, repository, image_id, None):
            names.put(_member(repository, image_id), _listed(None))
        names.put(_tag(repository, tag), _value({"target": {"kind": "v1", "id": image_id}, "meta": meta}))

    store.change(edit)


def delete_tag(store: Store, repository: Repository, tag: str) -> None:
    """Remove a tag. The repository stays, even without tags.

    Raises:
        ApiError: 404.
    """

    def edit(names: Names) -> None:
        if not is_tag(tag) or not names.delete(_tag(repository, tag)):
            raise ApiError(404, f"{refusals.TAG_NOT_FOUND[1]}: {tag}")

    store.change(edit)


def tag_meta(store: Store, repository: Repository, tag: str) -> dict[str, object] | None:
    """Return who pushed a tag and when; None if there is no such tag."""
    record = store.get(_tag(repository, tag)) if is_tag(tag) else None
    return _read(record)["meta"] if record else None


# --- the repository as a whole ----------------------------------------------------------------------------


def delete(store: Store, repository: Repository) -> None:
    """Remove a repository with its tags and its image list, at once.

    Raises:
        ApiError: 404.
    """

    def edit(names: Names) -> None:
        if not names.delete(_repo(repository)):
            raise ApiError(*refusals.REPOSITORY_NOT_FOUND)
        for kind in (TAG, MEMBER):
            for name, _ in names.scan(kind, f"{repository}:"):
                names.delete(name)

    store.change(edit)


def get_access(store: Store, repository: Repository) -> str:
    """Return `public` or `private`; a repository that nobody made is public."""
    record = store.get(_repo(repository))
    access: str = _read(record)["access"] if record else PUBLIC
    return access


def put_access(store: Store, repository: Repository, access: str, now: float) -> None:
    """Set the property, in a repository that is made if need be; other values than the two do nothing."""
    if access not in ACCESSES:
        return

    def edit(names: Names) -> None:
        _ensure(names, repository, now)
        record = names.get(_repo(repository))
        before = _read(record) if record else {}
        names.put(_repo(repository), _value({**before, "access": access}))

    store.change(edit)
