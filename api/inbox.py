"""The messages of one request on their way from the connection to the application: at most one waits.

Hypercorn's own queue counts messages, blocks for ever once its application is gone, and tells of a disconnect
only once. This one holds one message, never blocks for an application that no longer listens, and repeats
itself. A request over HTTP/2 may hold as much as its window lets come, so that it keeps nobody else on its
connection waiting; but only while the worker holds little altogether.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, cast, final

from hypercorn.asyncio.task_group import TaskGroup
from hypercorn.config import Config
from hypercorn.typing import AppWrapper, ASGIReceiveEvent, ASGISendEvent, HTTPScope, Scope

from api.config import KIB

# A small body waits for an application that may not want it; of a large one, only a piece does.
_ROOM_BYTES: Final = 64 * KIB


class PeerLost(ConnectionError):
    """The connection broke while the application was sending. Nobody listens; stop."""


@dataclass(slots=True)
class Held:
    """Body bytes that wait in a worker for their applications, and how many are still welcome."""

    most_bytes: int
    bytes: int = 0


@final
class Inbox:
    """What has come of a request and was not taken yet, and the news that there will be no more.

    With a window, its peer cannot send more than that anyhow.
    """

    def __init__(self, held: Held, *, has_window: bool) -> None:
        self._held, self._has_window = held, has_window
        self._pieces: list[bytes] = []
        self._size = 0
        self._is_whole = self._is_gone = self._is_closed = False
        self._news, self._room = asyncio.Event(), asyncio.Event()

    async def put(self, message: ASGIReceiveEvent) -> None:
        """Take a message in; returns once there is room for another."""
        if message["type"] == "http.disconnect":
            self._is_gone = True
            self._room.set()
        elif message["type"] == "http.request":
            self._is_whole = not message["more_body"]
            if message["body"] and not self._is_closed:
                self._pieces.append(message["body"])
                self._size += len(message["body"])
                self._held.bytes += len(message["body"])
        self._news.set()
        while not self._has_room():
            self._room.clear()
            await self._room.wait()

    def _has_room(self) -> bool:
        is_welcome = self._has_window and self._held.bytes <= self._held.most_bytes
        return is_welcome or self._size <= _ROOM_BYTES or self._is_gone

    async def get(self) -> ASGIReceiveEvent:
        """Wait for the next message; for ever the same one once the client is gone."""
        while not (self._pieces or self._is_whole or self._is_gone):
            self._news.clear()
            await self._news.wait()
        if not (self._pieces or self._is_whole):
            return {"type": "http.disconnect"}
        body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        more, self._is_whole = not self._is_whole, False
        self._empty()
        return {"type": "http.request", "body": body, "more_body": more}

    def close(self) -> None:
        """Hold nothing any more: the application has ended."""
        self._is_closed = self._is_gone = True
        self._empty()

    def _empty(self) -> None:
        self._held.bytes -= self._size
        self._pieces, self._size = [], 0
        self._room.set()


class Tasks(TaskGroup):
    """Hypercorn's tasks of one connection, with our inbox for each request."""

    apps = 0  # requests whose application has not ended, whether or not anybody still waits for it

    def __init__(self, loop: asyncio.AbstractEventLoop, held: Held) -> None:
        super().__init__(loop)
        self._held = held

    async def spawn_app(
        self,
        app: AppWrapper,
        config: Config,
        scope: Scope,
        send: Callable[[ASGISendEvent | None], Awaitable[None]],
    ) -> Callable[[ASGIReceiveEvent], Awaitable[None]]:
        inbox = Inbox(self._held, has_window=cast("HTTPScope", scope)["http_version"] == "2")
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
        inbox.close()
        await send(None)


def _no_threads(*_: Any) -> Any:
    raise RuntimeError("Only ASGI applications are served; they cross to threads by api.threads.")
