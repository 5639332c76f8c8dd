"""Garbage among names: looks for it rule by rule, and removes it a bounded step at a time.

Each protocol has its rules, and says what counts; this knows how to go about it beside a live server. A rule looks
without any lock. What it finds is removed only if it is still as it was seen, and if nobody made it count again
meanwhile (see `marks`); else the rule looks again. Blocking; no HTTP. The engine's part, the bytes, comes after.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, Self

from api.content import marks
from cas import Damaged, Missing, Name, Names, Record, Store, Unreadable

STEP: Final = 250  # names a change: some milliseconds of the writer's time
TRIES: Final = 5  # looks at what is being pushed to all the time, before it is left to the next run
_WALKED: Final = 64  # rows read at once; each may have 64 KiB


@dataclass(frozen=True, slots=True)
class Terms:
    """What is old enough to go; times in Unix seconds.

    Attributes:
        unused_before: what nothing needs and has been so, or was last asked for, since before this.
        deleted_before: what was deleted before this and can no longer be brought back.
        untagged: whether manifests without a tag go as well.
        is_meanwhile: tells whether a time lies between the beginning of the collection and now.
    """

    unused_before: float
    deleted_before: float
    untagged: bool = False
    is_meanwhile: Callable[[float], bool] = field(default=lambda _: False, kw_only=True)

    def is_under_way(self, at: float) -> bool:
        """Tell whether a push that got on at some time may do so again: within the grace, or while this collects."""
        return at > self.unused_before or self.is_meanwhile(at)


@dataclass(frozen=True, slots=True)
class Garbage:
    """A name that no longer matters.

    Attributes:
        seen: tells whether it is still as it was when that was found.
        holds: whether it holds blobs.
        why: what it is, for the operator.
        unless: a kind and the beginning of a path; if there is such a name, this one matters after all.
    """

    name: Name
    seen: int
    holds: bool
    why: str
    unless: tuple[str, str] | None = None

    @classmethod
    def of(cls, name: Name, found: Record, why: str, unless: tuple[str, str] | None = None) -> Self:
        """Note what was found."""
        return cls(name, hash(found), bool(found.holds), why, unless)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: where it applies, each a piece that a mark can be set on, and what it finds there."""

    scopes: Callable[[Store], Iterable[str]]
    find: Callable[[Store, str, Terms], Iterator[Garbage]]


@dataclass(slots=True)
class Swept:
    """What became of the names.

    Attributes:
        removed: how many of which sort; in a dry run, how many would be.
        without: in a dry run, those of them that hold blobs.
        left: what could not be looked at to the end, and why.
    """

    removed: Counter[str] = field(default_factory=Counter)
    without: set[Name] = field(default_factory=set)
    left: list[str] = field(default_factory=list)


def walk(store: Store, kind: str, prefix: str = "") -> Iterator[tuple[Name, Record]]:
    """Yield names of a kind, each slice as it stands when its turn comes."""
    after = ""
    while found := store.scan(kind, prefix, after=after, limit=_WALKED):
        yield from found
        after = found[-1][0].path


def sweep(
    store: Store, rules: Iterable[Rule], terms: Terms, *, dry_run: bool, progress: Callable[[], object] = bool
) -> Swept:
    """Remove what the rules find, or say what that is; `progress` is called between steps and may raise to stop."""
    swept = Swept()
    for rule in rules:
        for scope in rule.scopes(store):
            progress()
            try:
                if dry_run:
                    _note(rule.find(store, scope, terms), swept)
                else:
                    _clear(store, rule, scope, terms, swept, progress)
            except (Damaged, Missing, Unreadable) as error:  # what cannot be read may need anything
                swept.left.append(f"{scope}: {error}; `cas fsck` tells more")
    return swept


def _note(found: Iterable[Garbage], swept: Swept) -> None:
    for each in found:
        swept.removed[each.why] += 1
        if each.holds:
            swept.without.add(each.name)


class _Disturbed(Exception):
    """Something counts again: look anew."""


def _clear(store: Store, rule: Rule, scope: str, terms: Terms, swept: Swept, progress: Callable[[], object]) -> None:
    if next(rule.find(store, scope, terms), None) is None:
        return  # as nearly always, and nothing was written
    for _ in range(TRIES):
        token = secrets.token_hex(8)
        store.change(lambda names, token=token: marks.put(names, scope, token), frees=True)  # type: ignore[misc]
        try:
            found = rule.find(store, scope, terms)
            while some := tuple(islice(found, STEP)):
                progress()
                swept.removed += store.change(_Step(scope, token, some))
        except _Disturbed:
            continue
        store.change(lambda names: marks.disturb(names, scope))
        return
    swept.left.append(f"{scope}: it is being pushed to; the next run will look again")


@dataclass(frozen=True, slots=True)
class _Step:
    """One change: names that are all still garbage, or none of them goes."""

    scope: str
    token: str
    some: tuple[Garbage, ...]

    def __call__(self, names: Names) -> Counter[str]:
        if not marks.stands(names, self.scope, self.token):
            raise _Disturbed
        return Counter(each.why for each in self.some if self._remove(names, each))

    @staticmethod
    def _remove(names: Names, each: Garbage) -> bool:
        found = names.get(each.name)
        if found is None or hash(found) != each.seen:
            return False
        if each.unless is not None and names.paths(*each.unless, limit=1):
            return False
        return names.delete(each.name)
