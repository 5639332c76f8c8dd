"""One request on its way to a handler and through it, and the registry it was sent to.

Knows how to get at names, headers and bodies, and that nothing is handled before the gate let it in. Refuses to know
any route.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import final

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from api.access.settings import Mode
from api.content.repository import Repository
from api.errors import ApiError
from api.origin import origin
from api.request import Asked, Server
from api.v1 import homes, names, refusals
from api.v1.images import Place
from api.v1.rights import UNASKED, Admission, Ask, Gate, Need, Side
from api.v1.settings import V1Settings


@dataclass(frozen=True, slots=True)
class Registry(Server):
    """Everything a handler may need that outlives a request."""

    v1: V1Settings
    gate: Gate
    unpackers: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        """Bound what unpacking may cost at any one time."""
        object.__setattr__(self, "unpackers", asyncio.Semaphore(self.v1.unpackers))


@final
@dataclass(frozen=True, slots=True)
class Call(Asked[Registry]):
    """A request and its registry.

    Attributes:
        admission: to what the gate let it in.
    """

    admission: Admission = UNASKED

    @property
    def image_id(self) -> str:
        """The path's image id, checked."""
        return names.image_id(self.request.path_params["id"])

    @property
    def repository(self) -> Repository:
        """The path's repository, checked."""
        return names.repository(self.request.path_params["repo"])

    @property
    def tag(self) -> str:
        """The path's tag, not checked: only a new one must follow the grammar."""
        tag: str = self.request.path_params["tag"]
        return tag

    @property
    def home(self) -> str:
        """From where images are seen on this route, which has one in its path."""
        assert self.admission.home is not None, "the gate said so"
        return self.admission.home

    @property
    def place(self) -> Place:
        """Where this request pushes its image to."""
        makes = self.registry.first_access if self.admission.vouch is not None else None
        sees = homes.sight_of(self.registry.access, self.admission.caller)
        return Place(self.store, self.registry.v1, self.home, self.now, self.admission.expired, makes, sees=sees)

    @property
    def host(self) -> str:
        """The `host[:port]` that the client came to."""
        return origin(self.request.scope, self.registry.http).host

    @property
    def endpoints(self) -> list[str]:
        """The hosts that clients are to push to and pull from."""
        told = self.registry.v1.endpoints
        return [self.host] if told is None else [each.strip() for each in told.split(",")]


Handler = Callable[[Call], Awaitable[ASGIApp]]


@dataclass(frozen=True, slots=True)
class Entry:
    """One method of one route: who handles it, what that needs, and whose it is."""

    handler: Handler
    need: Need
    side: Side


@final
class Methods:
    """One path's entries by method. HEAD is answered by GET's; the server below leaves the body out."""

    def __init__(self, registry: Registry, entries: Mapping[str, Entry]) -> None:
        self._registry = registry
        self._entries = {**entries, **({"HEAD": entries["GET"]} if "GET" in entries else {})}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request in, then handle it.

        Raises:
            ApiError: 405, with the methods that would do; whatever the gate says.
        """
        entry = self._entries.get(scope["method"])
        if entry is None:
            raise ApiError(*refusals.NO_SUCH_METHOD, headers={"Allow": ", ".join(sorted(self._entries))})
        if entry.side is Side.INDEX and self._registry.access.mode == Mode.TOKEN:
            raise ApiError(*refusals.NO_SUCH_ROUTE)
        async with AsyncExitStack() as held:
            call = Call(self._registry, Request(scope, receive), held)
            admission = await self._registry.gate.admit(_ask(call, entry))
            answer = await entry.handler(replace(call, admission=admission))
        await answer(scope, receive, send)


def _ask(call: Call, entry: Entry) -> Ask:
    named = call.request.path_params
    return Ask(
        need=entry.need,
        side=entry.side,
        authorization=", ".join(call.request.headers.getlist("authorization")),
        address=call.address,
        repository=call.repository if "repo" in named else None,
        image_id=call.image_id if "id" in named else None,
        known=call.known,
        mistaken=call.mistaken,
    )
