"""Request paths, decoded once and strictly, before anything routes by them.

Knows percent-encoding and what has no business in a path. Refuses to know routes, beyond the protocols in
which a trailing slash means nothing.
"""

from __future__ import annotations

import re
from typing import Final, final
from urllib.parse import unquote_to_bytes

from starlette.types import ASGIApp, Receive, Scope, Send

from api.errors import ApiError

# Clients spell the same v1 route with and without a slash, and must not be redirected: many of them
# turn a redirected PUT into a GET.
SLASH_MEANS_NOTHING: Final = ("/v1/",)

_ABSOLUTE = re.compile(rb"https?://[^/]*", re.IGNORECASE)  # the form a proxy is sent
_BROKEN = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_HIDDEN = re.compile(rb"%2f|%5c|\\", re.IGNORECASE)  # a second way to write a separator
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def decode_path(raw: bytes) -> str:
    """Decode a request target's path once; refuse every spelling that could mean something else to somebody.

    Raises:
        ApiError: 400 for broken escapes, hidden separators, dot segments, control characters and bad UTF-8.
    """
    raw = _ABSOLUTE.sub(b"", raw, count=1) if not raw.startswith(b"/") else raw
    if _BROKEN.search(raw):
        raise ApiError(400, "The path has a % that is not followed by two hex digits.")
    if _HIDDEN.search(raw):
        raise ApiError(400, "The path has an encoded slash or a backslash.")
    try:
        path = unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        raise ApiError(400, "The path is not valid UTF-8.") from None
    if _CONTROL.search(path):
        raise ApiError(400, "The path has a control character.")
    if any(segment in {".", ".."} for segment in path.split("/")):
        raise ApiError(400, "The path has a dot segment.")
    return path


@final
class Paths:
    """Wraps an application that routes by `scope["path"]`: what it sees there is decoded strictly."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Decode, drop a slash that means nothing, pass on."""
        if scope["type"] == "http":
            path = decode_path(scope["raw_path"])
            if path.startswith(SLASH_MEANS_NOTHING):
                path = path.removesuffix("/")
            scope = {**scope, "path": path}
        await self._app(scope, receive, send)
