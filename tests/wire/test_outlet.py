"""Bodies that an application writes by itself: framed as any other, whole or visibly not, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import random
import select
import socket
import threading
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from api import outlet as outlet_module
from api import zerocopy
from api.config import HttpSettings
from api.outlet import EXTENSION, Outlet
from api.zerocopy import sent
from cas import FileRange
from tests.wire.harness import PATIENCE_S, ask, body_of, open_descriptors, serving

DATA = random.Random(11).randbytes(3_000_000)
HALF = len(DATA) // 2

Write = Callable[[Outlet], Awaitable[None]]


def writing(write: Write, *, announced: bool = True, told: Callable[[Exception], object] = bool) -> ASGIApp:
    """Answer with a piece of DATA by message and the rest written, said to be as long as it should be."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = [(b"content-length", b"%d" % len(DATA))] if announced else []
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if scope["path"] == "/later":
            await send({"type": "http.response.body", "body": DATA[:HALF], "more_body": True})
        count = len(DATA) - HALF if scope["path"] == "/later" else len(DATA)
        try:
            await send({"type": EXTENSION, "count": count, "write": write, "more_body": True})
        except Exception as error:
            told(error)
            raise
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return app


def threads_write(start: int, stop: int = len(DATA)) -> Write:
    """Write DATA[start:stop] in a thread, as far as the client takes it, and on the loop what it did not."""

    async def write(outlet: Outlet) -> None:
        loop = asyncio.get_running_loop()
        await outlet.finish(await loop.run_in_executor(None, outlet.write, [memoryview(DATA)[start:stop]]))

    return write


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize(("path", "start"), [("/", 0), ("/later", HALF)])
def test_a_body_that_is_written_is_framed_as_any_other(announced: bool, path: str, start: int) -> None:
    """With a length or chunked, whole or behind a piece by message, on a connection that stays open."""
    before = sent.body_bytes
    with serving(writing(threads_write(start), announced=announced)) as running:
        client = http.client.HTTPConnection(*running.address, timeout=PATIENCE_S)
        for _ in range(3):
            client.request("GET", path)
            assert client.getresponse().read() == DATA
        client.close()
    assert sent.body_bytes - before == 3 * len(DATA)


def test_what_is_written_wakes_its_reader_for_full_segments_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """And whatever ends it, nothing is held back then."""
    told, cork = list[bool](), zerocopy.cork

    def telling(out: socket.socket, *, is_in: bool) -> None:
        told.append(is_in)
        cork(out, is_in=is_in)

    monkeypatch.setattr(zerocopy, "cork", telling)
    with serving(writing(threads_write(0))) as running:
        assert body_of(ask(running, "GET / HTTP/1.1\nHost: a\nConnection: close")) == DATA
    with serving(writing(threads_write(0, 1000))) as running:
        assert body_of(ask(running, "GET / HTTP/1.1\nHost: a\nConnection: close")) == DATA[:1000]
    assert told == [True, False] * 2


def test_head_writes_nothing() -> None:
    """The application need not care."""
    with serving(writing(threads_write(0))) as running:
        answer = ask(running, "HEAD / HTTP/1.1\nHost: a\nConnection: close")
    assert f"content-length: {len(DATA)}".encode() in answer
    assert body_of(answer) == b""


def test_an_application_that_writes_less_than_it_said_ends_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    """The client sees that something is missing, and does not wait for it."""
    with serving(writing(threads_write(0, 1000))) as running:
        assert body_of(ask(running, "GET / HTTP/1.1\nHost: a\nConnection: close")) == DATA[:1000]
    assert [record.message for record in caplog.records] == [
        f"An answer was cut short: An application wrote 1000 bytes instead of {len(DATA)}."
    ]


def test_an_error_of_the_application_is_its_own(caplog: pytest.LogCaptureFixture) -> None:
    """It comes back to it, and the client gets what was written and no end."""
    errors: list[Exception] = []

    async def write(outlet: Outlet) -> None:
        await threads_write(0, 1000)(outlet)
        raise LookupError("no more of it")

    with serving(writing(write, told=errors.append)) as running:
        got = ask(running, "GET / HTTP/1.1\nHost: a\nConnection: close")
    assert body_of(got) == DATA[:1000]
    assert [str(error) for error in errors] == ["no more of it"]
    assert "cut short" not in caplog.text


