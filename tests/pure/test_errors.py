"""The table from errors to answers is complete, and keeps what is ours apart from what is theirs."""

from __future__ import annotations

import asyncio
import logging

import pytest
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import cas
from api.errors import RETRY_AFTER_S, ROWS, UNEXPECTED, ApiError, Errors, describe
from api.receiving import BodyTooLarge, ClientGone


def without_row(base: type[cas.CasError]) -> list[type[cas.CasError]]:
    """The errors under `base` that neither have a row nor inherit one."""
    bare = [
        kind
        for kind in base.__subclasses__()
        if kind.__module__ == base.__module__ and not any(parent in ROWS for parent in kind.__mro__)
    ]
    return bare + [below for kind in bare for below in without_row(kind)]


def test_every_engine_error_has_a_row() -> None:
    """Its own, or one it inherits on purpose; a row for the base would hide a forgotten one."""
    assert without_row(cas.CasError) == []
    assert cas.CasError not in ROWS


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (cas.Missing("m"), 404),
        (cas.InvalidName("m"), 400),
        (cas.Mismatch("m"), 400),
        (cas.NoSpace("m"), 507),
        (cas.Damaged("m"), 500),
        (cas.Closed("m"), 503),
        (cas.NotAStore("m"), 500),
        (BodyTooLarge(5), 413),
    ],
)
def test_statuses(error: Exception, status: int) -> None:
    """A full disk is 507 here; later protocols have words of their own."""
    refusal = describe(error)
    assert (refusal.status, refusal.message) == (status, str(error))


@pytest.mark.parametrize("error", [cas.Busy("m"), cas.ReadOnly("m"), cas.DiskFailed("m")])
def test_what_may_pass_says_when_to_come_back(error: cas.CasError) -> None:
    """503 with Retry-After."""
    refusal = describe(error)
    assert (refusal.status, refusal.headers["Retry-After"]) == (503, str(RETRY_AFTER_S))


def test_an_error_without_words_names_itself() -> None:
    """Never an empty message."""
    assert describe(cas.Busy()).message == "Busy"


def test_the_unexpected_is_logged_and_tells_the_client_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A traceback belongs into the log."""
    with caplog.at_level(logging.ERROR):
        assert describe(ZeroDivisionError("secret")) == UNEXPECTED
    assert "secret" in caplog.text
    assert "secret" not in UNEXPECTED.message


def test_ours_are_logged_theirs_are_not(caplog: pytest.LogCaptureFixture) -> None:
    """An operator hears of damage and full disks, and not of every mistyped name."""
    with caplog.at_level(logging.INFO):
        describe(cas.Missing("theirs"))
        describe(ApiError(404, "theirs"))
        assert caplog.text == ""
        describe(cas.Damaged("blob sha256:00 is damaged"))
    assert "blob sha256:00 is damaged" in caplog.text


def serve(app: ASGIApp) -> list[Message]:
    """Run one request through the wrapper and return what was sent."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    wrapped = Errors(app, lambda refusal: Response(refusal.message, refusal.status))
    asyncio.run(wrapped({"type": "http", "method": "GET"}, receive, send))
    return sent


def test_an_error_after_the_first_byte_ends_the_connection() -> None:
    """A second answer inside the first would be read as its body."""

    async def late(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise cas.Damaged("too late to say so")

    with pytest.raises(cas.Damaged):
        serve(late)


def test_an_error_before_the_first_byte_is_the_answer() -> None:
    """In the shape that the protocol wants."""

    async def early(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise cas.Busy("come back")

    [start, body] = serve(early)
    assert (start["status"], body["body"]) == (503, b"come back")


def test_a_client_that_left_gets_no_answer() -> None:
    """There is nobody to read it."""

    async def left(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise ClientGone("left")

    assert serve(left) == []
