"""The access log over sockets: every request has its line, which says what became of it, and nobody can forge one."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from api import http1 as http1_protocol
from api import http2 as http2_protocol
from api.access_log import AccessLog, note_user
from api.config import HttpSettings
from api.threads import Threads
from api.zerocopy import sent
from cas import Store
from tests.support.access_lines import Line, lines
from tests.support.engine import noise
from tests.wire.blobs import MIB, application, damaged, keep, mixed, trusting
from tests.wire.harness import PATIENCE_S, Clock, Running, Waiting, ask, body_of, count, push_and_be_torn_away, serving
from tests.wire.http2peer import Peer, ask_with_a_reset

CLOSE = "\nHost: a\nConnection: close"


@contextmanager
def logged(
    app: ASGIApp, file: Path, settings: HttpSettings | None = None, tls: ssl.SSLContext | None = None
) -> Iterator[Running]:
    """Serve an application with a log."""
    http = settings or HttpSettings()
    with closing(AccessLog(str(file), http, Clock())) as access, serving(app, http, tls, access=access) as running:
        yield running


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "access.log"


async def greet(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        note_user(scope, "alice")
        await PlainTextResponse("hello")(scope, receive, send)


def only(log: Path) -> Line:
    """Give the one line that there is."""
    (line,) = lines(log)
    return line


@pytest.mark.parametrize("secure", [False, True])
def test_a_line_says_who_asked_what_and_what_became_of_it(log: Path, tls: ssl.SSLContext, secure: bool) -> None:
    """Every field in its place, over plain HTTP/1.1 and over TLS."""
    with logged(greet, log, tls=tls if secure else None) as running:
        head = f"GET /v2/a?n=5 HTTP/1.1{CLOSE}\nReferer: http://b/\nUser-Agent: docker/27.1 (linux)\nCookie: secret"
        sock = running.connect()
        if secure:
            sock = trusting().wrap_socket(sock)
        with sock:
            sock.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n")
            assert b"".join(iter(lambda: sock.recv(65_536), b"")).endswith(b"hello")
    line = only(log)
    assert (line.host, *line.short) == ("127.0.0.1", "alice", "GET /v2/a?n=5", 200)
    assert (line.request, line.bytes) == ("GET /v2/a?n=5 HTTP/1.1", 5)
    assert (line.referer, line.agent) == ("http://b/", "docker/27.1 (linux)")
    assert 0 <= line.seconds < 60
    assert "secret" not in log.read_text()


@pytest.fixture
def half_past(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Go to a zone that is 5:30 hours east."""
    with monkeypatch.context() as changed:
        changed.setenv("TZ", "IST-5:30")
        time.tzset()
        yield
    time.tzset()


def test_a_time_is_that_of_the_servers_clock_with_its_zone(log: Path, half_past: None) -> None:
    """Local time, as other servers write it."""
    with logged(greet, log) as running:
        ask(running, f"GET / HTTP/1.1{CLOSE}")
    assert only(log).time == "23/Nov/2026:18:11:39 +0530"


def test_http2_requests_have_their_lines_too(log: Path) -> None:
    """Several on one connection, with a body and without."""
    with logged(greet, log) as running:
        peer = Peer(running)
        for method in ("GET", "HEAD"):
            stream = peer.request(method, "/x", ends=True, **{"user-agent": "h2"})
            peer.flush()
            peer.answer(stream)
        peer.sock.close()
    assert [(line.request, line.status, line.bytes, line.agent) for line in lines(log)] == [
        ("GET /x HTTP/2.0", 200, 5, "h2"),
        ("HEAD /x HTTP/2.0", 200, 0, "h2"),
    ]


def test_head_got_no_byte_of_a_body(log: Path) -> None:
    """Whatever its Content-Length says."""
    with logged(greet, log) as running:
        assert b"content-length: 5" in ask(running, f"HEAD / HTTP/1.1{CLOSE}")
    assert only(log).bytes == 0


