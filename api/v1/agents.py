"""Which engine it is that pushes, read from the `User-Agent` it sends. Pure."""

from __future__ import annotations

import re
from typing import Final

_PAIR = re.compile(r"(?<![^\s/])([^\s/]{1,128})/([^\s/]+)")
_VERSIONS: Final = {"docker": "docker_version", "go": "docker_go_version"}
_PLATFORM: Final = ("arch", "kernel", "os")
_MAX_VALUE: Final = 128  # characters kept of what a stranger says of himself

UNKNOWN: Final[dict[str, object]] = {
    "last_update": None,
    "docker_version": None,
    "docker_go_version": None,
    "arch": "amd64",
    "os": "linux",
    "kernel": None,
}


def hashes_what_it_sends(user_agent: str) -> bool:
    """Say whether an engine's payload checksum is one: those of 0.9 hash a layer before they pack it, and no json.

    The reference did not look at it either; it told them apart in the same way.
    """
    return not dict(_PAIR.findall(user_agent)).get("docker", "").startswith("0.9.")


def tag_meta(user_agent: str, now: float) -> dict[str, object]:
    """Return what is recorded with a tag; pairs the agent does not name are left out."""
    pairs = {name: value[:_MAX_VALUE] for name, value in _PAIR.findall(user_agent)}
    meta: dict[str, object] = {"last_update": int(now)}
    meta |= {key: pairs[name] for name, key in _VERSIONS.items() if name in pairs}
    meta |= {name: pairs[name].lower() for name in _PLATFORM if name in pairs}
    return meta
