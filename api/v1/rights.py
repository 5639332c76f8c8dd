"""What routes demand and what callers were admitted to: values only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

from api.access.errors import BadCredentials
from api.access.principal import NOBODY, Action, Caller, Principal
from api.content.repository import Repository
from api.errors import ApiError
from api.v1 import refusals
from api.v1.tokens import Token


class Side(Enum):
    """Which of the two services a route belongs to; one server may be both."""

    INDEX = "index"
    REGISTRY = "registry"
    BOTH = "both"


class Need(Enum):
    """What somebody needs who uses a route. Every route says it, and there is none that says nothing."""

    NOTHING = "nothing"  # credentials are not looked at
    WHOEVER = "whoever"  # anybody, and everybody gets their own answer; credentials that are shown must be good
    ACCOUNT = "account"  # a password
    PULL = "pull"  # of the path's repository
    PUSH = "push"
    TAG = "tag"  # push, also at the end of a push that outlasted its token
    DELETE = "delete"
    OWN = "own"  # everything: deciding who may see it
    VOUCH = "vouch"  # push or delete
    IMAGE = "image"  # to see the path's image
    UPLOAD = "upload"  # to push it


ANY_OF: Final = {
    Need.PULL: {Action.PULL},
    Need.PUSH: {Action.PUSH},
    Need.TAG: {Action.PUSH},
    Need.DELETE: {Action.DELETE},
    Need.VOUCH: {Action.PUSH, Action.DELETE},
}
MAY_BE_LATE: Final = frozenset({Need.TAG, Need.UPLOAD})
GRANTS: Final = {
    "read": frozenset({Action.PULL}),
    "write": frozenset({Action.PULL, Action.PUSH}),
    "delete": frozenset({Action.PULL, Action.DELETE}),
}


def suffices(need: Need, given: frozenset[Action]) -> bool:
    """Tell whether rights to a repository are what a route needs."""
    return given == frozenset(Action) if need is Need.OWN else bool(ANY_OF[need] & given)


@dataclass(frozen=True, slots=True)
class Ask:
    """A request, as far as it matters for who may make it; repository and image are those of the path.

    Attributes:
        known: to be told whose credentials were right, whatever is decided then.
        mistaken: to be told that they were wrong.
    """

    need: Need
    side: Side
    authorization: str
    address: str
    repository: Repository | None
    image_id: str | None
    known: Callable[[Principal], None]
    mistaken: Callable[[BadCredentials], None]


class Vouch(Protocol):
    """What another index says of one token."""

    async def lists(self, image_id: str) -> bool: ...

    async def opens(self, image_id: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class Admission:
    """Who was let in, and to what.

    Attributes:
        home: from where images are seen on this request; None if nobody said so yet.
        token: the one that was shown, if it was.
        expired: when that expired, if it did.
        vouch: the index behind the token, if that is another server.
    """

    caller: Caller = NOBODY
    home: str | None = None
    token: Token | None = None
    expired: int | None = None
    vouch: Vouch | None = None


UNASKED: Final = Admission()  # before anybody looked


class Gate(Protocol):
    """Lets requests in, or raises what they are answered instead."""

    async def admit(self, ask: Ask) -> Admission: ...


def refused(side: Side, message: str | None = None) -> ApiError:
    """Make the answer for whoever has to say who they are: one and the same, whatever is there or is not."""
    index = side is not Side.REGISTRY
    status, default = refusals.NEEDS_LOGIN if index else refusals.NEEDS_TOKEN
    return ApiError(status, message or default, refusals.LOGIN_CHALLENGE if index else refusals.TOKEN_CHALLENGE)
