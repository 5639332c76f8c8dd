"""The listener of one worker: how it begins, and how it ends without cutting what it need not cut."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import AsyncIterator

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from api.config import HttpSettings
from api.connection import Connection
from tests.wire.blobs import trusting
from tests.wire.harness import PATIENCE_S, ask, body_of, open_descriptors, read_all, serving


class Gate:
    """Answers in two parts; between them it waits to be let through."""

    def __init__(self) -> None:
        self.waiting, self.open = threading.Event(), threading.Event()
        self.cut = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"8")]})
        if scope["path"] == "/gate":
            await send({"type": "http.response.body", "body": b"first", "more_body": True})
            try:
                await self._wait()
            except asyncio.CancelledError:
                self.cut = True
                raise
        else:
            await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await send({"type": "http.response.body", "body": b"end", "more_body": False})

    async def _wait(self) -> None:
        loop, passed = asyncio.get_running_loop(), asyncio.Event()

        def work() -> None:
            self.open.wait(PATIENCE_S)
            with contextlib.suppress(RuntimeError):  # the loop ended first
                loop.call_soon_threadsafe(passed.set)

        threading.Thread(target=work).start()
        self.waiting.set()
        await passed.wait()


def test_an_idle_connection_does_not_delay_the_end() -> None:
    """Connections between requests, and those that never asked, are closed at once."""
    with serving(Gate(), HttpSettings(grace_s=PATIENCE_S)) as running:
        silent, idle = running.connect(), running.connect()
        idle.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        while not idle.recv(1000).endswith(b"end"):
            pass
        running.begin_stop()
        assert read_all(idle) == b""
        assert read_all(silent) == b""


def test_a_transfer_under_way_is_finished_and_nothing_new_begun() -> None:
    """The client gets all of it, and then the end."""
    gate = Gate()
    settings = HttpSettings(grace_s=PATIENCE_S)
    with serving(gate, settings) as running, running.connect() as idle, running.connect() as busy:
        busy.sendall(b"GET /gate HTTP/1.1\r\nHost: a\r\n\r\n")
        assert gate.waiting.wait(PATIENCE_S)
        running.begin_stop()
        assert idle.recv(1) == b""  # so it has begun to stop
        with pytest.raises(ConnectionRefusedError):
            running.connect()
        gate.open.set()
        assert body_of(read_all(busy)) == b"firstend"


def test_a_transfer_past_the_grace_is_cut() -> None:
    """The application sees a cancellation, the client an incomplete answer."""
    gate = Gate()
    before = open_descriptors()
    with serving(gate, HttpSettings(grace_s=0.1)) as running:
        client = http.client.HTTPConnection(*running.address, timeout=PATIENCE_S)
        client.request("GET", "/gate")
        response = client.getresponse()
        assert gate.waiting.wait(PATIENCE_S)
        running.begin_stop()
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            response.read()
        client.close()
    gate.open.set()
    assert gate.cut
    assert open_descriptors() <= before


def test_a_short_answer_does_not_wait_for_an_acknowledgement(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its head and body are several writes, of which the kernel must not hold the later ones back."""
    options: list[int] = []
    run = Connection.run

    async def observed(self: Connection) -> None:
        accepted = self.writer.get_extra_info("socket")
        options.append(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        await run(self)

    monkeypatch.setattr(Connection, "run", observed)
    with serving(Gate()) as running:
        ask(running, "GET / HTTP/1.1\nHost: a\nConnection: close")
    assert options
    assert all(options)


def test_a_connection_that_is_gone_can_still_be_cut(monkeypatch: pytest.MonkeyPatch, tls: ssl.SSLContext) -> None:
    """The end of the grace may come in the very moment in which a TLS connection ended by itself."""
    cut: list[bool] = []
    run = Connection.run

    async def cut_too_late(self: Connection) -> None:
        await run(self)
        self.writer.close()  # once more: the transport lets go of all it had
        self.abort()
        cut.append(self.lost)

    monkeypatch.setattr(Connection, "run", cut_too_late)
    with serving(Gate(), tls=tls) as running:
        client = http.client.HTTPSConnection(*running.address, timeout=PATIENCE_S, context=trusting())
        client.request("GET", "/", headers={"Connection": "close"})
        assert client.getresponse().read() == b"firstend"
        client.close()
    assert cut == [True]


def test_connections_past_the_limit_wait_their_turn() -> None:
    """They are not refused, and come in when there is room."""
    gate = Gate()
    with serving(gate, HttpSettings(max_connections=1)) as running:
        first = running.connect()
        first.sendall(b"GET /gate HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert gate.waiting.wait(PATIENCE_S)
        second = running.connect()
        second.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        second.settimeout(0.05)
        with pytest.raises(TimeoutError):
            second.recv(1)
        second.settimeout(PATIENCE_S)
        gate.open.set()
        assert body_of(read_all(first)) == b"firstend"
        assert body_of(read_all(second)) == b"firstend"


def test_an_application_is_started_and_ended_with_its_worker() -> None:
    """Its lifespan surrounds every request."""
    happened: list[str] = []

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        happened.append("begin")
        yield
        happened.append("end")

    async def hello(_: Request) -> Response:
        happened.append("request")
        return PlainTextResponse("hello")

    with serving(Starlette(routes=[Route("/", hello)], lifespan=lifespan)) as running:
        assert body_of(ask(running, "GET / HTTP/1.1\nHost: a\nConnection: close")) == b"hello"
    assert happened == ["begin", "request", "end"]


def test_an_application_that_cannot_start_ends_its_worker() -> None:
    """With the reason, and before anything is accepted."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        if app.routes == []:
            raise ValueError("no such store")
        yield

    with pytest.raises(Exception, match="no such store"), serving(Starlette(lifespan=lifespan)):
        pass


def test_a_socket_that_others_share_is_not_taken_from_them() -> None:
    """One worker's end leaves the listening to the rest."""
    listening = socket.create_server(("127.0.0.1", 0))
    other = listening.dup()
    with serving(Gate(), sock=listening) as running:
        with serving(Gate(), sock=other) as gone:
            gone.stop()
        assert body_of(ask(running, "GET / HTTP/1.1\nHost: a\nConnection: close")) == b"firstend"
