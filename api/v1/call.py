"""One request on its way through a handler, and the registry it was sent to.

Knows how to get at names, headers and bodies. Refuses to know any route.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import final

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from api.config import HttpSettings
from api.errors import ApiError
from api.streaming import receive_bytes
from api.threads import Threads
from api.v1 import names, refusals
from api.v1.names import Repository
from api.v1.settings import V1Settings
from api.v1.tokens import Signer
from cas import Store

# What may be told to clients as a host: a comma or a slash in it would send them elsewhere.
_HOST = re.compile(r"[A-Za-z0-9._:\[\]-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Registry:
    """Everything a handler may need that outlives a request."""

    store: Store
    http: HttpSettings
    v1: V1Settings
    clock: Callable[[], float]
    threads: Threads
    signer: Signer
    unpackers: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        """Bound what unpacking may cost at any one time."""
        object.__setattr__(self, "unpackers", asyncio.Semaphore(self.v1.unpackers))


@final
@dataclass(frozen=True, slots=True)
class Call:
    """A request and its registry."""

    registry: Registry
    request: Request

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
        return Repository.parse(self.request.path_params["repo"])

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
    def host(self) -> str:
        """The host that clients are to be sent to."""
        if self.registry.v1.public_host is not None:
            return self.registry.v1.public_host
        named = self.header("host") or ""
        if _HOST.fullmatch(named):
            return named
        address, port = self.request.scope.get("server") or ("localhost", None)
        literal = f"[{address}]" if ":" in address else address  # IPv6
        return f"{literal}:{port}" if port else literal

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


@final
class Methods:
    """One path's handlers by method. HEAD is answered by GET's; the server below leaves the body out."""

    def __init__(self, registry: Registry, handlers: dict[str, Handler]) -> None:
        self._registry = registry
        self._handlers = handlers | ({"HEAD": handlers["GET"]} if "GET" in handlers else {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request.

        Raises:
            ApiError: 405, with the methods that would do.
        """
        handler = self._handlers.get(scope["method"])
        if handler is None:
            raise ApiError(*refusals.NO_SUCH_METHOD, headers={"Allow": ", ".join(sorted(self._handlers))})
        answer = await handler(Call(self._registry, Request(scope, receive)))
        await answer(scope, receive, send)
