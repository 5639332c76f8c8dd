"""The policy: what somebody may do to a repository. The only place that decides it, for every protocol.

1. In `open` mode everybody may do everything.
2. In `token` mode a token is good for what the index vouched for, and nothing else is good for anything.
3. An admin may do everything.
4. The most specific grant says what an account may do, even if that is nothing. To its own name space, `NAME/*`, an
   account is granted everything unless something else was said.
5. Everybody may pull a public repository.
6. A token is good for no more than it says and what everybody may have, and for no more than its owner may do now.

Blocking; no HTTP.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from api.access import grants
from api.access.principal import ALL, NONE, Action, Caller
from api.access.settings import AccessSettings, Mode
from api.content import repositories
from api.content.catalogue import Sight
from api.content.repositories import Access
from api.content.repository import Repository
from cas import Names, Reads

Granted = Callable[[str], frozenset[Action] | None]  # what was said under just this pattern


def rights(reads: Reads, settings: AccessSettings, caller: Caller, repository: Repository) -> frozenset[Action]:
    """Return what a caller may do to a repository, whether there is such a one or not."""
    who, name = caller.principal, str(repository)
    if settings.mode == Mode.OPEN:
        return ALL
    if settings.mode == Mode.TOKEN:
        return NONE if caller.scope is None else caller.limit(name, ALL)
    if who.admin:
        return caller.limit(name, ALL)
    given = NONE if who.name is None else granted(partial(grants.find, reads, who.name), who.name, name)
    given = caller.limit(name, given)
    if Action.PULL not in given:
        info = repositories.find(reads, repository)
        if info is not None and info.access == Access.PUBLIC:
            given |= {Action.PULL}
    return given


def first_access(settings: AccessSettings) -> Access:
    """Return who may pull a repository that a push makes."""
    return Access.PUBLIC if settings.mode == Mode.OPEN else Access(settings.default_access)


def sight(reads: Reads, settings: AccessSettings, caller: Caller) -> Sight:
    """Return which repositories a caller may pull, for lists and searches; good within one read.

    A token's scope does not narrow it: a token that may list is told what its owner may see.
    """
    who = caller.principal
    if settings.mode == Mode.OPEN or (who.admin and settings.mode == Mode.AUTH):
        return Sight(everything=True)
    user = who.name
    if user is None or settings.mode == Mode.TOKEN:
        return Sight(everything=False)
    said = said_of(reads, user)
    prefixes = (pattern.removesuffix(grants.EVERYTHING) for pattern, given in said.items() if Action.PULL in given)

    def may_see(name: str) -> bool:
        return Action.PULL in granted(said.get, user, name)

    return Sight(everything=False, prefixes=tuple(prefixes), may_see=may_see)


def said_of(reads: Reads, user: str) -> dict[str, frozenset[Action]]:
    """Return what an account was granted, by pattern, its own name space included."""
    return {own(user): ALL, **grants.of_user(reads, user)}


def granted(said: Granted, user: str, pattern: str) -> frozenset[Action]:
    """Return what an account may do to a repository, or to all that a pattern covers, leaving public ones aside."""
    for one in grants.speaking_of(pattern):
        found = said(one)
        if found is not None:
            return found
        if one == own(user):
            return ALL
    return NONE


def revoke(names: Names, user: str, pattern: str) -> None:
    """Take back every right to a repository, or to all that a pattern covers.

    Grants to a part of it go too. Where a wider grant or the account's own name space would still give something, an
    empty grant says otherwise.
    """
    for old in grants.of_user(names, user):
        if pattern in grants.speaking_of(old):
            grants.delete(names, user, old)
    places = [pattern]
    if pattern in grants.speaking_of(own(user)):
        places.append(own(user))
    for place in places:
        if granted(partial(grants.find, names, user), user, place):
            grants.put(names, user, place, ())


def own(user: str) -> str:
    """Return the pattern of the name space that is an account's own."""
    return f"{user}/{grants.EVERYTHING}"
