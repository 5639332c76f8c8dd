"""The v2 protocol as one application: what wraps its dispatcher.

Knows the header that every answer carries, refusals included.
"""

from __future__ import annotations

import re
from typing import Final, final

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import Errors
from api.paths import Paths
from api.v2.call import Registry
from api.v2.errors import render
from api.v2.routes import Dispatcher

VERSION: Final = ("Docker-Distribution-API-Version", "registry/2.0")  # old daemons look for it before they go on
_OURS: Final = re.compile(rb"(?:https?://[^/]*)?/v2(?:/.*)?", re.DOTALL)


def serves(scope: Scope) -> bool:
    """Tell whether a request is for this protocol, by its path as it was sent."""
    return scope["type"] == "http" and _OURS.fullmatch(scope["raw_path"]) is not None


def build(registry: Registry) -> ASGIApp:
    """Make the application."""
    return Versioned(Errors(Paths(Dispatcher(registry)), render))


@final
class Versioned:
    """Wraps an application: every answer says which protocol it speaks."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""

        async def say(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).append(*VERSION)
            await send(message)

        await self._app(scope, receive, say)
