"""What complete images look like from outside: json, layer, ancestry, listing. Blocking; no HTTP.

An image that is still being uploaded has no outside. One that was made of a manifest gets its checksum here, once: that
takes reading its layer, which lists of tags should not wait for.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace

from api.errors import ApiError
from api.v1 import refusals
from api.v1.homes import complete, whole_line
from api.v1.image import EMPTY_LAYER, EMPTY_LAYER_DIGEST, Image, find_complete
from api.v1.images import read_blob
from api.v1.listing import listing
from api.v1.settings import V1Settings
from api.v1.tarsum import payload_checksum, payload_hash
from api.v1.unpack import TooMuch, Unreadable
from cas import CasError, Digest, Names, Reader, Reads, Store


@dataclass(frozen=True, slots=True)
class JsonView:
    """An image's json, the size of its layer as it will be sent, and the checksum over the two."""

    body: bytes
    layer_bytes: int
    checksum: str


def read_json(store: Store, home: str, image_id: str) -> JsonView:
    """Read an image's json."""
    image = _complete(store, home, image_id)
    with store.reader(image.json) as reader:
        body = reader.read()
    return JsonView(body, image.layer_bytes, _served_checksum(store, image, body))


def _served_checksum(store: Store, image: Image, body: bytes) -> str:
    """Return the checksum of what is served, which for a layer of no bytes is not what was pushed."""
    running = payload_hash(body)
    if image.layer == EMPTY_LAYER_DIGEST:
        running.update(EMPTY_LAYER)
        return payload_checksum(running)
    if image.checksum:
        return image.checksum
    for block in read_blob(store, _layer(image)):
        running.update(block)
    _note(store, replace(image, checksum=payload_checksum(running)))
    return payload_checksum(running)


def _note(store: Store, image: Image) -> None:
    """Remember a checksum, as far as that can be."""

    def edit(names: Names) -> None:
        there = find_complete(names, image.id)
        if there is not None and not there.checksum and there.has_bytes_of(image):
            names.put(image.name, image.record())

    with suppress(CasError):
        store.change(edit)


def open_layer(store: Store, home: str, image_id: str) -> Reader:
    """Open an image's layer; the caller closes it."""
    return store.reader(_layer(_complete(store, home, image_id)))


def check(store: Store, home: str, image_id: str) -> None:
    """Raise unless this image may be served."""
    _complete(store, home, image_id)


def _complete(store: Store, home: str, image_id: str) -> Image:
    """Look up an image that is whole.

    Who pushes and who pulls ask the same, and nothing tells them apart. The one sends what is lost when it is not
    there; the other would begin what cannot end.

    Raises:
        ApiError: 404, also for a lost one; 400 if it is still being uploaded.
    """

    def look(reads: Reads) -> Image:
        image = complete(reads, home, image_id)
        if image.is_lost(reads):
            raise ApiError(*refusals.IMAGE_LOST)
        return image

    return store.read(look)


def ancestry(store: Store, settings: V1Settings, home: str, image_id: str) -> list[str]:
    """List an image and its ancestors, itself first.

    Raises:
        ApiError: 404, or 400 if it or an ancestor is still being uploaded: a client fetches them all.
    """

    def look(reads: Reads) -> list[Image]:
        image = complete(reads, home, image_id)
        return whole_line(reads, home, image, settings.max_chain, refusals.IMAGE_UPLOADING)

    return [image.id for image in store.read(look)]


def files(store: Store, settings: V1Settings, home: str, image_id: str) -> bytes:
    """List the files in an image's layer, as JSON.

    Raises:
        ApiError: 400 for a layer that is no archive, or a very large one.
    """
    layer = read_blob(store, _layer(_complete(store, home, image_id)))
    limits = {"limit_bytes": settings.max_unpacked_bytes, "limit_listing_bytes": settings.max_listing_bytes}
    try:
        return listing(layer, **limits)
    except Unreadable:
        raise ApiError(*refusals.LAYER_UNREADABLE) from None
    except TooMuch:
        raise ApiError(*refusals.LAYER_TOO_MUCH) from None


def _layer(image: Image) -> Digest:
    if image.layer is None:
        raise AssertionError(f"image {image.id} is complete without a layer")
    return image.layer
