"""What no longer matters between the generations: what is known of layers that are gone. Blocking; no HTTP.

Images and manifests that were made for the other generation are those of its own protocol, and collected there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from api.bridge.layers import LAYER
from api.content.collect import Garbage, Rule, Terms, walk
from cas import Digest, Store


def _find(store: Store, _scope: str, _terms: Terms) -> Iterator[Garbage]:
    for name, found in walk(store, LAYER):
        digest = Digest.parse(name.path)
        if store.read(lambda reads, digest=digest: reads.stat(digest)) is None:  # type: ignore[misc]
            yield Garbage.of(name, found, "notes of layers that are gone")


RULE: Final = Rule(lambda _: [LAYER], _find)
