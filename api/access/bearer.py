"""Bearer tokens: signed statements of who asks and what for, good for minutes.

A JSON web token, because clients expect one, signed with the newest key of the keyring; whoever has the store reads
those of all others. What it grants is an upper bound: what its owner may do is looked up when it is used.
Blocking; no HTTP, no scopes as clients write them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol, final

import jwt

from api.access import keys
from api.access.keys import Key, Keyring
from api.access.principal import ANONYMOUS, Action, Caller, Principal
from api.content.repository import Repository
from cas import Reads

SERVICE: Final = "cas"  # who signs, and whom it is for: one family of processes, whatever hosts it is reached by
REPOSITORY: Final = "repository"
LISTS: Final = ("registry", "catalog")  # the type and name of what lists repositories
LEEWAY_S: Final = 60  # clocks of machines that share a store differ
ID_BYTES: Final = 12
_ALGORITHM: Final = "HS256"
_MOST_HEAD_CHARS: Final = 256  # ours have 80; the head is parsed before the signature vouches for anything


class Knows(Protocol):
    """Finds accounts; what `Authenticator.principal` is."""

    def __call__(self, reads: Reads, name: str, stamp: str | None = None, /) -> Principal | None: ...


@dataclass(frozen=True, slots=True)
class Resource:
    """Something a token speaks of, by the words of the token protocol, and what may be done to it."""

    type: str
    name: str
    actions: tuple[str, ...]


def issue(reads: Reads, who: Principal, granted: Iterable[Resource], *, now: float, life_s: int, unique: str) -> str:
    """Make a token; it is told from all others by `unique`."""
    key = keys.read(reads).newest
    second = int(now)
    claims = {
        "iss": SERVICE,
        "sub": who.name or "",
        "aud": SERVICE,
        "iat": second,
        "nbf": second,
        "exp": second + life_s,
        "jti": unique,
        "stamp": who.stamp,
        "access": [{"type": one.type, "name": one.name, "actions": one.actions} for one in granted],
    }
    return jwt.encode(claims, key.secret, algorithm=_ALGORITHM, headers={"kid": key.id})


def read(reads: Reads, token: str, *, principal: Knows, now: float) -> Caller | None:
    """Return whose token this is and what it is good for; see `Token`."""
    return Token(token).caller(reads, principal=principal, now=now)


@dataclass(frozen=True, slots=True)
class _Statement:
    """What a token of ours says, and the key that it was signed with: little, since it may be kept for long."""

    key: Key
    user: str
    stamp: str
    since: int
    until: int
    scope: frozenset[tuple[str, Action]]
    lists: bool


@final
class Token:
    """A token that somebody shows. What its text alone can tell is found out once, all else each time."""

    def __init__(self, text: str) -> None:
        """Of the token as it came; nobody vouches for it yet."""
        self._shown: str | _Statement | None = text

    def caller(self, reads: Reads, *, principal: Knows, now: float) -> Caller | None:
        """Return whose it is and what it is good for; None unless we signed it and it still holds.

        A token ends with its time, with its key, with its account and with the password its account had.
        """
        ring = keys.read(reads)
        if isinstance(self._shown, str):
            self._shown = _signed(ring, self._shown)
        said = self._shown
        if said is None or ring.find(said.key.id) != said.key or not said.since <= now <= said.until:
            return None
        who = principal(reads, said.user, said.stamp) if said.user else ANONYMOUS
        return None if who is None else Caller(who, said.scope, said.lists, said.until)


def _signed(ring: Keyring, token: str) -> _Statement | None:
    """Read a token, if a key of the ring signed it; its time is looked at by whoever has the clock."""
    head, dot, _ = token.partition(".")
    if not dot or len(head) > _MOST_HEAD_CHARS:
        return None
    try:
        key = ring.find(jwt.get_unverified_header(token).get("kid", ""))
        if key is None:
            return None
        claims: dict[str, Any] = jwt.decode(
            token,
            key.secret,
            algorithms=[_ALGORITHM],
            audience=SERVICE,
            issuer=SERVICE,
            options={"verify_exp": False, "verify_nbf": False, "verify_iat": False},
        )
    except jwt.PyJWTError:
        return None
    return _statement(key, claims)


def _statement(key: Key, claims: dict[str, Any]) -> _Statement:
    access = claims["access"]
    named = [(str(Repository.of(one["name"])), one["actions"]) for one in access if one["type"] == REPOSITORY]
    scope = frozenset((name, Action(action)) for name, actions in named for action in actions)
    lists = any((one["type"], one["name"]) == LISTS for one in access)
    since, until = claims["nbf"] - LEEWAY_S, claims["exp"] + LEEWAY_S
    return _Statement(key, claims["sub"], claims["stamp"], since, until, scope, lists)
