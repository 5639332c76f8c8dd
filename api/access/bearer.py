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


@final
class Token:
    """A token that somebody shows. What its text alone can tell is found out once, all else each time."""

    def __init__(self, text: str) -> None:
        """Of the token as it came; nobody vouches for it yet."""
        self._text = text
        self._signed: tuple[Key, dict[str, Any]] | None = None

    def caller(self, reads: Reads, *, principal: Knows, now: float) -> Caller | None:
        """Return whose it is and what it is good for; None unless we signed it and it still holds.

        A token ends with its time, with its key, with its account and with the password its account had.
        """
        claims = self._claims(keys.read(reads))
        if claims is None or not claims["nbf"] - LEEWAY_S <= now <= claims["exp"] + LEEWAY_S:
            return None
        who = principal(reads, claims["sub"], claims["stamp"]) if claims["sub"] else ANONYMOUS
        if who is None:
            return None
        access = claims["access"]
        return Caller(
            who,
            frozenset(
                (str(Repository.of(one["name"])), Action(action))
                for one in access
                if one["type"] == REPOSITORY
                for action in one["actions"]
            ),
            lists=any((one["type"], one["name"]) == LISTS for one in access),
            until=claims["exp"] + LEEWAY_S,
        )

    def _claims(self, ring: Keyring) -> dict[str, Any] | None:
        """Return what it says, if a key of the ring signed it; its time is looked at by whoever has the clock."""
        if self._signed is None:
            self._signed = _signed(ring, self._text)
        if self._signed is None:
            return None
        key, claims = self._signed
        return claims if ring.find(key.id) == key else None


def _signed(ring: Keyring, token: str) -> tuple[Key, dict[str, Any]] | None:
    """Return which key signed a token of ours, and what it says."""
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
    return key, claims
