"""Several workers on one socket: connections come to them evenly, and wait for nobody who does not take them."""

from __future__ import annotations

import asyncio
import http.client
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from starlette.types import Receive, Scope, Send

import api.server
from api.config import HttpSettings
from api.evenly import Balance, Burden, shared_memory
from api.server import Listener
from tests.wire.blobs import trusting
from tests.wire.harness import PATIENCE_S, Running, ask, body_of, serving


class Tap:
    """Begins answers, counts them, and ends those whose path says so; the others when the client has enough."""

    def __init__(self) -> None:
        self.begun = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        self.begun += 1
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"8")]})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        if scope["path"] == "/short":
            await send({"type": "http.response.body", "body": b"end"})
        else:
            while (await receive())["type"] != "http.disconnect":
                pass


@pytest.fixture
def balance() -> Iterator[Balance]:
    fd = shared_memory(2)
    yield Balance(fd)
    os.close(fd)


def _begun(running: Running) -> socket.socket:
    return _begin(running.connect())


def _begin(client: socket.socket) -> socket.socket:
    """Have an answer begun."""
    client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    said = b""
    while not said.endswith(b"first"):
        said += client.recv(1000)
    return client


def test_transfers_at_once_are_shared_evenly(monkeypatch: pytest.MonkeyPatch, balance: Balance) -> None:
    """Of four each worker gets two, whichever was woken first."""
    monkeypatch.setattr(api.server, "_COURTESY_S", PATIENCE_S)  # no test is so slow that it comes before we say so
    taps, woken, wake = (Tap(), Tap()), set[Listener](), Listener._wake  # noqa: SLF001

    def noting(listener: Listener) -> None:
        woken.add(listener)
        wake(listener)

    async def look_again(listener: Listener) -> None:
        listener._watch()  # noqa: SLF001

    monkeypatch.setattr(Listener, "_wake", noting)
    listening = socket.create_server(("127.0.0.1", 0))
    with ExitStack() as stack:
        for place, tap in enumerate(taps):
            running = stack.enter_context(serving(tap, sock=listening.dup(), burden=balance.join(place)))
        for _ in range(4):
            stack.enter_context(_begun(running))
            for listener in list(woken):  # who left this one to the other is free to take the next
                look = look_again(listener)
                asyncio.run_coroutine_threadsafe(look, listener._loop).result(PATIENCE_S)  # noqa: SLF001
        assert [tap.begun for tap in taps] == [2, 2]
        listening.close()


def test_a_newcomer_is_left_to_whoever_is_busy_with_less(monkeypatch: pytest.MonkeyPatch, balance: Balance) -> None:
    """Also if that one is in the middle of a step, and the other has nothing to do but wait."""
    monkeypatch.setattr(api.server, "_COURTESY_S", PATIENCE_S)
    left, go_on, is_light = threading.Event(), threading.Event(), Burden.is_light

    def look(burden: Burden) -> bool:
        light = is_light(burden)
        if not light:
            left.set()
        return light

    monkeypatch.setattr(Burden, "is_light", look)
    busy, free = Tap(), Tap()
    listening = socket.create_server(("127.0.0.1", 0))
    with (
        serving(busy, sock=listening, burden=balance.join(0)) as running,
        _begun(running),
        serving(free, sock=listening.dup(), burden=balance.join(1)) as other,
    ):
        other.loop.call_soon_threadsafe(go_on.wait, PATIENCE_S)
        newcomer = running.connect()
        assert left.wait(PATIENCE_S)
        go_on.set()
        with _begin(newcomer):
            assert (busy.begun, free.begun) == (1, 1)


def test_a_newcomer_whom_no_other_worker_takes_is_taken_all_the_same(balance: Balance) -> None:
    """Somebody who has less to do may hang, or be at its limit: then it is this worker's after a moment."""
    idle, own = balance.join(0), balance.join(1)
    with serving(Tap(), burden=own) as running, _begun(running):
        assert not own.is_light()
        assert idle.is_light()
        for _ in range(3):
            assert body_of(ask(running, "GET /short HTTP/1.1\nHost: a\nConnection: close")) == b"firstend"


def test_whoever_waited_for_others_takes_no_more_than_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have waited more than once at a time: each end of a connection has it look at the socket again."""
    listeners, accept = list[Listener](), Listener._accept  # noqa: SLF001

    def noting(listener: Listener) -> None:
        listeners.append(listener)
        accept(listener)

    monkeypatch.setattr(Listener, "_accept", noting)
    with serving(Tap(), HttpSettings(max_connections=1)) as running, ExitStack() as stack:
        first = stack.enter_context(_begun(running))
        newcomer = stack.enter_context(running.connect())

        async def look() -> int:
            listeners[0]._accept_late()  # noqa: SLF001 - as a timer does that was set while there was room
            return len(listeners[0]._tasks)  # noqa: SLF001

        assert asyncio.run_coroutine_threadsafe(look(), running.loop).result(PATIENCE_S) == 1
        first.close()
        _begin(newcomer)


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_connection_counts_while_it_is_at_work(
    monkeypatch: pytest.MonkeyPatch, tls: ssl.SSLContext, encrypted: bool
) -> None:
    """From its beginning to the end of its answer, and again from the next request on; not while it waits for one."""
    numbers: list[int] = []
    monkeypatch.setattr(Burden, "add", lambda _, number: numbers.append(number))
    with serving(Tap(), tls=tls if encrypted else None) as running:
        host, port = running.address
        client = (
            http.client.HTTPSConnection(host, port, timeout=PATIENCE_S, context=trusting())
            if encrypted
            else http.client.HTTPConnection(host, port, timeout=PATIENCE_S)
        )
        for _ in range(3):
            client.request("GET", "/short")
            assert client.getresponse().read() == b"firstend"
        client.close()
    assert numbers == [1, -1] * 3


def test_a_connection_that_is_gone_counts_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether its client only knocked, or left in the middle of an answer."""
    numbers: list[int] = []
    monkeypatch.setattr(Burden, "add", lambda _, number: numbers.append(number))
    with serving(Tap()) as running:
        running.connect().close()
        _begun(running).close()
    assert sorted(numbers) == [-1, -1, 1, 1]


def test_a_worker_that_stops_is_waited_for_by_nobody(balance: Balance) -> None:
    """From the moment on in which it takes no more."""
    other, own = balance.join(0), balance.join(1)
    other.share()
    assert not other.is_light()
    with serving(Tap(), burden=own) as running:
        running.stop()
    assert other.is_light()
