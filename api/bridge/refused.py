"""Manifests that Registry v1 can never have, as far as this process found out.

A manifest's bytes never change, nor do those that it names: what was refused for them once is refused for good,
whatever tag or repository it is in. Forgetting costs a look, and is how memory stays bounded.
"""

from __future__ import annotations

import hashlib
from typing import Final, final

from api.content.tags import Manifest

MOST: Final = 50_000  # and as many of before; about 100 bytes each


@final
class Refused:
    """What was refused last: at least `most`, at most twice as many. For several threads."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._new: set[bytes] = set()
        self._old: set[bytes] = set()

    def __contains__(self, target: Manifest) -> bool:
        """Tell whether this one was refused."""
        key = _key(target)
        return key in self._new or key in self._old

    def add(self, target: Manifest) -> None:
        """Remember one."""
        if len(self._new) >= self._most:
            self._old, self._new = self._new, set()
        self._new.add(_key(target))


def _key(target: Manifest) -> bytes:
    """Return, in short, what a refusal depends on: the bytes, and the type that says how they are read."""
    return hashlib.blake2b(target.digest.pack() + target.type.encode(), digest_size=16).digest()
