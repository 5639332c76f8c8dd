"""What no longer matters of Registry v1: uploads that nobody finished, and images that stand in no repository.

An image counts if it is seen from a repository, be that one in the trash; if its push may still be under way; or if an
image that counts descends from it. Each step of a push says that it needs its base, so a collection that looked before
looks again (see `marks`). One that was made in a repository of a manifest, and that nobody pushed there, is
seen from it no longer than a tag shows it, or what descends from it is seen. Blocking; no HTTP.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Final

from api.content import marks, tags, trash
from api.content.collect import Garbage, Rule, Terms, walk
from api.content.tags import TAG
from api.content.values import content
from api.v1.homes import IN, MADE, MEMBER
from api.v1.image import KIND, UPLOAD, Image, find_complete
from cas import Name, Record, Store

_ROWS: Final = 100


def _find(store: Store, _scope: str, terms: Terms) -> Iterator[Garbage]:
    own = _pushed(store, terms)
    for name, found in walk(store, UPLOAD):
        image = _upload(name, found)
        if image.id not in own and not terms.is_under_way(image.at):
            yield Garbage.of(name, found, "images whose upload was never finished")
    unseen = set[Name]()
    for name, found in _made_for_nothing(store, terms):
        unseen.add(name)
        yield Garbage.of(name, found, "entries of images made of manifests that no tag shows")
    for name, found in walk(store, MEMBER, "~"):
        if name.path.rpartition(":")[2] not in own:
            yield Garbage.of(name, found, "entries of images pushed without a repository")
    own.update(name.path.partition(":")[0] for name, _ in trash.kept(store, terms, "", IN))
    loose = _loose(store, terms, own, unseen)
    # Descendants first: whoever finds one still there finds all that it stands on.
    for image in sorted(loose.values(), key=lambda each: -each.chain):
        found_now = store.get(image.name)
        if found_now is not None:
            why = "images that stand in no repository"
            yield Garbage.of(image.name, found_now, why, unless=(IN, f"{image.id}:"))


RULE: Final = Rule(lambda _: [marks.V1], _find)


def _pushed(store: Store, terms: Terms) -> set[str]:
    """Return what pushes under way stand on or brought without a repository, and all that it descends from."""
    ids, uploads = set[str](), dict[str, list[str]]()
    for name, found in walk(store, UPLOAD):
        image = _upload(name, found)
        if image.parent is not None:
            uploads.setdefault(image.id, []).append(image.parent)
            if terms.is_under_way(image.at):
                ids.add(image.parent)
    for name, found in walk(store, MEMBER, "~"):
        if terms.is_under_way(content(found).get("at", 0)):
            ids.add(name.path.rpartition(":")[2])
    return _with_ancestors(store, ids, uploads)


def _upload(name: Name, found: Record) -> Image:
    return Image.read(name.path.rpartition(":")[2], found)


def _loose(store: Store, terms: Terms, own: set[str], unseen: set[Name]) -> dict[str, Image]:
    """Return the images that nothing leads to."""
    loose: dict[str, Image] = {}
    for name, found in walk(store, KIND):
        image = Image.read(name.path, found)
        if not terms.is_under_way(image.at) and image.id not in own and not _is_seen(store, image.id, unseen):
            loose[image.id] = image
    if not loose:
        return loose
    for name, found in walk(store, KIND):
        above = None if name.path in loose else Image.read(name.path, found).parent
        while above is not None and above in loose:
            above = loose.pop(above).parent
    return loose


def _is_seen(store: Store, image_id: str, unseen: set[Name]) -> bool:
    """Tell whether an image is seen from any repository but through those rows."""
    after = ""
    while found := store.read(lambda reads, after=after: reads.paths(IN, f"{image_id}:", after=after, limit=_ROWS)):  # type: ignore[misc]
        if any(Name(IN, path) not in unseen for path in found):
            return True
        after = found[-1]
    return False


def _made_for_nothing(store: Store, terms: Terms) -> Iterator[tuple[Name, Record]]:
    """Yield the rows of images that were made in a repository and that nothing there needs any more."""
    made: dict[str, set[str]] = {}
    for name, found in walk(store, MEMBER):
        value = content(found)
        if MADE in value and value["at"] <= terms.unused_before:
            home, _, image_id = name.path.rpartition(":")
            made.setdefault(home, set()).add(image_id)
    for home, ids in made.items():
        for image_id in sorted(ids - _needed(store, home, terms, ids)):
            for name in (Name(IN, f"{image_id}:{home}"), Name(MEMBER, f"{home}:{image_id}")):  # found by the last one
                found_now = store.get(name)
                if found_now is not None:
                    yield name, found_now


def _needed(store: Store, home: str, terms: Terms, made: set[str]) -> set[str]:
    """Return what a repository's tags show, in use or in the trash, what else it has, and what those descend from."""
    prefix = f"{home}:"
    tagged = chain(walk(store, TAG, prefix), trash.kept(store, terms, prefix, TAG))
    roots = {shown.id for _, found in tagged if (shown := tags.read(found).image) is not None}
    # Uploads come first: what is completed meanwhile is a member.
    roots |= {parent for _, found in walk(store, UPLOAD, prefix) if (parent := content(found)["parent"])}
    roots |= {name.path.removeprefix(prefix) for name, _ in walk(store, MEMBER, prefix)} - made
    return _with_ancestors(store, roots, {})


def _with_ancestors(store: Store, ids: set[str], uploads: Mapping[str, Iterable[str]]) -> set[str]:
    """Return images, and all that they descend from; `uploads` are the parents of those on their way."""
    known, rest = set[str](), set(ids)
    while rest:
        image_id = rest.pop()
        if image_id not in known:
            known.add(image_id)
            rest.update(uploads.get(image_id, ()))
            image = store.read(lambda reads, image_id=image_id: find_complete(reads, image_id))  # type: ignore[misc]
            if image is not None and image.parent is not None:
                rest.add(image.parent)
    return known
