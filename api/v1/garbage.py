"""What no longer matters of Registry v1: uploads that nobody finished, and images that stand in no repository.

An image counts if it is seen from a repository, be that one in the trash; if an account pushed it only just now; or if
an image that counts descends from it. Blocking; no HTTP.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from api.content import marks, trash
from api.content.collect import Garbage, Rule, Terms, walk
from api.content.values import content
from api.v1.homes import IN, MEMBER
from api.v1.image import KIND, UPLOAD, Image
from cas import Store


def _find(store: Store, _scope: str, terms: Terms) -> Iterator[Garbage]:
    for name, found in walk(store, UPLOAD):
        if content(found)["began"] <= terms.unused_before:
            yield Garbage.of(name, found, "images whose upload was never finished")
    own = set()
    for name, found in walk(store, MEMBER, "~"):
        if content(found).get("at", 0) > terms.unused_before:
            own.add(name.path.rpartition(":")[2])
        else:
            yield Garbage.of(name, found, "entries of images pushed without a repository")
    own.update(name.path.partition(":")[0] for name, _ in trash.kept(store, terms, "", IN))
    loose = _loose(store, terms, own)
    # Descendants first: whoever finds one still there finds all that it stands on.
    for image in sorted(loose.values(), key=lambda each: -each.chain):
        found_now = store.get(image.name)
        if found_now is not None:
            why = "images that stand in no repository"
            yield Garbage.of(image.name, found_now, why, unless=(IN, f"{image.id}:"))


RULE: Final = Rule(lambda _: [marks.V1], _find)


def _loose(store: Store, terms: Terms, own: set[str]) -> dict[str, Image]:
    """Return the images that nothing leads to."""
    loose: dict[str, Image] = {}
    for name, found in walk(store, KIND):
        image = Image.read(name.path, found)
        if image.began <= terms.unused_before and image.id not in own and not _is_seen(store, image.id):
            loose[image.id] = image
    if not loose:
        return loose
    for parent in _parents(store, terms, loose):
        above: str | None = parent
        while above is not None and above in loose:
            above = loose.pop(above).parent
    return loose


def _parents(store: Store, terms: Terms, loose: dict[str, Image]) -> Iterator[str | None]:
    """Yield what those images descend from that count, complete or on their way."""
    for name, found in walk(store, KIND):
        if name.path not in loose:
            yield Image.read(name.path, found).parent
    for _, found in walk(store, UPLOAD):
        value = content(found)
        if value["began"] > terms.unused_before:
            yield value["parent"]


def _is_seen(store: Store, image_id: str) -> bool:
    return bool(store.read(lambda reads: reads.paths(IN, f"{image_id}:", limit=1)))
