"""HTTP/2 peers that ask for much and take little: bounded memory and time for every one of them."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import suppress

import h2.events
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from api.config import HttpSettings
from tests.wire.harness import PATIENCE_S, serving
from tests.wire.hourglass import Hourglass
from tests.wire.http2peer import Peer

MIB = 1 << 20
A_WHILE_S, NEVER_S = 10.0, 1e9


class Endless:
    """Sends much, and tells when more of it was taken than one transfer may hold."""

    def __init__(self) -> None:
        self.took_much = threading.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for count in range(64):
            await send({"type": "http.response.body", "body": bytes(MIB // 4), "more_body": True})
            if count == 4:
                self.took_much.set()


async def consume(scope: Scope, receive: Receive, send: Send) -> None:
    """Read the whole body, then answer."""
    if scope["type"] != "http":
        return
    while (message := await receive())["type"] == "http.request":
        if not message["more_body"]:
            await PlainTextResponse("ok")(scope, receive, send)
            return


def is_closed_in_time(sock: socket.socket) -> bool:
    """Read until the server closes; a socket's timeout is the patience."""
    try:
        while sock.recv(65_536):
            pass
    except ConnectionResetError:
        pass
    except TimeoutError:
        return False
    finally:
        sock.close()
    return True


@pytest.mark.parametrize("window", [0, 1, 1000])
def test_a_peer_without_room_holds_little_and_is_dropped(window: int) -> None:
    """Its application waits instead of filling the memory, and is not kept waiting for ever."""
    app = Endless()
    with serving(app, HttpSettings(stall_s=0.5)) as running:
        peer = Peer(running, window)
        peer.request(ends=True)
        peer.flush()
        assert not app.took_much.wait(0.2)
        assert is_closed_in_time(peer.sock)


def test_an_http2_sender_that_stalls_is_dropped(hourglass: Hourglass) -> None:
    """As over HTTP/1.1: a body that was begun has to go on."""
    begun = threading.Event()

    async def begin(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        await consume(scope, receive, send)

    with serving(begin, HttpSettings(stall_s=A_WHILE_S, keep_alive_s=NEVER_S)) as running:
        peer = Peer(running)
        stream = peer.request(method="PUT")
        peer.speech.send_data(stream, b"a" * 100)
        peer.flush()
        assert begun.wait(PATIENCE_S)
        hourglass.run(running, A_WHILE_S)
        assert is_closed_in_time(peer.sock)


def test_an_http2_connection_that_never_asks_is_closed(hourglass: Hourglass) -> None:
    """Having switched protocols is no request."""
    with serving(consume, HttpSettings(stall_s=NEVER_S, keep_alive_s=A_WHILE_S)) as running:
        peer = Peer(running)
        peer.read_until(h2.events.RemoteSettingsChanged)
        hourglass.run(running, A_WHILE_S)
        assert is_closed_in_time(peer.sock)


def test_an_overlong_frame_is_refused_before_it_is_there() -> None:
    """Sixteen MiB a connection would wait in memory for the length to be looked at."""
    with serving(consume, HttpSettings()) as running:
        peer = Peer(running)
        peer.sock.sendall(b"\xff\xff\xff\x00\x00\x00\x00\x00\x01")
        peer.sock.sendall(bytes(100_000))
        assert is_closed_in_time(peer.sock)


def test_requests_reset_faster_than_they_end_close_the_connection_quietly(caplog: pytest.LogCaptureFixture) -> None:
    """A flood is bounded, and no news for the log."""
    over = threading.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await asyncio.to_thread(over.wait, PATIENCE_S)

    with serving(slow, HttpSettings(grace_s=PATIENCE_S)) as running:
        peer = Peer(running)
        with suppress(ConnectionError):  # closed in the middle of it, which is what we are after
            for _ in range(30):
                for _ in range(50):
                    peer.speech.reset_stream(peer.request())
                peer.flush()
        assert is_closed_in_time(peer.sock)
        over.set()
    assert not caplog.records


@pytest.mark.parametrize(
    ("method", "path"),
    [("\xff", "/"), ("G ET", "/"), ("", "/"), ("CONNECT", None), ("CONNECT", "/"), ("GET", ""), ("GET", "/\xff")],
)
def test_an_http2_request_that_makes_no_sense_is_refused_quietly(
    method: str, path: str | None, caplog: pytest.LogCaptureFixture, hourglass: Hourglass
) -> None:
    """Its stream or its connection is ended, and the log has nothing to say about it."""
    ends = (h2.events.StreamReset, h2.events.ConnectionTerminated, h2.events.ResponseReceived)
    with serving(consume, HttpSettings(keep_alive_s=A_WHILE_S)) as running:
        peer = Peer(running)
        peer.request(method, path)
        peer.flush()
        with suppress(ConnectionError):  # closed, before we could answer what it said
            while not isinstance(peer.read_until(h2.events.Event), ends):
                pass
        hourglass.run(running, A_WHILE_S)
        assert is_closed_in_time(peer.sock)
    assert not caplog.records


def test_a_connection_that_its_peer_ends_while_an_answer_waits_for_room_ends_quietly(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Room and a goodbye in one piece: what was not sent has nobody to go to, and is no news for the log."""

    async def greet(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await PlainTextResponse("hello")(scope, receive, send)

    with serving(greet, HttpSettings()) as running:
        peer = Peer(running, window=0)
        stream = peer.request("PUT")
        peer.flush()
        peer.read_until(h2.events.ResponseReceived, stream)
        peer.speech.increment_flow_control_window(1000, stream)
        peer.speech.close_connection()
        peer.flush()
        assert is_closed_in_time(peer.sock)
    assert not caplog.records
