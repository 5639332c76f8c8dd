"""Errors as answers: the one table from what went wrong to a status and a sentence.

Knows statuses and who is to blame. Refuses to know the shape of an error body: a protocol brings its own
`render`. A forgotten engine error fails a test; an error that nobody expected is ours, 500, and logged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.receiving import BodyTooLarge, ClientGone
from cas import (
    Busy,
    Closed,
    Damaged,
    DiskFailed,
    InvalidDigest,
    InvalidName,
    Mismatch,
    Missing,
    NoSpace,
    OpenError,
    ReadOnly,
    Superseded,
)

log = logging.getLogger(__name__)

RETRY_AFTER_S = 5  # long enough for a stopped neighbour or a full queue to recover, short for a waiting client


class ApiError(Exception):
    """The request cannot be served as it is; the status says whose fault that is, the message what to do.

    `code` and `detail` are for protocols whose errors have such things.
    """

    def __init__(
        self,
        status: int,
        message: str,
        headers: Mapping[str, str] | None = None,
        *,
        code: str = "",
        detail: object = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, dict(headers or {})
        self.code, self.detail = code, detail


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a client is told instead of an answer, before a protocol gives it a shape."""

    status: int
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)
    code: str = ""
    detail: object = None


@dataclass(frozen=True, slots=True)
class Row:
    """How one error is answered. An error of ours is one that the operator's log must show."""

    status: int
    code: str = ""  # where the status alone does not tell it
    retry: bool = False
    ours: bool = False


# Old protocols have no codes: the error's own sentence is all they show.
ROWS: Final[Mapping[type[Exception], Row]] = {
    InvalidDigest: Row(400, "DIGEST_INVALID"),
    InvalidName: Row(400, "NAME_INVALID"),
    Mismatch: Row(400, "DIGEST_INVALID"),
    Missing: Row(404, "BLOB_UNKNOWN"),
    Superseded: Row(409, "BLOB_UPLOAD_INVALID"),
    BodyTooLarge: Row(413),
    Damaged: Row(500, ours=True),
    OpenError: Row(500, ours=True),
    Busy: Row(503, retry=True),
    Closed: Row(503, retry=True),
    DiskFailed: Row(503, retry=True, ours=True),
    ReadOnly: Row(503, retry=True, ours=True),
    NoSpace: Row(507, ours=True),
}
UNEXPECTED: Final = Refusal(500, "Internal error: the server's log says more.")


def describe(error: Exception) -> Refusal:
    """Look an error up in the table, by its class or the nearest base class that has a row."""
    if isinstance(error, ApiError):
        return Refusal(error.status, error.message, error.headers, error.code, error.detail)
    for kind in type(error).__mro__:
        row = ROWS.get(kind)
        if row is not None:
            if row.ours:
                log.error("%s: %s", type(error).__name__, error)
            headers = {"Retry-After": str(RETRY_AFTER_S)} if row.retry else {}
            return Refusal(row.status, str(error) or kind.__name__, headers, row.code)
    log.error("unexpected %s", type(error).__name__, exc_info=error)
    return UNEXPECTED


@final
class Errors:
    """Wraps an application: an error before the first byte is answered, a later one ends the connection."""

    def __init__(self, app: ASGIApp, render: Callable[[Refusal], ASGIApp]) -> None:
        self._app, self._render = app, render

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or one lifespan, which is passed on as it is."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except ClientGone:
            return  # nobody is left to answer
        except Exception as error:
            if started:
                raise
            await self._render(describe(error))(scope, receive, send)
