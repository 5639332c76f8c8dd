"""Grants: which account was given which rights to which repositories.

    grant    USER:PATTERN    {"actions": ["pull", "push", "delete"]}

A pattern is a repository's full name, `some/path/*` for everything below, or `*`. The most specific one counts, and an
empty one takes away what a wider one gives. Which of them decides, and what counts beside them: `policy`. Blocking.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from api.access.errors import InvalidPattern
from api.access.principal import Action
from api.content.repository import Repository
from api.content.values import content, record
from cas import Name, Names, Reads

GRANT: Final = "grant"
EVERYTHING: Final = "*"
MOST_CHARS: Final = 255  # of a repository's name, in every protocol
# Whatever any protocol lets a part of a name be; a pattern for a name that nobody can use does no harm.
_PART = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?", re.ASCII)


def parse_pattern(text: str) -> str:
    """Read a pattern as people write it: `foo` is `library/foo`.

    Raises:
        InvalidPattern: it is none.
    """
    if text == EVERYTHING:
        return text
    *head, last = text.split("/")
    good = all(map(_PART.fullmatch, head)) and (_PART.fullmatch(last) or (head and last == EVERYTHING))
    pattern = text if head else str(Repository.of(text))
    if not good or len(pattern) > MOST_CHARS:
        raise InvalidPattern(text)
    return pattern


def parse_repository(text: str) -> Repository:
    """Read the name of one repository as people write it.

    Raises:
        InvalidPattern: it is none, or stands for many.
    """
    try:
        name = parse_pattern(text)
    except InvalidPattern:
        raise InvalidPattern(text, one=True) from None
    if name.endswith(EVERYTHING):
        raise InvalidPattern(text, one=True)
    return Repository.of(name)


def speaking_of(pattern: str) -> Iterator[str]:
    """Give the patterns that cover a repository's full name, or a pattern: most specific first, itself included."""
    yield pattern
    parts = pattern.split("/")
    for length in range(len(parts) - 1, -1, -1):
        wider = "/".join([*parts[:length], EVERYTHING])
        if wider != pattern:
            yield wider


def find(reads: Reads, user: str, pattern: str) -> frozenset[Action] | None:
    """Return what an account was given under just this pattern; None if nothing was said."""
    found = reads.get(_name(user, pattern))
    return None if found is None else _actions(content(found)["actions"])


def are_any(reads: Reads) -> bool:
    """Tell whether any account was ever granted anything, and still is."""
    return bool(reads.paths(GRANT, limit=1))


def of_user(reads: Reads, user: str) -> dict[str, frozenset[Action]]:
    """Return every grant of an account, by pattern."""
    prefix = f"{user}:"
    return {
        name.path.removeprefix(prefix): _actions(content(found)["actions"]) for name, found in reads.scan(GRANT, prefix)
    }


def put(names: Names, user: str, pattern: str, actions: Iterable[Action]) -> frozenset[Action]:
    """Set what a pattern gives, in place of what it gave before; whoever may push may pull."""
    given = frozenset(actions)
    if Action.PUSH in given:
        given |= {Action.PULL}
    names.put(_name(user, pattern), record({"actions": sorted(given)}))
    return given


def delete(names: Names, user: str, pattern: str) -> bool:
    """Remove a grant; tell whether there was one."""
    return names.delete(_name(user, pattern))


def _actions(names: Iterable[str]) -> frozenset[Action]:
    return frozenset(map(Action, names))


def _name(user: str, pattern: str) -> Name:
    return Name(GRANT, f"{user}:{pattern}")
