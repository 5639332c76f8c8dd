"""The messages of one request on their way from the connection to the application: at most one waits.

Hypercorn's own queue counts messages, blocks for ever once its application is gone, and tells of a disconnect
only once. This one holds one message, never blocks for an application that no longer listens, and repeats
itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, final

from hypercorn.asyncio.task_group import TaskGroup
from hypercorn.config import Config
from hypercorn.typing import AppWrapper, ASGIReceiveEvent, ASGISendEvent, Scope

from api.config import KIB

# A small body waits for an application that may not want it; of a large one, only a piece does.
_ROOM_BYTES: Final = 64 * KIB


class PeerLost(ConnectionError):
    """The connection broke while the application was sending. Nobody listens; stop."""


@final
class Inbox:
    """What has come of a request and was not taken yet, and the news that there will be no more."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0
        self._is_whole = self._is_gone = False
        self._news, self._room = asyncio.Event(), asyncio.Event()

    async def put(self, message: ASGIReceiveEvent) -> None:
        """Take a message in; returns once there is room for another."""
        if message["type"] == "http.disconnect":
            self._is_gone = True
            self._room.set()
        elif message["type"] == "http.request":
            self._is_whole = not message["more_body"]
            if message["body"]:
                self._pieces.append(message["body"])
                self._size += len(message["body"])
        self._news.set()
        while self._size > _ROOM_BYTES and not self._is_gone:
            self._room.clear()
            await self._room.wait()

    async def get(self) -> ASGIReceiveEvent:
        """Wait for the next message; for ever the same one once the client is gone."""
        while not (self._pieces or self._is_whole or self._is_gone):
            self._news.clear()
            await self._news.wait()
        if not (self._pieces or self._is_whole):
            return {"type": "http.disconnect"}
        body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        more, self._is_whole = not self._is_whole, False
        self._pieces, self._size = [], 0
        self._room.set()
        return {"type": "http.request", "body": body, "more_body": more}


class Tasks(TaskGroup):
    """Hypercorn's tasks of one connection, with our inbox for each request."""

    apps = 0  # requests whose application has not ended, whether or not anybody still waits for it

    async def spawn_app(
        self,
        app: AppWrapper,
        config: Config,
        scope: Scope,
        send: Callable[[ASGISendEvent | None], Awaitable[None]],
    ) -> Callable[[ASGIReceiveEvent], Awaitable[None]]:
        inbox = Inbox()
        self.apps += 1
        self.spawn(self._serve, app, config, scope, inbox, send)
        return inbox.put

    async def _serve(self, *call: Any) -> None:
        try:
            await _serve(*call)
        finally:
            self.apps -= 1


async def _serve(
    app: AppWrapper,
    config: Config,
    scope: Scope,
    inbox: Inbox,
    send: Callable[[ASGISendEvent | None], Awaitable[None]],
) -> None:
    try:
        await app(scope, inbox.get, send, _no_threads, _no_threads)
    except ConnectionError:
        pass  # the client left, which is its right
    except Exception:  # noqa: BLE001 - whatever an application raises ends its answer, not the worker
        await config.log.exception("An application failed")
    finally:
        await send(None)


def _no_threads(*_: Any) -> Any:
    raise RuntimeError("Only ASGI applications are served; they cross to threads by api.threads.")
