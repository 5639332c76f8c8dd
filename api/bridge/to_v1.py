"""A manifest's image as a chain of v1 images: ids and json, as the registries before this one made them. Pure.

Each entry of the configuration's history is one image. Its id hashes the digest of the layer that v1 clients get and
the id below it; that of the top hashes the configuration as well:

    id      SHA-256(B + " " + id below)          top: SHA-256(B + " " + id below + " " + configuration)

Where such an id stands for something else already, `again` gives the next one to try.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from api import strict
from api.bridge import spelling
from api.v1.image import EMPTY_LAYER, EMPTY_LAYER_DIGEST
from cas import Digest

_NO_TIME: Final = "0001-01-01T00:00:00Z"
_NOT_OF_TOP: Final = frozenset({"rootfs", "history", "parent", "throwaway"})
_TEXTS: Final = ("created_by", "comment", "author")


class NoImage(Exception):
    """This is nothing that Registry v1 can have: no image, not whole, or too much. Nobody's fault."""


class NotNow(NoImage):
    """It may be had later: what is lacking may come, and what is in the way may go."""


@dataclass(frozen=True, slots=True)
class Blob:
    """A stored blob and its size."""

    digest: Digest
    size: int


EMPTY: Final = Blob(EMPTY_LAYER_DIGEST, len(EMPTY_LAYER))


@dataclass(frozen=True, slots=True)
class Entry:
    """What becomes one v1 image.

    Attributes:
        blob: its layer.
        said: what the history says of it, by the history's names; nothing where there is no history.
        is_empty: it changed no file.
    """

    blob: Blob
    said: Mapping[str, Any]
    is_empty: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """An image's configuration and its entries, base first."""

    config: bytes
    entries: tuple[Entry, ...]
    members: Mapping[str, str]

    def derive(self, at: int, parent: str | None) -> tuple[str, bytes]:
        """Return the id and the json of one entry on top of another's id."""
        entry, text = self.entries[at], parent or ""
        hashed = f"{entry.blob.digest.raw.hex()} {text}".encode()
        if self.is_top(at):
            hashed += b" " + self.config
        image_id = hashlib.sha256(hashed).hexdigest()
        return image_id, self._json(at, image_id, parent)

    def again(self, at: int, parent: str | None, image_id: str, json: bytes) -> tuple[str, bytes]:
        """Return another id, and the json with it, for an entry whose id is taken by other content."""
        other = hashlib.sha256(f"{image_id} {hashlib.sha256(json).hexdigest()}".encode()).hexdigest()
        return other, self._json(at, other, parent)

    def is_top(self, at: int) -> bool:
        """Tell whether an entry is the image itself."""
        return at == len(self.entries) - 1

    def _json(self, at: int, image_id: str, parent: str | None) -> bytes:
        entry = self.entries[at]
        own = {"id": spelling.dump(image_id)}
        if parent is not None:
            own["parent"] = spelling.dump(parent)
        thrown = {"throwaway": "true"} if entry.is_empty else {}
        if self.is_top(at):
            rest = {name: value for name, value in self.members.items() if name not in _NOT_OF_TOP}
            return spelling.write(spelling.in_order({**rest, **own, **thrown}))
        said = {name: spelling.dump(str(entry.said[name])) for name in _TEXTS if entry.said.get(name)}
        if "comment" in said:
            own["comment"] = said["comment"]
        own["created"] = spelling.dump(spelling.moment(entry.said.get("created")) or _NO_TIME)
        own["container_config"] = f'{{"Cmd":[{said.get("created_by", spelling.dump(""))}]}}'
        if "author" in said:
            own["author"] = said["author"]
        return spelling.write({**own, **thrown})


def read(config: bytes, layers: Sequence[Blob], most: int) -> Source:
    """Read a configuration; its layers are as v1 clients get them, base first, and a chain may have so many images.

    Raises:
        NoImage: it is no image's, or the image cannot be such a chain.
    """
    try:
        members = spelling.members(config.decode())
        rootfs, history = (strict.load(members.get(name, "null")) for name in ("rootfs", "history"))
    except ValueError as error:
        raise NoImage(f"its configuration cannot be read: {error}") from None
    if not isinstance(rootfs, dict) or not isinstance(rootfs.get("diff_ids"), list):
        raise NoImage("its configuration is no image's")
    if len(rootfs["diff_ids"]) != len(layers):
        raise NoImage("its configuration speaks of other layers than its manifest")
    if rootfs.get("base_layer"):
        raise NoImage("it stands on a base that no registry has")
    entries = _entries(history, layers) if _is_usable(history, len(layers), most) else None
    if entries is None:
        entries = [Entry(layer, {}) for layer in layers]
    if not 0 < len(entries) <= most:
        raise NoImage(f"it would be a chain of {len(entries)} images, which may have 1 to {most}")
    return Source(config, tuple(entries), members)


def diff_ids(config: bytes) -> list[object]:
    """Return what a configuration says its layers unpack to; nothing if it cannot be read."""
    try:
        rootfs = strict.load(config)["rootfs"]
        return list(rootfs["diff_ids"])
    except (ValueError, LookupError, TypeError):
        return []


def _is_usable(history: object, layers: int, most: int) -> bool:
    """Tell whether a history tells of just these layers, in the form that it has, and no longer than clients stack."""
    if not isinstance(history, list) or len(history) > most:
        return False
    if not all(isinstance(each, dict) for each in history):
        return False
    texts = (each.get(name) for each in history for name in _TEXTS)
    flags = [each.get("empty_layer") for each in history]
    if not all(text is None or isinstance(text, str) for text in texts):
        return False
    return all(flag in (None, True, False) for flag in flags) and sum(not flag for flag in flags) == layers


def _entries(history: list[dict[str, Any]], layers: Sequence[Blob]) -> list[Entry]:
    left = iter(layers)
    return [
        Entry(EMPTY, said, is_empty=True) if said.get("empty_layer") else Entry(next(left), said) for said in history
    ]
