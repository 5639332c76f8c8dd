"""What Registry v1 makes of repositories: their image lists, tags on images, the `access` property.

A tag on a manifest is one on the image that was made of it; who may have none made finds no such tag here. Blocking; no
HTTP. Deleting any of these keeps the images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Final

from api.content import removal, repositories, tags, trash
from api.content.repositories import Access
from api.content.repository import Repository
from api.content.views import Views
from api.errors import ApiError
from api.v1 import homes, refusals
from api.v1.image import Image
from api.v1.images import Place
from api.v1.names import is_tag
from cas import Names, Reads, Store

_LIST_STEP: Final = 1000  # rows a change or look: a list of any length never keeps others waiting for long


def _check(reads: Reads, repository: Repository, refusal: tuple[int, str] = refusals.REPOSITORY_NOT_FOUND) -> None:
    if repositories.find(reads, repository) is None:
        raise ApiError(*refusal)


# --- the image list ---------------------------------------------------------------------------------------


def add_images(
    store: Store, repository: Repository, images: Mapping[str, str | None], now: float, access: Access
) -> None:
    """Make a repository if need be and add to its image list. Nothing is ever taken from the list.

    An empty list is how today's engines end every push; it means nothing.
    """

    def look(reads: Reads) -> tuple[bool, list[tuple[str, str | None]]]:
        fresh = [pair for pair in images.items() if homes.adds(reads, repository, *pair)]
        return repositories.find(reads, repository) is not None, fresh

    there, fresh = store.read(look)
    if there and not fresh:
        return
    for start in range(0, max(len(fresh), 1), _LIST_STEP):
        some = fresh[start : start + _LIST_STEP]
        removal.change(store, repository, partial(_add_some, repository, some, now, access))


def _add_some(
    repository: Repository, images: list[tuple[str, str | None]], now: float, access: Access, names: Names
) -> None:
    repositories.ensure(names, repository, now, access)
    for image_id, checksum in images:
        homes.add(names, repository, image_id, checksum)


def list_images(store: Store, repository: Repository) -> list[dict[str, str]]:
    """List a repository's images with the checksums that were given for them.

    Raises:
        ApiError: 404.
    """

    def look(reads: Reads) -> list[dict[str, str]]:
        _check(reads, repository, refusals.IMAGES_NOT_FOUND)
        return homes.listed(reads, repository)

    return store.read(look)


def is_listed(store: Store, repository: Repository, image_id: str) -> bool:
    """Tell whether an id is in a repository's list."""
    return store.read(lambda reads: homes.is_listed(reads, repository, image_id))


# --- tags -------------------------------------------------------------------------------------------------


def list_tags(
    store: Store, views: Views, repository: Repository, refusal: tuple[int, str] = refusals.REPOSITORY_NOT_FOUND
) -> dict[str, str | None]:
    """Map a repository's tags to image ids; to None where the image has to be made first, if there can be one.

    Raises:
        ApiError: 404 if there is no such repository.
    """
    shown: dict[str, str | None] = {}

    def look(after: str, reads: Reads) -> str | None:
        _check(reads, repository, refusal)
        last = None
        for last, tag in islice(tags.walk(reads, repository, after, step=_LIST_STEP), _LIST_STEP):
            if tag.image is not None or not views.has_no_image(reads, repository, tag):
                image = _sound(reads, repository, tag).image
                shown[last] = None if image is None else image.id
        return last

    after: str | None = ""
    while after is not None:
        after = store.read(partial(look, after))
    return shown


def tag_meta(store: Store, repository: Repository, tag: str) -> Mapping[str, object] | None:
    """Return who pushed a tag and when; None if there is no such tag."""
    found = store.read(partial(_look, repository, tag))
    if found is None or isinstance(found.target, tags.Image):
        return None if found is None else found.meta
    return {"last_update": found.meta.get("at")}


def find_tag(store: Store, repository: Repository, tag: str) -> tags.Tag | None:
    """Return a tag, whatever it points to; without what was made of that, if it is to be made anew."""

    def look(reads: Reads) -> tags.Tag | None:
        found = _look(repository, tag, reads)
        return None if found is None else _sound(reads, repository, found)

    return store.read(look)


def _sound(reads: Reads, repository: Repository, tag: tags.Tag) -> tags.Tag:
    """Return a tag without the image that was made of its target, if damage took some of that."""
    view = tag.view
    is_damaged = isinstance(view, tags.Image) and homes.is_damaged(reads, repository, view.id)
    return replace(tag, view=None) if is_damaged else tag


def _look(repository: Repository, tag: str, reads: Reads) -> tags.Tag | None:
    return tags.find(reads, repository, tag) if is_tag(tag) else None


def put_tag(
    place: Place, repository: Repository, tag: str, image_id: str, meta: Mapping[str, object], access: Access
) -> None:
    """Point a tag to a complete image that is seen from a place, in a repository that is made if need be.

    Raises:
        ApiError: 404 if the image or an ancestor is unknown there, still being uploaded or lost: who pulls needs them
            all, and a collection may have taken a base that stood in no repository yet.
    """

    def edit(names: Names) -> None:
        place.check_time(names, image_id)
        images = _line(place, names, image_id)
        repositories.ensure(names, repository, place.now, access)
        homes.need(names, str(repository), image_id)
        homes.adopt(names, repository, images, place.now)
        tags.put(names, repository, tag, tags.Image(image_id), meta)

    removal.change(place.store, repository, edit)


def _line(place: Place, reads: Reads, image_id: str) -> list[Image]:
    top, lacking = place.find(reads, image_id), refusals.IMAGE_NOT_FOUND
    if top is None:
        raise ApiError(*lacking)
    line = homes.whole_line(reads, place.home, top, place.settings.max_chain, lacking, place.sees)
    if any(each.is_lost(reads) for each in line):
        raise ApiError(*refusals.IMAGE_LOST)
    return line


def delete_tag(store: Store, repository: Repository, tag: str, now: float) -> None:
    """Remove a tag, which can be brought back for a while. The repository stays, even without tags.

    Raises:
        ApiError: 404.
    """

    def edit(names: Names) -> None:
        found = _look(repository, tag, names)
        if found is None:
            raise ApiError(*refusals.no_tag(tag))
        tags.delete(names, repository, tag, trash.begin(names, repository, f"{repository}:{tag}", now))

    removal.change(store, repository, edit, frees=True)


# --- the repository as a whole ----------------------------------------------------------------------------


def delete(store: Store, repository: Repository, now: float) -> None:
    """Remove a repository with everything in it, whichever protocol brought it; it can be brought back for a while.

    Raises:
        ApiError: 404.
    """
    if not removal.remove(store, repository, now):
        raise ApiError(*refusals.REPOSITORY_NOT_FOUND)


def check(store: Store, repository: Repository) -> None:
    """Raise unless a repository is there.

    Raises:
        ApiError: 404.
    """
    store.read(lambda reads: _check(reads, repository))


def get_access(store: Store, repository: Repository, unknown: Access) -> str:
    """Return `public` or `private`; a repository that nobody made is what it would be made as."""
    info = repositories.find(store, repository)
    return str(unknown if info is None else info.access)


def put_access(store: Store, repository: Repository, access: str, now: float) -> None:
    """Set the property, in a repository that is made if need be; other values than the two do nothing."""
    if access not in {str(each) for each in Access}:
        return

    def edit(names: Names) -> None:
        if not repositories.ensure(names, repository, now, Access(access)):
            repositories.set_access(names, repository, Access(access))

    removal.change(store, repository, edit)
