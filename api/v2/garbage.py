"""What no longer matters in a repository: links that no manifest needs, and, if asked for, manifests without a tag.

A link counts while any manifest of its repository names its blob, be that one in the trash from which it may come back.
A manifest counts if it has a tag, is named by one that counts, or is about one that counts. One that was made of a v1
image, and that nobody pushed, counts only as long as a tag shows it or another manifest names it. Blocking; no HTTP.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Final

from api.content import named, tags, trash
from api.content.collect import Garbage, Rule, Terms, walk
from api.content.repositories import REPO
from api.content.repository import Repository
from api.content.tags import TAG
from api.content.values import content
from api.v2 import manifest, referrer
from api.v2.links import LINK
from api.v2.manifest import MANIFEST
from cas import Damaged, Digest, Missing, Name, Record, Store, Unreadable


@dataclass(frozen=True, slots=True)
class _Known:
    """What matters of a manifest, in so little memory that a repository may have many."""

    named: frozenset[str]
    subject: Digest | None
    at: int
    made: bool = False


def _scopes(store: Store) -> Iterator[str]:
    return (name.path for name, _ in walk(store, REPO))


def _find(store: Store, scope: str, terms: Terms) -> Iterator[Garbage]:
    repository = Repository.of(scope)
    needed = {digest for each in _trashed(store, repository, terms) for digest in each.named}
    if terms.untagged:
        known, live = _told_apart(store, repository, terms)
        needed.update(digest for one in live for digest in known[one].named)
        for digest in known.keys() - live:
            yield from _manifest(store, repository, digest, known[digest])
    else:
        made: dict[str, _Known] = {}
        for digest, name, found in _manifests(store, repository):
            each = _know(store, name, found)
            if each.made and each.at <= terms.unused_before:
                made[digest] = each
            else:
                needed |= each.named
        shown = set(_shown(store, repository, terms)) if made else set()
        for digest in made.keys() & (needed | shown):
            needed |= made.pop(digest).named
        for digest, each in made.items():
            yield from _manifest(store, repository, digest, each)
    for name, found in walk(store, LINK, f"{repository}@"):
        if name.path.rpartition("@")[2] not in needed and content(found)["at"] <= terms.unused_before:
            yield Garbage.of(name, found, "blobs that no manifest of their repository names")


RULE: Final = Rule(_scopes, _find)


def untagged(store: Store, terms: Terms) -> int:
    """Count the manifests that would go for lack of a tag if that were asked for; none where one cannot be read."""
    count = 0
    for scope in _scopes(store):
        with suppress(Damaged, Missing, Unreadable):  # the sweep has told of it
            known, live = _told_apart(store, Repository.of(scope), terms)
            count += sum(not known[digest].made for digest in known.keys() - live)
    return count


def _told_apart(store: Store, repository: Repository, terms: Terms) -> tuple[dict[str, _Known], set[str]]:
    """Return what matters of all manifests, and which of them count where those without a tag do not."""
    known = {digest: _know(store, name, found) for digest, name, found in _manifests(store, repository)}
    return known, _live(known, _roots(store, repository, terms, known))


def _manifests(store: Store, repository: Repository) -> Iterator[tuple[str, Name, Record]]:
    for name, found in walk(store, MANIFEST, f"{repository}@"):
        yield name.path.rpartition("@")[2], name, found


def _trashed(store: Store, repository: Repository, terms: Terms) -> Iterator[_Known]:
    for name, found in trash.kept(store, terms, f"{repository}@", MANIFEST):
        known = _know(store, name, found)
        own = name.path.rpartition("@")[2]
        yield _Known(known.named | {own}, known.subject, known.at)  # itself: what is about it comes back to use


def _know(store: Store, name: Name, found: Record) -> _Known:
    read = manifest.parse(found, Digest.parse(name.path.rpartition("@")[2]))
    body = read.body
    if read.blob is not None:
        with store.reader(read.blob) as reader:
            body = reader.read()
    return _Known(frozenset(named.digests(body)), read.subject, read.at, read.made)


def _roots(store: Store, repository: Repository, terms: Terms, known: dict[str, _Known]) -> Iterator[str]:
    """Yield what counts by itself: what has a tag, in use or in the trash; what is in the trash; what is young."""
    yield from _shown(store, repository, terms)
    for each in _trashed(store, repository, terms):
        yield from each.named
    yield from (digest for digest, each in known.items() if each.at > terms.unused_before)


def _shown(store: Store, repository: Repository, terms: Terms) -> Iterator[str]:
    """Yield the manifests that tags show, in use or in the trash."""
    prefix = f"{repository}:"
    for _, found in chain(walk(store, TAG, prefix), trash.kept(store, terms, prefix, TAG)):
        shown = tags.read(found).manifest
        if shown is not None:
            yield str(shown.digest)


def _live(known: dict[str, _Known], roots: Iterable[str]) -> set[str]:
    about = defaultdict(list)
    for digest, each in known.items():
        if each.subject is not None:
            about[str(each.subject)].append(digest)
    live: set[str] = set()
    seen: set[str] = set()
    left = list(roots)
    while left:
        digest = left.pop()
        if digest in seen:
            continue
        seen.add(digest)
        left += about.get(digest, ())  # also of what is only in the trash
        if digest in known:
            live.add(digest)
            left += known[digest].named
    return live


def _manifest(store: Store, repository: Repository, text: str, known: _Known) -> Iterator[Garbage]:
    digest = Digest.parse(text)
    rows = [Name(MANIFEST, f"{repository}@{text}")]
    if known.subject is not None:
        rows.append(referrer.row(repository, known.subject, digest))
    for name in rows:
        found = store.get(name)
        if found is not None:
            why = "manifests made of v1 images that no tag shows" if known.made else "manifests without a tag"
            yield Garbage.of(
                name, found, why if name.kind == MANIFEST else "entries of removed manifests in lists of referrers"
            )
