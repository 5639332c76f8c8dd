"""Scopes: what a client says that it is going to need, as text. Pure.

    type[(class)]:name:action[,action]    several of them separated by blanks

What makes no sense is left out and never refused: clients do not recover from that, while a token that lacks a right
is told so where the right is needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from api.access.bearer import LISTS, REPOSITORY, Resource
from api.access.principal import ALL, Action
from api.v2.names import is_repository

MOST: Final = 100  # resources in one token, which travels in a header; the rest is not granted
ANYTHING: Final = "*"
_LIST_ACTIONS: Final = frozenset({ANYTHING, "search"})  # the second one is sent for `docker search`
_TYPE: Final = re.compile(r"([a-z]+)(?:\([a-z0-9]+\))?", re.ASCII)  # a class, like `plugin`, makes no difference


def parse(texts: Iterable[str]) -> list[Resource]:
    """Read scopes, each of which may be several; what is asked of the same thing twice is put together."""
    found: dict[tuple[str, str], set[str]] = {}
    for text in " ".join(texts).split():
        one = _parse(text)
        if one is not None and ((one.type, one.name) in found or len(found) < MOST):
            found.setdefault((one.type, one.name), set()).update(one.actions)
    return [Resource(kind, name, tuple(sorted(actions))) for (kind, name), actions in found.items()]


def write(resources: Iterable[Resource]) -> str:
    """Write scopes as one text."""
    return " ".join(f"{one.type}:{one.name}:{','.join(one.actions)}" for one in resources)


def of_repository(name: str, actions: Iterable[Action]) -> Resource:
    """Make what asks for rights to a repository, in the order in which clients name them."""
    return Resource(REPOSITORY, name, tuple(sorted(actions)))


def of_lists() -> Resource:
    """Make what asks for the list of repositories."""
    return Resource(*LISTS, (ANYTHING,))


def _parse(text: str) -> Resource | None:
    head, first, rest = text.partition(":")
    name, last, tail = rest.rpartition(":")  # a name may have colons: `host:port/path` does
    kind = _TYPE.fullmatch(head)
    if not (first and last) or kind is None:
        return None
    actions = frozenset(tail.split(","))
    if kind[1] == REPOSITORY and is_repository(name):
        wanted = ALL if ANYTHING in actions else actions & ALL
        return Resource(REPOSITORY, name, tuple(wanted))
    if (kind[1], name) == LISTS:
        return Resource(*LISTS, tuple(actions & _LIST_ACTIONS))
    return None
