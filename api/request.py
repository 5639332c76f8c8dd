"""One request as every protocol sees it, and the server it came to.

Knows how to get at headers, addresses and bodies, and bounds what bodies may cost that are held whole. Refuses to know
any route, and how anybody is recognised.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar, final

from starlette.requests import Request
from starlette.types import Receive

from api.access import policy
from api.access.authenticate import Authenticator
from api.access.errors import BadCredentials
from api.access.principal import Principal
from api.access.settings import AccessSettings
from api.access_log import WRONG, note_user
from api.config import KIB, HttpSettings
from api.content.repositories import Access
from api.content.views import Views
from api.loan import EXTENSION as LOAN
from api.loan import Lender
from api.origin import client, counted
from api.receiving import pieces
from api.threads import Threads
from cas import Store

SMALL_BYTES: Final = 64 * KIB  # a body that any connection may bring at any time; real ones are rarely larger


@final
class Bodies:
    """Bodies that one worker holds whole: small ones from everybody, of larger ones a few at a time."""

    def __init__(self, large_at_once: int) -> None:
        self._large = asyncio.Semaphore(large_at_once)

    async def take(self, receive: Receive, held: AsyncExitStack, limit_bytes: int, announced: int | None) -> bytes:
        """Take a body whole. Past the first bytes of a large one wait for a turn, which ends with `held`.

        Raises:
            ClientGone: the body broke off, or is shorter than announced.
            BodyTooLarge: it is longer than the limit; known at once if the length was announced.
        """
        taken = bytearray()
        async with aclosing(pieces(receive, limit_bytes, announced)) as body:
            async for data in body:
                if len(taken) <= SMALL_BYTES < len(taken) + len(data):
                    await held.enter_async_context(self._large)
                taken += data
        return bytes(taken)


@dataclass(frozen=True, slots=True)
class Server:
    """What of a worker outlives a request, whatever its protocol.

    Attributes:
        authenticator: knows accounts and their passwords.
        views: knows what a tag is to the other generation of clients.
    """

    store: Store
    threads: Threads
    http: HttpSettings
    access: AccessSettings
    clock: Callable[[], float]
    authenticator: Authenticator
    bodies: Bodies
    views: Views

    @property
    def first_access(self) -> Access:
        """Who may pull a repository that a push makes."""
        return policy.first_access(self.access)


S = TypeVar("S", bound=Server)


@dataclass(frozen=True, slots=True)
class Asked(Generic[S]):
    """A request and the server it came to.

    Attributes:
        held: what ends with the request.
    """

    registry: S
    request: Request
    held: AsyncExitStack

    @property
    def store(self) -> Store:
        """The engine."""
        return self.registry.store

    @property
    def now(self) -> float:
        """The time, in Unix seconds."""
        return self.registry.clock()

    @property
    def address(self) -> str:
        """Where the request came from: what wrong passwords are counted by."""
        return client(self.request.scope, self.registry.http)

    def known(self, who: Principal) -> None:
        """Note for the access log whose credentials were right."""
        note_user(self.request.scope, who.name or "")

    def mistaken(self, error: BadCredentials) -> None:
        """Note for the access log that somebody was wrong, which a challenge to say who they are is not."""
        note_user(self.request.scope, WRONG + error.tried)
        counted(self.request.scope, self.registry.http)

    def header(self, name: str) -> str | None:
        """Return a request header, its first line."""
        return self.request.headers.get(name)

    @property
    def announced_bytes(self) -> int | None:
        """How long the body is going to be, if its sender said so."""
        text = self.header("content-length")
        return int(text) if text is not None else None

    @property
    def lender(self) -> Lender | None:
        """Lends the connection, where that can be."""
        extensions: Mapping[str, Any] = self.request.scope.get("extensions") or {}
        return extensions.get(LOAN)

    async def body(self, limit_bytes: int | None = None) -> bytes:
        """Take the whole body, of at most `max_json_bytes` unless another limit is given.

        Raises:
            ClientGone, BodyTooLarge: see `Bodies.take`.
        """
        limit = self.registry.http.max_json_bytes if limit_bytes is None else limit_bytes
        return await self.registry.bodies.take(self.request.receive, self.held, limit, self.announced_bytes)

    async def small_body(self) -> bytes | None:
        """Take the body of somebody who need not have any right; None if it is large, of which nothing is kept.

        Raises:
            ClientGone, BodyTooLarge: as for `body`.
        """
        taken, size = bytearray(), 0
        limit = self.registry.http.max_json_bytes
        async with aclosing(pieces(self.request.receive, limit, self.announced_bytes)) as body:
            async for data in body:
                size += len(data)
                if size <= SMALL_BYTES:
                    taken += data
        return bytes(taken) if size <= SMALL_BYTES else None
