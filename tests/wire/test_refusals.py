"""What the listener refuses by itself, before any route: a status, one sentence, and a clean end."""

from __future__ import annotations

import json

import pytest
from starlette.types import Receive, Scope, Send

from tests.wire.harness import ask, body_of, count, read_all, serving

CLOSE = "\nHost: a\nConnection: close"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("GET / HTTP/1.1\nHost: a\nX: " + "y" * 70_000, 431),
        ("GET /" + "y" * 70_000 + " HTTP/1.1\nHost: a", 431),
        ("GET / HTTP/1.1\nHost: a" + "\nX: y" * 20_000, 431),
        ("G" * 70_000 + " / HTTP/1.1\nHost: a", 431),
        ("GET / HTTP/1.1\nHost: a\nX: " + "y" * 2_000_000, 431),
        ("PUT / HTTP/1.1\nHost: a\nContent-Length: 5\nX: " + "y" * 70_000, 431),
        ("GET / HTTP/1.1\nHost: a\nX: " + "y" * 60_000, 200),
        ("GET /", 400),
        ("\nGET / HTTP/1.1\nHost: a", 200),
        ("\n\nGET / HTTP/1.1\nHost: a", 400),
        (" \nGET / HTTP/1.1\nHost: a", 400),
        ("GET / HTTP/1.1", 400),
        ("GET / HTTP/1.1\nHost: a\nHost: b", 400),
        ("GET / HTTP/1.1\nHost: a\nbad header", 400),
        ("GET / HTTP/1.1\nHost: a\nX: \0", 400),
        ("PUT / HTTP/1.1\nHost: a\nContent-Length: 5\nContent-Length: 6", 400),
        ("PUT / HTTP/1.1\nHost: a\nContent-Length: -5", 400),
        ("PUT / HTTP/1.1\nHost: a\nContent-Length: 5\nTransfer-Encoding: chunked\n\n0", 400),
        ("PUT / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\nnonsense", 400),
        ("PUT / HTTP/1.1\nHost: a\nTransfer-Encoding: gzip", 501),
        ("\x16\x03\x01 a TLS hello", 400),
    ],
)
def test_what_is_no_proper_request_gets_its_status_and_a_clean_end(head: str, status: int) -> None:
    """The answer arrives before the end, and without a reset."""
    with serving(count) as running:
        got = ask(running, head + ("\nConnection: close" if status == 200 else ""))
        assert got.startswith(b"HTTP/1.1 %d " % status), got[:100]
        assert status == 200 or says_why(got)


def test_an_empty_line_ends_with_both_signs() -> None:
    """Of a line that ends otherwise, a proxy before us may think otherwise."""
    with serving(count) as running:
        for line in (b"\n", b"\r", b"\r\r\n"):
            sock = running.connect()
            sock.sendall(line + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            got = read_all(sock)
            assert got.startswith(b"HTTP/1.1 400 "), (line, got[:100])


def says_why(got: bytes) -> bool:
    """Check that an answer, the last of its connection, is one sentence in the shape of all our errors."""
    head, _, body = got.partition(b"\r\n\r\n")
    fields = head.lower().split(b"\r\n")[1:]
    assert sorted(field for field in fields if not field.startswith(b"date:")) == [
        b"connection: close",
        b"content-length: %d" % len(body),
        b"content-type: application/json",
    ]
    (sentence,) = [value for key, value in json.loads(body).items() if key == "error"]
    assert sentence.endswith(".")
    return True


def test_each_refusal_has_its_own_sentence() -> None:
    """Whoever reads it learns what to change."""
    heads = {
        "GET /": b"no proper HTTP/1.1 request",
        "PUT / HTTP/1.1\nHost: a\nContent-Length: 5\nTransfer-Encoding: chunked": b"never both",
        "GET / HTTP/1.1\nHost: a\nX: " + "y" * 70_000: b"too large",
        "PUT / HTTP/1.1\nHost: a\nTransfer-Encoding: gzip": b"chunked",
    }
    with serving(count) as running:
        for head, words in heads.items():
            assert words in body_of(ask(running, head))


def test_a_refused_head_request_gets_no_body() -> None:
    """HEAD has none; but a request after it that cannot even be read does."""
    with serving(count) as running:
        got = ask(running, "HEAD / HTTP/1.1\nHost: a\nContent-Length: 5\nTransfer-Encoding: chunked")
        assert got.startswith(b"HTTP/1.1 400 ")
        assert body_of(got) == b""
        got = ask(running, "HEAD / HTTP/1.1\nHost: a\n\nnonsense")
        assert got.startswith(b"HTTP/1.1 200 ")
        assert says_why(body_of(got))


def test_a_method_is_taken_as_it_is_written(caplog: pytest.LogCaptureFixture) -> None:
    """Methods are case-sensitive: whoever sends `head` reads a body, and gets it."""
    with serving(count) as running:
        assert body_of(ask(running, f"head / HTTP/1.1{CLOSE}")) == b"0 0"
        assert body_of(ask(running, f"HEAD / HTTP/1.1{CLOSE}")) == b""
    assert not caplog.records


def test_an_application_that_fails_before_its_answer_gives_a_500(caplog: pytest.LogCaptureFixture) -> None:
    """And the worker goes on."""

    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            raise ValueError(scope["path"])

    with serving(fail) as running:
        for _ in range(2):
            got = ask(running, f"GET / HTTP/1.1{CLOSE}")
            assert got.startswith(b"HTTP/1.1 500")
            assert says_why(got)
        got = ask(running, f"HEAD / HTTP/1.1{CLOSE}")
        assert got.startswith(b"HTTP/1.1 500")
        assert body_of(got) == b""
    assert len(caplog.records) == 3
