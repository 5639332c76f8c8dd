"""Where damaged blobs are used: the tags, manifests and images that a person knows them by.

Blocking; no HTTP.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import final

from api.content import repositories, trash
from api.content.repository import Repository
from api.content.usage import Contents
from cas import Digest, Name, Store

_SEPARATORS = {"manifest": "@", "link": "@", "v1.upload": ":", "v1.member": ":"}


@final
class Whereabouts:
    """Looks repositories up once, however many findings there are."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._reached: dict[str, dict[str, set[Digest]]] = {}

    def of(self, blobs: Iterable[Digest], holders: Iterable[Name]) -> list[str]:
        """Return `REPO:TAG` of every tag that needs one of these blobs; what has no tag there as `REPO@DIGEST`.

        What waits in the trash is `REPO@DIGEST (deleted)`.
        """
        wanted, told = set(blobs), set[str]()
        for name in holders:
            homes = self._homes(name)
            tags = {f"{home}:{tag}" for home in homes for tag, reached in self._tags(home).items() if reached & wanted}
            told |= tags or {_plain(name)}
        return sorted(told)

    def of_blob(self, digest: Digest) -> list[str]:
        """Return the same of one blob, here or lost."""
        return self.of([digest], self._store.read(lambda reads: reads.names_of(digest)))

    def _homes(self, name: Name) -> set[str]:
        if name.kind == "v1.image":
            prefix = f"{name.path}:"
            return {path.removeprefix(prefix) for path in self._store.read(lambda reads: reads.paths("v1.in", prefix))}
        separator = _SEPARATORS.get(name.kind)
        return {name.path.partition(separator)[0]} if separator else set()

    def _tags(self, home: str) -> dict[str, set[Digest]]:
        if home not in self._reached:
            repository = Repository.of(home)
            there = not home.startswith("~") and repositories.find(self._store, repository) is not None
            contents = Contents(self._store, repository) if there else None
            tags = {} if contents is None else contents.tags
            self._reached[home] = {} if contents is None else {tag: contents.reach(to) for tag, to in tags.items()}
        return self._reached[home]


def _plain(name: Name) -> str:
    if name.kind == trash.TRASH:
        return f"{_plain(trash.original(name))} (deleted)"
    return name.path if name.kind in _SEPARATORS else f"{name.kind} {name.path}"
