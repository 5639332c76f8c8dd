"""Which blobs belong to which repository, and within one to which tag, so that the engine can say what each takes.

Knows every kind of name that holds blobs. A tag has what its manifest needs, and what is about that; a v1 image and its
ancestors; or both, once one was made of the other. What a repository shows beyond its tags is a line of its own.
Blocking; no HTTP.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from api.content import named, repositories, tags, trash
from api.content.collect import walk
from api.content.repository import Repository
from api.content.values import content
from cas import Damaged, Digest, Holder, Holders, InvalidDigest, Missing, Name, Record, Store, Usage

UNTAGGED: Final = "(untagged)"  # no tag can be called so
_AT_ONCE: Final = 1000

Waiting = dict[str, set[Digest]]  # repository → blobs


@dataclass(frozen=True, slots=True)
class Line:
    """What a repository or a tag takes, in bytes; `unique` is what its deletion frees."""

    name: str
    logical: int
    unique: int
    shared: int


@dataclass(frozen=True, slots=True)
class Report:
    """A line each, and the store as a whole."""

    lines: tuple[Line, ...]
    whole: Usage


@dataclass(slots=True)
class _Owners:
    """Owners by name, and who holds which blob."""

    numbers: dict[str, int] = field(default_factory=dict)
    holders: Holders[Digest] = field(default_factory=Holders)
    inline: dict[str, int] = field(default_factory=dict)  # bytes of manifests that are no blobs

    def add(self, owner: str) -> int:
        return self.numbers.setdefault(owner, len(self.numbers))

    def report(self, store: Store, waiting: Waiting) -> Report:
        for _, found in walk(store, trash.TRASH):
            for digest in found.holds:
                self.holders.add(digest, Holder.KEPT)
        for digests in waiting.values():
            for digest in digests:
                self.holders.add(digest, Holder.KEPT)
        whole = store.usage(self.holders, len(self.numbers))
        lines = (
            Line(name, whole.logical[number] + self.inline.get(name, 0), whole.unique[number], whole.shared[number])
            for name, number in sorted(self.numbers.items())
        )
        return Report(tuple(lines), whole)


def of_store(store: Store) -> Report:
    """Measure every repository."""
    owners, after = _Owners(), ""
    while found := store.read(lambda reads, after=after: repositories.page(reads, after, _AT_ONCE)):  # type: ignore[misc]
        for repository, _ in found:
            owners.add(str(repository))
        after = str(found[-1][0])
    waiting = _waiting(store)
    for home, digest in _holdings(store, waiting):
        owners.holders.add(digest, Holder.OTHERS if home is None else owners.add(home))
    for name, record in walk(store, "manifest"):
        owner = name.path.partition("@")[0]
        owners.inline[owner] = owners.inline.get(owner, 0) + _inline_bytes(record)
    return owners.report(store, waiting)


def of_repository(store: Store, repository: Repository, tag: str | None = None) -> Report:
    """Measure each tag of a repository, or just one.

    Raises:
        Missing: there is no such repository or tag.
    """
    if repositories.find(store, repository) is None:
        raise Missing(f"there is no repository {repository}; `cas repo list` shows all")
    content_of = Contents(store, repository)
    if tag and tag not in content_of.tags:
        raise Missing(f"{repository} has no tag {tag}; `cas du {repository}` shows all")
    owners = _Owners()
    tagged = Holders[Digest]()
    for name, found in content_of.tags.items():
        number = owners.add(name) if tag in (None, name) else Holder.OTHERS
        reached = content_of.reach(found)
        for digest in reached:
            tagged.add(digest, number)
        if tag in (None, name):
            owners.inline[name] = content_of.inline_bytes(reached)
    rest = Holder.OTHERS if tag else owners.add(UNTAGGED)
    if not tag:
        owners.inline[UNTAGGED] = content_of.inline_bytes(content_of.manifests.keys() - tagged.keys())
    waiting = _waiting(store)
    for home, digest in _holdings(store, waiting):
        for number in tagged.get(digest, (rest,)) if home == str(repository) else (Holder.OTHERS,):
            owners.holders.add(digest, number)
    return owners.report(store, waiting)


def _waiting(store: Store) -> Waiting:
    """Return what each repository shows only because a manifest that was deleted there may come back."""
    found: Waiting = {}
    for head, _ in walk(store, trash.OF):
        what, _, deletion = head.path.rpartition("#")
        home, is_manifest, _ = what.partition("@")
        for _, row in walk(store, trash.TRASH, f"{deletion}/manifest/") if is_manifest else ():
            found.setdefault(home, set()).update(_named(store, Record.decode(row.value)))
    for home, digests in found.items():
        for _, manifest in walk(store, "manifest", f"{home}@"):
            digests.difference_update(_named(store, manifest))
    return found


def _holdings(store: Store, waiting: Waiting) -> Iterator[tuple[str | None, Digest]]:
    """Yield every blob that a name holds, with its repository; None for what belongs to none."""
    for kind, separator in (("link", "@"), ("manifest", "@"), ("v1.upload", ":")):
        for name, found in walk(store, kind):
            home = name.path.partition(separator)[0]
            idle = waiting.get(home, ()) if kind == "link" else ()
            for digest in (digest for digest in found.holds if digest not in idle):
                yield None if home.startswith("~") or not home else home, digest
    accounts = {name.path.rpartition(":")[2] for name, _ in walk(store, "v1.member", "~")}
    for name, found in walk(store, "v1.image"):
        shown_in = [row.path.removeprefix(f"{name.path}:") for row, _ in walk(store, "v1.in", f"{name.path}:")]
        for digest in found.holds:
            yield from ((repository, digest) for repository in shown_in)
            if not shown_in or name.path in accounts:
                yield None, digest


# --- one repository ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Manifest:
    named: frozenset[Digest]
    inline: int


class Contents:
    """What a repository's manifests and images need, as far as they can be read."""

    def __init__(self, store: Store, repository: Repository) -> None:
        self._store = store
        self.manifests: dict[Digest, _Manifest] = {}
        self._about: dict[Digest, set[Digest]] = {}
        for name, found in walk(store, "manifest", f"{repository}@"):
            self._add(Digest.parse(name.path.partition("@")[2]), found)
        self.tags: dict[str, tags.Tag] = {}
        for name, found in walk(store, tags.TAG, f"{repository}:"):
            self.tags[name.path.partition(":")[2]] = tags.read(found)

    def reach(self, tag: tags.Tag) -> set[Digest]:
        """Return what a tag needs, manifests and blobs, what is about it, and what was made of it."""
        reached = set() if tag.image is None else set(self._ancestry(tag.image.id))
        return reached if tag.manifest is None else reached | self._closure(tag.manifest.digest)

    def inline_bytes(self, reached: Iterable[Digest]) -> int:
        """Return the sizes of those manifests among these that are no blobs."""
        return sum(self.manifests[digest].inline for digest in reached if digest in self.manifests)

    def _add(self, digest: Digest, found: Record) -> None:
        said: dict[str, Any] = json.loads(found.value.partition(b"\n")[0])
        if "subject" in said:
            self._about.setdefault(Digest.parse(said["subject"]), set()).add(digest)
        self.manifests[digest] = _Manifest(_named(self._store, found), _inline_bytes(found))

    def _closure(self, digest: Digest) -> set[Digest]:
        reached, waiting = set[Digest](), [digest]
        while waiting:
            one = waiting.pop()
            if one in reached:
                continue
            reached.add(one)
            waiting += self._about.get(one, ())
            if one in self.manifests:
                waiting += self.manifests[one].named
        return reached

    def _ancestry(self, image_id: str | None) -> Iterator[Digest]:
        seen = set[str]()
        while image_id and image_id not in seen:
            seen.add(image_id)
            found = self._store.get(Name("v1.image", image_id))
            if found is None:
                return
            yield from found.holds
            image_id = content(found)["parent"]


def _named(store: Store, manifest: Record) -> frozenset[Digest]:
    """Return what a manifest names, as far as it can be read, and the blob that it is."""
    body = manifest.value.partition(b"\n")[2]
    for blob in manifest.holds:
        with suppress(Missing, Damaged), store.reader(blob) as reader:
            body = bytes(reader.read())
    return frozenset((*_parsed(named.digests(body)), *manifest.holds))


def _parsed(digests: Iterable[str]) -> Iterator[Digest]:
    for text in digests:
        with suppress(InvalidDigest):  # of an algorithm that nothing is stored under
            yield Digest.parse(text)


def _inline_bytes(found: Record) -> int:
    size: int = 0 if found.holds else json.loads(found.value.partition(b"\n")[0])["size"]
    return size