def test_ranges_by_sendfile_and_through_python_are_counted_to_the_byte(
    log: Path, store: Store, threads: Threads
) -> None:
    """A blob of pieces in files and of decoded ones."""
    data = mixed(5 * MIB)
    digest, moved = keep(store, data), sent.sendfile_bytes
    with logged(application(store, threads), log) as running:
        for start, stop in ((0, len(data)), (70_001, 3 * MIB), (5, 6)):
            assert body_of(ask(running, f"GET /{digest}/{start}/{stop} HTTP/1.1{CLOSE}")) == data[start:stop]
    assert sent.sendfile_bytes > moved
    assert [(line.status, line.bytes) for line in lines(log)] == [(206, len(data)), (206, 3 * MIB - 70_001), (206, 1)]


@pytest.mark.parametrize("http2", [False, True])
def test_who_leaves_in_the_middle_has_got_what_went_out(log: Path, store: Store, threads: Threads, http2: bool) -> None:
    """More than nothing, less than all, in one line; the status is the one it began with."""
    data = noise(32 * MIB, 1)
    digest, moved = keep(store, data), sent.sendfile_bytes
    with logged(application(store, threads), log) as running:
        path = f"/{digest}/0/{len(data)}"
        if http2:
            peer = Peer(running)
            peer.request("GET", path, ends=True)
            peer.flush()
            sock = peer.sock
        else:
            sock = running.connect()
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        taken = len(sock.recv(65_536)) - 1000  # of which heads and frames take less
        while taken < 10_000:
            taken += len(sock.recv(65_536)) - 1000
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset, at once
        sock.close()
    line = only(log)
    assert line.status == 206
    assert taken <= line.bytes < len(data)
    assert http2 or line.bytes == sent.sendfile_bytes - moved


def test_a_damaged_blob_is_told_by_the_bytes_it_got(log: Path, threads: Threads) -> None:
    """100 bytes were good, of 1000 that were promised."""
    with logged(damaged(threads), log) as running:
        assert body_of(ask(running, f"GET / HTTP/1.1{CLOSE}")) == b"x" * 100
    assert (only(log).status, only(log).bytes) == (200, 100)


