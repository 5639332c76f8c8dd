"""Tags on v1 images as manifests: made when a client of today first asks, in one change with the tag's note of them.

The blobs are those that v1 serves, so the repository shows them from then on; only what is not gzip is stored once
more. Blocking; no HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Final

from api.bridge import layers, to_v2
from api.bridge.asked import Asked
from api.bridge.layers import BadLayer, Found
from api.bridge.to_v1 import EMPTY, Blob
from api.bridge.to_v2 import NOTHING, Level, NotJson
from api.content import marks, tags
from api.content.repository import Repository
from api.content.views import NotShown
from api.v1 import homes
from api.v1.image import EMPTY_LAYER, Image
from api.v2 import links, manifest
from api.v2.manifest import Manifest
from cas import Digest, Missing, Names, Reads

_MOST_JSON_BYTES: Final = 16 << 20  # of a chain, held in memory whole; real ones have some KiB an image


def manifest_of(asked: Asked) -> tags.Manifest | None:
    """Return the manifest of a tag; None if there is no such tag.

    Raises:
        NotShown: the image it points to is not whole, or nothing that today's clients could use.
        Damaged: it cannot be read.
        NoSpace, DiskFailed, ReadOnly, Busy: try again later.
    """
    try:
        return asked.settle(
            partial(_shown, asked.repository), partial(_is_damaged, asked.repository), partial(_make, asked)
        )
    except Missing as error:
        raise NotShown(f"a part of it was lost: {error}") from None


def _shown(repository: Repository, reads: Reads, tag: tags.Tag) -> tags.Manifest | None:
    """Return what a tag shows already, as long as that is there."""
    if isinstance(tag.target, tags.Manifest):
        return tag.target
    view = tag.manifest
    return view if view is not None and manifest.find(reads, repository, view.digest) is not None else None


def _is_damaged(repository: Repository, reads: Reads, view: tags.Manifest) -> bool:
    found = manifest.find(reads, repository, view.digest)
    return found is not None and manifest.is_damaged(reads, found)


def _make(asked: Asked, tag: tags.Tag, again: Callable[[Names], tags.Manifest | None]) -> tags.Manifest:
    assert isinstance(tag.target, tags.Image), "else it shows itself"
    target = tag.target
    chain = asked.store.read(lambda reads: _chain(reads, asked.repository, target.id, asked.settings.max_chain))
    if sum(image.json_bytes for image, _ in chain) > _MOST_JSON_BYTES:
        raise NotShown(f"the images that {target.id} consists of have more than {_MOST_JSON_BYTES} bytes of json")
    with ExitStack() as made:
        found = {layer: _look(asked, layer, made) for layer in dict.fromkeys(layer for _, layer in chain)}
        try:
            with asked.parsing:
                levels = [Level(_json(asked, image), found[layer].inside) for image, layer in chain]
                config, blobs = to_v2.config(levels)
        except NotJson as error:
            raise NotShown(f"the image {target.id} is not what it should be: {error}") from None
        body = to_v2.manifest(config, blobs)
        entry = Manifest(Digest.of(body), to_v2.MANIFEST, len(body), body=body, at=int(asked.now), made=True)
        needed = [Blob(Digest.of(config), len(config)), *blobs]
        staged = [asked.stage(small, made) for small in (config, *([EMPTY_LAYER] if EMPTY in blobs else []))]

        def edit(names: Names) -> tags.Manifest:
            there = again(names)
            if there is not None:
                return there  # somebody else was faster
            for each in staged:
                names.keep(each)
            for layer, inside in found.items():
                layers.put(names, layer, inside)
            _enter(names, asked, entry, needed)
            view = tags.Manifest(entry.digest, entry.media_type, entry.size)
            asked.note(names, target, view)
            return view

        return asked.store.change(edit)


def _enter(names: Names, asked: Asked, entry: Manifest, needed: Sequence[Blob]) -> None:
    """Show a manifest and its blobs in its repository; one that was pushed as well stays as it is."""
    for blob in dict.fromkeys(needed):
        if links.is_stale(links.find(names, asked.repository, blob.digest), asked.now):
            links.put(names, asked.repository, blob.digest, blob.size, asked.now)
    if manifest.find(names, asked.repository, entry.digest) is None:
        manifest.put(names, asked.repository, entry, None)
    marks.disturb(names, str(asked.repository))  # what the manifest names is needed from now on


def _chain(reads: Reads, repository: Repository, top: str, most: int) -> list[tuple[Image, Digest]]:
    """Return an image and its ancestors as their repository shows them, each with its layer, base first.

    Raises:
        NotShown: one of them is missing or was lost, or there are too many.
    """
    chain: list[tuple[Image, Digest]] = []
    above: str | None = top
    while above is not None:
        image = homes.find(reads, str(repository), above)
        if image is None or not image.complete or image.layer is None:
            raise NotShown(f"the image {above} is not in this repository, or not whole; push it again")
        if image.is_lost(reads):  # before anything is unpacked
            raise NotShown(f"the image {above} was lost by damage to what this server stores; push it again")
        chain.append((image, image.layer))
        if len(chain) > most:
            raise NotShown(f"the image {top} has more than {most} ancestors")
        above = image.parent
    return chain[::-1]


def _look(asked: Asked, layer: Digest, made: ExitStack) -> Found:
    if asked.store.stat(layer).size < layers.LEAST_BYTES:
        return Found(NOTHING)
    try:
        return asked.inside.look(layer, made)
    except BadLayer as error:
        raise NotShown(f"the layer {layer} of one of its images is bad: {error}") from None


def _json(asked: Asked, image: Image) -> bytes:
    with asked.store.reader(image.json) as reader:
        return bytes(reader.read())