@pytest.mark.parametrize("why", ["it leaves", "it takes nothing"])
def test_an_application_is_told_when_its_client_is_gone(why: str, caplog: pytest.LogCaptureFixture) -> None:
    """By an error of send(), after stall_s at the latest; nothing of it stays behind."""
    told = threading.Event()
    before = open_descriptors()

    async def write(outlet: Outlet) -> None:
        while True:
            await threads_write(0)(outlet)

    def telling(error: Exception) -> None:
        assert isinstance(error, OSError)
        told.set()

    with (
        serving(writing(write, told=telling), HttpSettings(stall_s=0.2)) as running,
        running.connect() as peer,
    ):
        peer.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert peer.recv(1000)
        if why == "it leaves":
            peer.close()
        assert told.wait(PATIENCE_S)
    assert open_descriptors() <= before
    assert not caplog.records


def test_a_body_is_written_only_where_a_body_is_due() -> None:
    """Not before the head: the connection could not frame it."""
    errors: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                await send({"type": EXTENSION, "count": 1, "write": threads_write(0, 1)})
            except RuntimeError as error:
                errors.append(str(error))

    with serving(app) as running:
        assert ask(running, "GET / HTTP/1.1\nHost: a\nConnection: close").startswith(b"HTTP/1.1 500 ")
    assert errors == [f"{EXTENSION} came outside of a response body."]


def test_threads_wait_for_a_client_a_few_milliseconds_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it makes a little room: of what it takes so slowly, the loop waits for the next."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    waits: list[float] = []

    class Room:
        """Makes some room each time it is waited for, and each time that takes 3 ms."""

        def poll(self, most_ms: float) -> list[tuple[int, int]]:
            waits.append(most_ms)
            theirs.recv(200_000)
            return [(ours.fileno(), select.POLLOUT)]

    async def send_file(_: FileRange) -> None: ...

    async def scenario() -> None:
        outlet, data = Outlet(ours, PATIENCE_S, send_file), memoryview(bytes(100 << 20))
        monkeypatch.setattr(outlet, "_poll", Room())
        ticks = itertools.count()
        monkeypatch.setattr(outlet_module, "time", SimpleNamespace(monotonic=lambda: 0.003 * next(ticks)))
        for _ in range(2):  # the second time it is known to be slow
            outlet.renew()
            assert sum(map(len, outlet.write([data]))) > len(data) // 2
            assert not outlet.is_quick
            assert [round(each) for each in waits] == [5, 2]
        theirs.recv(200_000)
        await outlet.finish([data[:1]])
        assert outlet.is_quick
        outlet.renew()
        assert outlet.write([data])
        assert [round(each) for each in waits] == [5, 2, 5, 2]

    with ours, theirs:
        asyncio.run(scenario())


def test_threads_wait_on_for_a_client_that_takes_much_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each 4 MiB it takes make up for 2 ms of waiting, not for 3."""
    ours, theirs = socket.socketpair()
    data = memoryview(bytes(64 << 20))

    class Wire:
        """Takes 4 MiB, and then nothing until it was waited for."""

        room = 0

        def sendmsg(self, pieces: list[memoryview]) -> int:
            if not self.room:
                raise BlockingIOError
            taken, self.room = min(self.room, sum(map(len, pieces))), 0
            return taken

        def poll(self, _: float) -> list[tuple[int, int]]:
            self.room = 4 << 20
            return [(ours.fileno(), select.POLLOUT)]

    async def send_file(_: FileRange) -> None: ...

    def left_of_it(wait_s: float) -> int:
        outlet, wire, ticks = Outlet(ours, PATIENCE_S, send_file), Wire(), itertools.count()
        monkeypatch.setattr(outlet, "_out", wire)
        monkeypatch.setattr(outlet, "_poll", wire)
        monkeypatch.setattr(outlet_module, "time", SimpleNamespace(monotonic=lambda: wait_s * next(ticks)))
        left = sum(map(len, outlet.write([data])))
        assert outlet.is_quick == (not left)
        return left

    with ours, theirs:
        assert left_of_it(0.002) == 0
        assert left_of_it(0.003) > len(data) // 2
