"""One connection: whole answers for every client, bounded memory and time for every peer."""

from __future__ import annotations

import http.client
import socket
import struct
import threading

import pytest
from starlette.types import Receive, Scope, Send

from api.config import HttpSettings
from api.intake import received
from tests.wire.harness import PATIENCE_S, answer, ask, body_of, count, open_descriptors, read_all, serving
from tests.wire.hourglass import Hourglass

MIB = 1 << 20
CLOSE = "\nHost: a\nConnection: close"


async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer without a look at the body."""
    if scope["type"] == "http":
        await answer(send, b"no thanks" * 1000, 413)


class Telling:
    """Reads a body and tells how it ended."""

    def __init__(self) -> None:
        self.begun, self.over = threading.Event(), threading.Event()
        self.saw: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        self.begun.set()
        more = True
        while more:
            message = await receive()
            more = message.get("more_body", False)
        again = await receive() if message["type"] == "http.disconnect" else message
        self.saw += [message["type"], again["type"]]
        self.over.set()


def chunked(body: bytes, size: int) -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


HEAD = b"PUT / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"


@pytest.mark.parametrize("size", [0, 1, 1000, 65_536, 3 * MIB + 17])
def test_a_body_arrives_whole_in_every_framing(size: int) -> None:
    """With a length, in small chunks, in large chunks, and in chunks with extensions that h11 must read."""
    body = bytes(range(256)) * (size // 256) + b"\xff" * (size % 256)
    expected = f"{size} {sum(body)}".encode()
    strange = b"%x;why=not\r\n%s\r\n" % (len(body), body) if body else b""
    with serving(count) as running:
        for rest in (
            b"Content-Length: %d\r\n\r\n" % size + body,
            b"Transfer-Encoding: chunked\r\n\r\n" + chunked(body, 32_768),
            b"Transfer-Encoding: chunked\r\n\r\n" + chunked(body, 10 * MIB),
            b"Transfer-Encoding: chunked\r\n\r\n" + strange + b"0\r\nTrailer: x\r\n\r\n",
        ):
            sock = running.connect()
            sock.sendall(HEAD + rest)
            assert body_of(read_all(sock)) == expected


def test_a_large_body_does_not_go_through_h11() -> None:
    """This is where the CPU of a push would go."""
    before = received.direct_bytes
    with serving(count) as running:
        client = http.client.HTTPConnection(*running.address, timeout=PATIENCE_S)
        for _ in range(2):
            client.request("PUT", "/", body=b"a" * MIB)
            assert client.getresponse().read() == f"{MIB} {97 * MIB}".encode()
        client.close()
    assert received.direct_bytes - before == 2 * MIB


def test_pipelined_requests_with_bodies_are_kept_apart() -> None:
    """Wherever one ends inside a segment, the next begins there."""
    one = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nAAAAA"
    two = b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"BBB", 2)
    last = HEAD + b"Content-Length: 2\r\n\r\nCC"
    with serving(count) as running:
        for size in (1, 7, 50, 1000):
            sock = running.connect()
            stream = one + two + last
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for at in range(0, len(stream), size):
                sock.sendall(stream[at : at + size])
            got = read_all(sock)
            assert [part.split(b"HTTP")[0] for part in got.split(b"\r\n\r\n")[1:]] == [b"5 325", b"3 198", b"2 134"]


def test_an_empty_line_before_a_request_says_nothing() -> None:
    """Some clients end a body with one. First of all, and after any framing, wherever segments end; RFC 9112, 2.2."""
    one = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nAAAAA"
    two = b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"BBB", 2)
    three = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    last = HEAD + b"Content-Length: 2\r\n\r\nCC"
    stream = b"".join(b"\r\n" + each for each in (one, two, three, three, last))
    with serving(count) as running:
        for size in (1, 2, 7, 50, 1000):
            sock = running.connect()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for at in range(0, len(stream), size):
                sock.sendall(stream[at : at + size])
            said = [part.split(b"HTTP")[0] for part in read_all(sock).split(b"\r\n\r\n")[1:]]
            assert said == [b"5 325", b"3 198", b"0 0", b"0 0", b"2 134"]


def test_a_client_that_sends_nothing_but_half_an_empty_line_is_let_go() -> None:
    """It gets no answer, for it asked nothing."""
    with serving(count) as running:
        sock = running.connect()
        sock.sendall(b"\r")
        sock.shutdown(socket.SHUT_WR)
        assert b" 200 " not in read_all(sock)


@pytest.mark.parametrize("size", [2 * MIB, 8 * MIB])
def test_an_answer_that_did_not_want_the_body_is_read_whole(size: int) -> None:
    """A client that first sends everything, and then reads, gets the answer and no reset."""
    with serving(refuse) as running:
        client = http.client.HTTPConnection(*running.address, timeout=PATIENCE_S)
        client.request("PUT", "/", body=b"a" * size)
        response = client.getresponse()
        assert (response.status, response.read()) == (413, b"no thanks" * 1000)
        assert response.headers["connection"] == "close"
        client.close()


def endless(sock: socket.socket) -> int:
    """Send until the peer has had enough."""
    sent = 0
    try:
        while sent < 500 * MIB:
            sent += sock.send(b"a" * MIB)
    except OSError:
        pass
    return sent


def test_an_unwanted_body_is_read_only_so_far() -> None:
    """linger_bytes bound what a client can make us throw away."""
    before = open_descriptors()
    with serving(refuse, HttpSettings(linger_bytes=MIB)) as running, running.connect() as sock:
        sock.sendall(HEAD + b"Content-Length: 1000000000\r\n\r\n")
        assert endless(sock) < 100 * MIB
    assert open_descriptors() <= before


def test_a_client_that_neither_sends_nor_leaves_is_closed_after_an_unwanted_body() -> None:
    """linger_s bound the time."""
    with serving(refuse, HttpSettings(linger_s=0.1)) as running:
        sock = running.connect()
        sock.sendall(HEAD + b"Content-Length: 1000000000\r\n\r\nabc")
        assert body_of(read_all(sock)) == b"no thanks" * 1000


def test_a_small_body_that_nobody_read_leaves_the_connection_open() -> None:
    """It is here already; there is nothing to wait for."""
    request = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 300\r\n\r\n" + b"a" * 300
    with serving(refuse) as running:
        sock = running.connect()
        sock.sendall(request + request + HEAD + b"\r\n")
        assert read_all(sock).count(b"HTTP/1.1 413") == 3


@pytest.mark.parametrize("framing", [b"Content-Length: 100", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize("sent", [b"", b"50\r\n", b"50\r\nabc", b"3\r\nabc\r", b"3\r\nabc\r\n", b"3\r\nabc\r\n0"])
@pytest.mark.parametrize("reset", [True, False])
def test_a_body_that_breaks_off_is_never_taken_for_whole(framing: bytes, sent: bytes, reset: bool) -> None:
    """The application hears of a disconnect, as often as it asks."""
    app = Telling()
    with serving(app) as running:
        with running.connect() as sock:
            sock.sendall(b"PUT / HTTP/1.1\r\nHost: a\r\n" + framing + b"\r\n\r\n" + sent)
            assert app.begun.wait(PATIENCE_S)
            if reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert app.over.wait(PATIENCE_S)
    assert app.saw == ["http.disconnect", "http.disconnect"]


def test_a_sender_that_stalls_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    """After stall_s without a byte; the application hears of a disconnect."""
    app = Telling()
    with serving(app, HttpSettings(stall_s=0.1)) as running, running.connect() as sock:
        sock.sendall(HEAD + b"Content-Length: 100\r\n\r\nabc")
        assert app.over.wait(PATIENCE_S)
    assert app.saw == ["http.disconnect", "http.disconnect"]
    assert not caplog.records


def test_an_application_that_thinks_is_no_stall(hourglass: Hourglass) -> None:
    """Only a peer that is waited for can stall: here the body waits for the application."""
    size, thinks, knows = 4 * MIB, threading.Event(), threading.Event()

    async def think(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            import asyncio  # noqa: PLC0415

            thinks.set()
            await asyncio.get_running_loop().run_in_executor(None, knows.wait, PATIENCE_S)
            await count(scope, receive, send)

    with serving(think, HttpSettings(stall_s=10.0)) as running:
        sock = running.connect()
        sock.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % size + b"a" * MIB)
        assert thinks.wait(PATIENCE_S)
        hourglass.let_pass(running, 50.0)
        knows.set()
        sock.sendall(b"a" * (size - MIB))
        assert body_of(read_all(sock)) == f"{size} {97 * size}".encode()


def test_continue_is_said_only_when_the_body_is_wanted() -> None:
    """A client that asks first is not made to send what will be refused."""
    request = HEAD + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    with serving(refuse) as running:
        sock = running.connect()
        sock.sendall(request)
        assert read_all(sock).startswith(b"HTTP/1.1 413")
    with serving(count) as running:
        sock = running.connect()
        sock.sendall(request)
        assert sock.recv(100).startswith(b"HTTP/1.1 100")
        sock.sendall(b"abc")
        assert body_of(read_all(sock)) == b"3 294"


def test_a_head_that_never_ends_is_refused_while_it_is_sent() -> None:
    """No more than max_header_bytes of it are kept, however long it goes on."""
    with serving(count, HttpSettings(linger_bytes=MIB)) as running, running.connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n")
        assert endless(sock) < 100 * MIB


def test_a_head_that_takes_too_long_is_not_waited_for() -> None:
    """keep_alive_s bound the time for a head, too."""
    with serving(count, HttpSettings(keep_alive_s=0.1)) as running:
        sock = running.connect()
        sock.sendall(b"GET / HTTP/1.1\r\nHo")
        assert read_all(sock) == b""


def test_an_idle_connection_is_closed(hourglass: Hourglass) -> None:
    """After keep_alive_s, and no sooner."""
    with serving(count, HttpSettings(keep_alive_s=10.0)) as running:
        sock = running.connect()
        for _ in range(3):
            sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert body_of(sock.recv(1000)) == b"0 0"
            hourglass.let_pass(running, 9.0)
        hourglass.run(running, 10.0)
        assert read_all(sock) == b""


def test_the_last_request_of_a_connection_is_told_so() -> None:
    """After keep_alive_requests, so that clients spread over workers again."""
    with serving(count, HttpSettings(keep_alive_requests=2)) as running:
        sock = running.connect()
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 3)
        first, second = read_all(sock).split(b"HTTP/1.1")[1:]
    assert b"connection: close" not in first
    assert b"connection: close" in second


def test_a_client_that_ends_its_side_still_gets_its_answer() -> None:
    """Whoever shuts down for writing after the request is not gone."""
    with serving(count) as running:
        sock = running.connect()
        sock.sendall(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
        sock.shutdown(socket.SHUT_WR)
        assert body_of(read_all(sock)) == b"3 294"


def test_a_client_that_leaves_is_forgotten_at_once() -> None:
    """And not after keep_alive_s: its place is free for the next one."""
    with serving(count, HttpSettings(max_connections=1)) as running:
        for _ in range(3):
            client = http.client.HTTPConnection(*running.address, timeout=PATIENCE_S)
            client.request("GET", "/")
            assert client.getresponse().read() == b"0 0"
            client.close()


def test_an_answer_left_unfinished_is_not_made_to_look_whole(caplog: pytest.LogCaptureFixture) -> None:
    """Chunked or not, the connection just ends; an error is logged once."""

    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"part", "more_body": True})
            raise ValueError(scope["path"])

    with serving(fail) as running:
        assert body_of(ask(running, f"GET / HTTP/1.1{CLOSE}")) == b"4\r\npart\r\n"
    assert [record.message for record in caplog.records] == ["An application failed"]


def test_a_request_to_become_a_websocket_is_answered_like_any_other() -> None:
    """There are none here."""
    with serving(count) as running:
        upgrade = "\nUpgrade: websocket\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="
        got = ask(running, f"GET / HTTP/1.1\nHost: a\nConnection: upgrade, close{upgrade}")
        assert got.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "fields",
    [
        "Connection: Upgrade, HTTP2-Settings, close\nUpgrade: h2c\nHTTP2-Settings: AAMAAABkAAQAAP__",
        "Connection: close\nUpgrade: h2c",
    ],
)
def test_a_request_to_go_on_in_http2_is_answered_like_any_other(fields: str) -> None:
    """A proxy that passes such a header on would see one request, and no other that follows it on the connection."""
    with serving(count) as running:
        got = ask(running, f"GET / HTTP/1.1\nHost: a\n{fields}")
        assert got.startswith(b"HTTP/1.1 200")
        assert body_of(got) == b"0 0"


def test_http2_begins_a_connection_or_not_at_all() -> None:
    """Between requests of HTTP/1.1 its preface is a request to a path that there is not, and then nonsense."""
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    with serving(count) as running:
        with running.connect() as sock:
            sock.sendall(preface)
            assert sock.recv(9)[3:4] == b"\x04"  # a frame of settings
        for before in (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\r\n"):
            sock = running.connect()
            sock.sendall(before + preface)
            assert b"HTTP/1.1 400" in read_all(sock)


def test_many_clients_that_vanish_anywhere_leave_nothing_behind(caplog: pytest.LogCaptureFixture) -> None:
    """Cut a push after each of its first bytes."""
    before = open_descriptors()
    request = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(b"abc" * 10, 7)
    with serving(count) as running:
        for end in range(len(request)):
            with running.connect() as sock:
                sock.sendall(request[:end])
                if end % 2:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert open_descriptors() <= before
    assert not caplog.records
