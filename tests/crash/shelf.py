"""What clients were promised: for each thing, all that it may be by now.

A request without an answer may have happened or not, but nothing between.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)
K = TypeVar("K", bound=Hashable)
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Image:
    """A manifest and the blobs it names."""

    blobs: tuple[bytes, ...]
    body: bytes = b""

    @classmethod
    def of(cls, config: bytes, *layers: bytes) -> Image:
        described = [{"digest": digest_of(data), "size": len(data)} for data in (config, *layers)]
        content = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **described[0]},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", **each} for each in described[1:]],
        }
        return cls((config, *layers), json.dumps(content).encode())

    @property
    def digest(self) -> str:
        return digest_of(self.body)


@dataclass
class Doubts(Generic[K, T]):
    """For each key, what may stand there; what was never named is `nothing`."""

    nothing: T
    _may: dict[K, frozenset[T]] = field(default_factory=dict)

    def of(self, key: K) -> frozenset[T]:
        return self._may.get(key, frozenset({self.nothing}))

    def sure(self, key: K) -> T | None:
        """Return what stands there, None if that is in doubt."""
        may = self.of(key)
        return next(iter(may)) if len(may) == 1 else None

    def set(self, key: K, value: T) -> None:
        """It was acknowledged."""
        self._may[key] = frozenset({value})

    def doubt(self, key: K, value: T) -> None:
        """Nobody answered: as before, or this."""
        self._may[key] = self.of(key) | {value}

    def known(self) -> list[K]:
        """Give all keys that ever stood for something."""
        return list(self._may)

    def see(self, key: K, value: T) -> None:
        """Look: it has to be one of what may be, and is that from now on."""
        assert value in self.of(key), f"{key} is {value}, and may be one of {set(self.of(key))}"
        self.set(key, value)
