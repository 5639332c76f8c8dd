"""One request on its way to a handler and through it, and the registry it was sent to.

Knows how to get at names, headers and bodies, and that nothing is handled before the gate let it in. Refuses to know
any route.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import final

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from api.access.authenticate import Authenticator
from api.access.settings import AccessSettings, Mode
from api.config import HttpSettings
from api.content.repositories import Access
from api.content.repository import Repository
from api.errors import ApiError
from api.origin import client, origin
from api.streaming import receive_bytes
from api.threads import Threads
from api.v1 import names, refusals
from api.v1.images import Place
from api.v1.rights import UNASKED, Admission, Ask, Gate, Need, Side
from api.v1.settings import V1Settings
from cas import Store


@dataclass(frozen=True, slots=True)
class Registry:
    """Everything a handler may need that outlives a request."""

    store: Store
    http: HttpSettings
    v1: V1Settings
    access: AccessSettings
    clock: Callable[[], float]
    threads: Threads
    authenticator: Authenticator
    gate: Gate
    unpackers: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        """Bound what unpacking may cost at any one time."""
        object.__setattr__(self, "unpackers", asyncio.Semaphore(self.v1.unpackers))

    @property
    def first_access(self) -> Access:
        """Who may pull a repository that a push makes."""
        return Access.PUBLIC if self.access.mode == Mode.OPEN else Access(self.access.default_access)


@final
@dataclass(frozen=True, slots=True)
class Call:
    """A request and its registry.

    Attributes:
        admission: to what the gate let it in.
    """

    registry: Registry
    request: Request
    admission: Admission = UNASKED

    @property
    def store(self) -> Store:
        """The engine."""
        return self.registry.store

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
    def now(self) -> float:
        """The time, in Unix seconds."""
        return self.registry.clock()

    @property
    def home(self) -> str:
        """From where images are seen on this route, which has one in its path."""
        assert self.admission.home is not None, "the gate said so"
        return self.admission.home

    @property
    def place(self) -> Place:
        """Where this request pushes its image to."""
        makes = self.registry.first_access if self.admission.vouch is not None else None
        return Place(self.store, self.registry.v1, self.home, self.now, self.admission.expired, makes)

    @property
    def host(self) -> str:
        """The `host[:port]` that the client came to."""
        return origin(self.request.scope, self.registry.http).host

    @property
    def endpoints(self) -> list[str]:
        """The hosts that clients are to push to and pull from."""
        told = self.registry.v1.endpoints
        return [self.host] if told is None else [each.strip() for each in told.split(",")]

    @property
    def address(self) -> str:
        """Where the request came from: what wrong passwords are counted by."""
        return client(self.request.scope, self.registry.http)

    def header(self, name: str) -> str | None:
        """Return a request header."""
        return self.request.headers.get(name)

    @property
    def announced_bytes(self) -> int | None:
        """How long the body is going to be, if its sender said so."""
        text = self.header("content-length")
        return int(text) if text is not None else None

    async def body(self) -> bytes:
        """Take the whole body.

        Raises:
            BodyTooLarge: at once, if its length was announced.
        """
        limit = self.registry.http.max_json_bytes
        return await receive_bytes(self.request.receive, limit_bytes=limit, announced_bytes=self.announced_bytes)


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
        call = Call(self._registry, Request(scope, receive))
        admission = await self._registry.gate.admit(_ask(call, entry))
        answer = await entry.handler(Call(self._registry, call.request, admission))
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
    )