def test_who_left_before_there_was_an_answer_is_a_499(log: Path) -> None:
    """As it is in the logs of other servers."""
    waiting = Waiting()
    with logged(waiting, log) as running:
        sock = running.connect()
        sock.sendall(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
        assert waiting.came.wait(PATIENCE_S)
        sock.close()
        assert waiting.ended.wait(PATIENCE_S)
    assert (only(log).request, only(log).status, only(log).bytes) == ("GET /x HTTP/1.1", 499, 0)


def test_who_is_torn_away_in_the_middle_of_a_push_has_one_line(log: Path) -> None:
    """And none as of what was no request: fail2ban and people would take it for somebody else's."""
    waiting = Waiting()
    with logged(waiting, log) as running:
        push_and_be_torn_away(running, waiting, "/x")
    assert (only(log).request, only(log).status, only(log).bytes) == ("PUT /x HTTP/1.1", 499, 0)


def test_an_application_that_says_nothing_is_a_500(log: Path) -> None:
    """The server answered in its place."""

    async def silent(scope: Scope, receive: Receive, send: Send) -> None:
        pass

    with logged(silent, log) as running:
        got = ask(running, f"GET / HTTP/1.1{CLOSE}")
    assert (only(log).status, only(log).bytes) == (500, len(body_of(got)))


@pytest.mark.parametrize(
    ("head", "request_line", "status"),
    [
        ("PUT /x HTTP/1.1\nHost: a\nContent-Length: 5\nTransfer-Encoding: chunked\n\n0", "PUT /x HTTP/1.1", 400),
        ("GET /x HTTP/1.1\nHost: a\nX: " + "y" * 70_000, "GET /x HTTP/1.1", 431),
        ("GET /" + "y" * 2_000_000 + " HTTP/1.1\nHost: a", "-", 431),
        ("GET /x", "-", 400),
        ("\x16\x03\x01 a TLS hello", "-", 400),
        ("PUT /x HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\nnonsense", "PUT /x HTTP/1.1", 400),
    ],
)
def test_what_is_refused_before_a_route_has_one_line(log: Path, head: str, request_line: str, status: int) -> None:
    """With the request where there was one, also where an application was reading it already."""
    with logged(count, log) as running:
        got = ask(running, head)
        assert got.startswith(b"HTTP/1.1 %d " % status)
    line = only(log)
    assert (line.host, line.user, line.request, line.status) == ("127.0.0.1", "-", request_line, status)
    assert line.bytes == len(body_of(got))


def test_a_request_that_http2_resets_has_a_line(log: Path) -> None:
    """A method that is none."""
    with logged(count, log) as running:
        ask_with_a_reset(running)
    assert [(line.request, line.status) for line in lines(log)] == [("-", 400), ("HEAD / HTTP/2.0", 200)]


def test_plain_http_on_a_tls_port_has_a_line(log: Path, tls: ssl.SSLContext) -> None:
    """Nothing of it was understood but where it came from."""
    with logged(count, log, tls=tls) as running:
        got = ask(running, f"GET / HTTP/1.1{CLOSE}")
    assert (only(log).host, only(log).request, only(log).status) == ("127.0.0.1", "-", 400)
    assert only(log).bytes == len(body_of(got))


@pytest.mark.parametrize(
    ("agent", "shown"),
    [
        (b'x" 200 0 "-" "y', r"x\x22 200 0 \x22-\x22 \x22y"),
        (b"back\\slash \\x22", r"back\x5cslash \x5cx22"),
        (b"tab\tand \x1b[31mred\x7f", r"tab\x09and \x1b[31mred\x7f"),
        ("Ümlaut".encode(), r"\xc3\x9cmlaut"),
        (b"y" * 9000, "y" * 2048),
    ],
)
def test_a_client_writes_into_its_own_field_and_nowhere_else(log: Path, agent: bytes, shown: str) -> None:
    """Quotes, escapes, control characters, and more than a line should hold."""
    with logged(greet, log) as running, running.connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nUser-Agent: " + agent + b"\r\n\r\n")
        assert b"".join(iter(lambda: sock.recv(65_536), b"")).endswith(b"hello")
    assert only(log).agent == shown
    assert only(log).short == ("alice", "GET /", 200)


def test_no_field_can_hold_the_end_of_a_line(log: Path) -> None:
    """Whatever a server let through: method, path, query, headers, address and name."""
    evil = b'a\n1.2.3.4 - root [x] "GET / HTTP/1.1" 200 0 "-" "-" 0.000\r\n'
    with closing(AccessLog(str(log), HttpSettings(), Clock())) as access:
        scope = {
            "client": (evil.decode(), 1),
            "method": evil.decode(),
            "raw_path": evil,
            "query_string": b"q=" + evil,
            "http_version": "2",
            "headers": [(b"referer", evil), (b"user-agent", evil)],
            "state": {"user": evil.decode()},
        }
        access.tell(scope, 200, 0, 0.0)
    assert log.read_text().count("\n") == 1
    assert only(log).request.count(" ") == 2
    assert only(log).agent.startswith(r"a\x0a1.2.3.4 - root [x] \x22GET")


def test_of_a_query_only_what_is_harmless_is_shown(log: Path) -> None:
    """Account and scope are; a token, a password, or what nobody knows, is not. Nor is a login before a host."""
    with logged(greet, log) as running:
        query = "account=bob&scope=repository:a/b:pull&password=hunter2&access_token=s3cret&hunter2&%73cope=s3cret"
        ask(running, f"GET /v2/token?{query} HTTP/1.1{CLOSE}\nAuthorization: Basic s3cret")
        ask(running, f"GET http://bob:hunter2@a/v2/ HTTP/1.1{CLOSE}")
    first, second = lines(log)
    shown = "account=bob&scope=repository:a/b:pull&password=***&access_token=***&***&%73cope=***"
    assert first.request == f"GET /v2/token?{shown} HTTP/1.1"
    assert second.request == "GET http://a/v2/ HTTP/1.1"


@pytest.mark.parametrize(("trusts", "shown"), [(True, "203.0.113.9"), (False, "127.0.0.1")])
def test_the_address_is_the_clients_behind_a_proxy_that_is_trusted(log: Path, trusts: bool, shown: str) -> None:
    """The one that wrong passwords are counted by; without trust the proxy's."""
    with logged(greet, log, HttpSettings(trust_forwarded=trusts)) as running:
        ask(running, f"GET / HTTP/1.1{CLOSE}\nX-Forwarded-For: 1.1.1.1, 203.0.113.9")
    assert only(log).host == shown


def test_a_log_that_was_moved_is_begun_anew(log: Path) -> None:
    """What was told before is in the moved file, what comes after in the new one."""
    with logged(greet, log) as running:
        ask(running, f"GET /one HTTP/1.1{CLOSE}")
        moved = log.rename(log.with_suffix(".1"))
        ask(running, f"GET /two HTTP/1.1{CLOSE}")
    assert (only(moved).request, only(log).request) == ("GET /one HTTP/1.1", "GET /two HTTP/1.1")
    assert not (moved.stat().st_mode | log.stat().st_mode) & 0o007, "names of private repositories are in it"


def test_a_log_that_cannot_be_written_is_told_once_and_keeps_nobody_from_an_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Once it can be written again, it is."""
    (tmp_path / "logs").mkdir()
    log = tmp_path / "logs" / "access.log"
    with logged(greet, log) as running:
        moved = (tmp_path / "logs").rename(tmp_path / "gone")
        for _ in range(3):
            assert body_of(ask(running, f"GET /lost HTTP/1.1{CLOSE}")) == b"hello"
        moved.rename(tmp_path / "logs")
        ask(running, f"GET /again HTTP/1.1{CLOSE}")
    assert [line.request for line in lines(log)] == ["GET /again HTTP/1.1"]
    told = [record.getMessage() for record in caplog.records if record.name == "api.access_log"]
    assert len(told) == 1
    assert told[0].startswith("The access log cannot be written, and lines are lost: ")


def test_a_full_disk_keeps_nobody_from_an_answer_nor_a_server_from_its_end(caplog: pytest.LogCaptureFixture) -> None:
    """What could not be written is let go of, also at the very last."""
    with logged(greet, Path("/dev/full")) as running:
        for _ in range(3):
            assert body_of(ask(running, f"GET /lost HTTP/1.1{CLOSE}")) == b"hello"
    told = [record.getMessage() for record in caplog.records if record.name == "api.access_log"]
    assert len(told) == 1
    assert "No space left on device" in told[0]


@pytest.mark.parametrize("http2", [False, True])
def test_without_a_log_nothing_stands_between(http2: bool) -> None:
    """An answer goes to the protocol by the same way as ever: nothing counts, nothing waits."""
    seen: list[object] = []

    async def look(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            seen.append(send.__self__)  # type: ignore[attr-defined]
            await greet(scope, receive, send)

    with serving(look) as running:
        if http2:
            peer = Peer(running)
            stream = peer.request(ends=True)
            peer.flush()
            peer.answer(stream)
            peer.sock.close()
        else:
            ask(running, f"GET / HTTP/1.1{CLOSE}")
    (stream_of_it,) = seen
    assert type(stream_of_it) is (http2_protocol.Stream if http2 else http1_protocol.Stream)
    assert stream_of_it.send.__name__ == "stream_send"
