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
_PING: Final = re.compile(rb"(?:https?://[^/]*)?/v2/?")
# Engines 1.5 to 1.9 push manifests of schema 1 and nothing else, but speak v1 as well, wherever the ping finds no v2.
# 1.5 says only what it was built with.
_OF_SCHEMA_1: Final = re.compile(rb"docker/1\.[5-9]\..*|Go 1\.1 package http", re.DOTALL)


def serves(scope: Scope) -> bool:
    """Tell whether a request is for this protocol, by its path as it was sent, and for a ping also by who sent it."""
    if scope["type"] != "http" or _OURS.fullmatch(scope["raw_path"]) is None:
        return False
    return _PING.fullmatch(scope["raw_path"]) is None or not _knows_only_schema_1(scope)


def _knows_only_schema_1(scope: Scope) -> bool:
    agents = (value for name, value in scope["headers"] if name == b"user-agent")
    return any(_OF_SCHEMA_1.fullmatch(agent) for agent in agents)


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
