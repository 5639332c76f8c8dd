"""A chain of v1 images as one image of today: configuration and manifest, as engines made them when they moved on.

Pure: values in, values out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from api import strict
from api.bridge import spelling
from api.bridge.to_v1 import EMPTY, Blob
from cas import Digest

MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG: Final = "application/vnd.docker.container.image.v1+json"
LAYER: Final = "application/vnd.docker.image.rootfs.diff.tar.gzip"

# What the empty layer unpacks to: the end of an archive, and nothing before.
EMPTY_DIFF: Final = Digest.of(bytes(1024))

# Engines before this wrote configurations with more in them than belongs there.
_TIDY_SINCE: Final = (1, 8, 3)
_KNOWN: Final = frozenset(
    {
        *("id", "parent", "comment", "created", "container", "container_config"),
        *("docker_version", "author", "config", "architecture", "os", "Size"),
    }
)
_OF_THE_CHAIN: Final = frozenset({"id", "parent", "Size", "parent_id", "layer_id", "throwaway"})
_USUAL: Final = {"architecture": "amd64", "os": "linux"}
_DIGITS = re.compile(r"\d{1,9}", re.ASCII)


class NotJson(Exception):
    """A v1 image's json cannot be read as what it has to be. The pusher's fault."""


@dataclass(frozen=True, slots=True)
class Inside:
    """What is in a layer.

    Attributes:
        diff: digest of the archive, unpacked.
        has_entries: there is any file in it.
        blob: the layer packed as today's clients want it.
    """

    diff: Digest
    has_entries: bool
    blob: Blob


NOTHING: Final = Inside(EMPTY_DIFF, has_entries=False, blob=EMPTY)


@dataclass(frozen=True, slots=True)
class Level:
    """One v1 image: its json, and what is in its layer."""

    json: bytes
    inside: Inside


def config(chain: Sequence[Level]) -> tuple[bytes, list[Blob]]:
    """Make the configuration of a chain, base first; return it with the layers of the manifest.

    Raises:
        NotJson: an image's json cannot be read.
    """
    layers: list[Inside] = []
    history: list[dict[str, Any]] = []
    said: dict[str, Any] = {}
    for level in chain:
        said = _load(level.json)
        entry = _history(said)
        if said.get("throwaway") is True and not level.inside.has_entries:
            entry["empty_layer"] = True
        else:
            layers.append(level.inside if level.inside.has_entries else NOTHING)
        history.append(entry)
    members = _of_top(chain[-1].json, said)
    rootfs = {"type": "layers", "diff_ids": [str(each.diff) for each in layers]}
    members |= {"rootfs": spelling.dump(rootfs), "history": spelling.dump(history)}
    return spelling.write(spelling.in_order(members)), [each.blob for each in layers]


def manifest(config: bytes, layers: Sequence[Blob]) -> bytes:
    """Make the manifest."""
    content = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "size": len(config), "digest": str(Digest.of(config))},
        "layers": [{"mediaType": LAYER, "size": each.size, "digest": str(each.digest)} for each in layers],
    }
    return json.dumps(content, separators=(",", ":")).encode()


def _load(text: bytes) -> dict[str, Any]:
    try:
        content = strict.load(text)
    except ValueError as error:
        raise NotJson(f"its json cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise NotJson("its json is no object")
    return content


def _history(said: dict[str, Any]) -> dict[str, Any]:
    container = said.get("container_config")
    command = container.get("Cmd") if isinstance(container, dict) else None
    words = [command] if isinstance(command, str) else command
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        words = []
    entry = {"created": spelling.moment(said.get("created")), "author": said.get("author")}
    entry |= {"created_by": " ".join(words), "comment": said.get("comment")}
    return {name: value for name, value in entry.items() if isinstance(value, str) and value}


def _of_top(text: bytes, said: dict[str, Any]) -> dict[str, str]:
    spelled = spelling.members(text.decode())
    if _version(said.get("docker_version")) < _TIDY_SINCE:
        spelled = {name: value for name, value in spelled.items() if name in _KNOWN}
    spelled = {name: value for name, value in spelled.items() if name not in _OF_THE_CHAIN}
    if spelling.moment(said.get("created")) is None:
        spelled.pop("created", None)
    for name, usual in _USUAL.items():
        if not isinstance(said.get(name), str) or not said[name]:
            spelled[name] = spelling.dump(usual)
    return spelled


def _version(text: object) -> tuple[int, ...]:
    """Read the numbers of a version; a part that begins with none counts as 0, and no version is the oldest."""
    if not isinstance(text, str):
        return ()
    matches = (_DIGITS.match(part) for part in text.split("."))
    return tuple(0 if match is None else int(match[0]) for match in matches)
