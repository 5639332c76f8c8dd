"""What a worker counts: every request once, by the kind that it is of, with the bytes that went either way."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from starlette.types import ASGIApp

from api.config import HttpSettings
from api.counts import BOUNDS_S, METHODS, OTHER, PROTOCOLS, Counts, Sum, shared_memory
from api.intake import received
from api.threads import Threads
from cas import Store
from tests.support.engine import noise
from tests.wire.blobs import MIB, application, keep
from tests.wire.harness import (
    PATIENCE_S,
    Running,
    Waiting,
    ask,
    body_of,
    count,
    push_and_be_torn_away,
    read_all,
    serving,
)
from tests.wire.http2peer import Peer, ask_with_a_reset
from tests.wire.test_repeats import Application, question, said

CLOSE = "\nHost: a\nConnection: close"


@pytest.fixture
def memory() -> Iterator[int]:
    """Give memory of two workers."""
    fd = shared_memory(2)
    yield fd
    os.close(fd)


@pytest.fixture
def counts(memory: int) -> Counts:
    return Counts(memory, 0)


@contextmanager
def counted(
    app: ASGIApp, counts: Counts, settings: HttpSettings | None = None, tls: ssl.SSLContext | None = None
) -> Iterator[Running]:
    with serving(app, settings, tls, counts=counts) as running:
        yield running


def only(counts: Counts) -> Sum:
    """Give the one kind of which there were requests, none of which is under way."""
    (found,) = (each for each in counts.sums() if any(each.durations))
    assert not found.under_way
    return found


def given(counts: Counts) -> dict[tuple[str, str, int], int]:
    """Tell how many answers were given, by kind and status."""
    return {
        (each.protocol, each.method, status): number
        for each in counts.sums()
        for status, number in each.answers.items()
        if number
    }


@pytest.mark.parametrize(
    ("method", "target", "protocol", "shown"),
    [
        ("GET", "/v2/", "v2", "GET"),
        ("HEAD", "/v2", "v2", "HEAD"),
        ("GET", "/v2?x=/v1/", "v2", "GET"),
        ("PUT", "/v1/images/a/layer", "v1", "PUT"),
        ("POST", "http://a.example/v2/x", "v2", "POST"),
        ("DELETE", "/v2x/", OTHER, "DELETE"),
        ("GET", "/", OTHER, "GET"),
        ("PATCH", "//v2/", OTHER, "PATCH"),
        ("get", "/v1/_ping", "v1", OTHER),
        ("EVIL", "/v1/_ping", "v1", OTHER),
    ],
)
def test_a_request_is_of_a_protocol_and_a_method_that_are_known(
    counts: Counts, method: str, target: str, protocol: str, shown: str
) -> None:
    """Nothing that a stranger makes up becomes a kind of its own."""
    assert (shown in METHODS, protocol in PROTOCOLS) == (True, True)
    with counted(count, counts) as running:
        body = body_of(ask(running, f"{method} {target} HTTP/1.1{CLOSE}"))
    assert given(counts) == {(protocol, shown, 200): 1}
    assert only(counts).sent_bytes == len(body)


def test_bytes_of_bodies_are_counted_either_way(counts: Counts, store: Store, threads: Threads) -> None:
    """Small ones, and large ones that threads take from the socket, and ones in chunks; and ranges by sendfile."""
    large, lent = noise(8 * MIB, 1), received.lent_bytes
    digest = keep(store, large)
    with counted(application(store, threads), counts) as running:
        for body in (b"small", large):
            with running.connect() as sock:
                sock.sendall(
                    b"PUT / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
                )
                sock.sendall(body)
                read_all(sock)
        chunked = b"".join(b"10000\r\n%s\r\n" % large[at : at + 65_536] for at in range(0, len(large), 65_536))
        with running.connect() as sock:
            sock.sendall(b"PUT / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n")
            sock.sendall(chunked + b"0\r\n\r\n")
            read_all(sock)
        assert len(body_of(ask(running, f"GET /{digest}/5/{len(large)} HTTP/1.1{CLOSE}"))) == len(large) - 5
    assert received.lent_bytes > lent
    found = {each.method: each for each in counts.sums() if each.protocol == OTHER}
    assert found["PUT"].received_bytes == 5 + 2 * len(large)
    assert found["PUT"].sent_bytes == 3 * len(str(digest))
    assert (found["GET"].received_bytes, found["GET"].sent_bytes) == (0, len(large) - 5)


def test_http2_counts_as_http1_does(counts: Counts) -> None:
    """Bodies without their frames."""
    with counted(count, counts) as running:
        peer = Peer(running)
        stream = peer.request("PUT", "/v2/x")
        peer.speech.send_data(stream, b"x" * 1000, end_stream=True)
        peer.flush()
        _, body = peer.answer(stream)
        peer.sock.close()
    found = only(counts)
    assert (found.protocol, found.method, found.answers[200]) == ("v2", "PUT", 1)
    assert (found.received_bytes, found.sent_bytes) == (1000, len(body))


def test_answers_by_heart_are_counted_as_others_are(counts: Counts) -> None:
    """Those with a body and those without."""
    app = Application()
    with serving(app, moment=lambda: app.moment, counts=counts) as running:
        said(running, *[question(b"/v2/a")] * 3, *[question(b"/v2/b", b"HEAD")] * 2)
    assert next(app.numbers) == 3
    assert given(counts) == {("v2", "GET", 200): 3, ("v2", "HEAD", 200): 2}
    found = {each.method: each for each in counts.sums() if each.protocol == "v2"}
    assert (found["GET"].sent_bytes, found["HEAD"].sent_bytes) == (3 * len(b"1 /v2/a"), 0)
    assert not any(each.under_way for each in counts.sums())


def test_a_request_under_way_is_seen_and_one_that_nobody_waits_for_is_a_499(counts: Counts) -> None:
    """From its head on, until its application ends."""
    waiting = Waiting()
    with counted(waiting, counts) as running:
        sock = running.connect()
        sock.sendall(b"GET /v1/x HTTP/1.1\r\nHost: a\r\n\r\n")
        assert waiting.came.wait(PATIENCE_S)
        assert [each.method for each in counts.sums() if each.under_way] == ["GET"]
        assert given(counts) == {}
        sock.close()
        assert waiting.ended.wait(PATIENCE_S)
    assert given(counts) == {("v1", "GET", 499): 1}
    assert only(counts).under_way == 0


def test_who_is_torn_away_in_the_middle_of_a_push_is_counted_once(counts: Counts) -> None:
    """Where the connection is reset nobody hears that the body was cut short: a 499, and no other request."""
    waiting = Waiting()
    with counted(waiting, counts) as running:
        push_and_be_torn_away(running, waiting, "/v2/x")
    assert given(counts) == {("v2", "PUT", 499): 1}
    assert (only(counts).received_bytes, only(counts).sent_bytes) == (2, 0)


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        ("PUT /v2/x HTTP/1.1\nHost: a\nContent-Length: 5\nTransfer-Encoding: chunked\n\n0", ("v2", "PUT", 400)),
        ("GET /v2/x HTTP/1.1\nHost: a\nX: " + "y" * 70_000, ("v2", "GET", 431)),
        ("GET /x", (OTHER, OTHER, 400)),
        ("\x16\x03\x01 a TLS hello", (OTHER, OTHER, 400)),
        ("PUT /v1/x HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\nnonsense", ("v1", "PUT", 400)),
    ],
)
def test_what_is_refused_before_a_route_is_counted_once(counts: Counts, head: str, kind: tuple[str, str, int]) -> None:
    """Also what was no request, and where an application was reading it already."""
    with counted(count, counts) as running:
        body = body_of(ask(running, head))
    assert given(counts) == {kind: 1}
    assert only(counts).sent_bytes == len(body)


def test_what_http2_resets_and_plain_http_on_a_tls_port_is_counted(counts: Counts, tls: ssl.SSLContext) -> None:
    """As what was no request."""
    with counted(count, counts) as running:
        ask_with_a_reset(running)
    with counted(count, counts, tls=tls) as running:
        ask(running, f"GET /v2/ HTTP/1.1{CLOSE}")
    assert given(counts) == {(OTHER, OTHER, 400): 2, (OTHER, "HEAD", 200): 1}


def test_durations_are_told_by_the_bounds_they_kept_to(counts: Counts) -> None:
    """One that took a bound to the letter kept to it; what is longer than all comes last."""
    kind = counts.kind("GET", b"/v2/")
    for took_s in (0.0, *BOUNDS_S, 1e6):
        kind.count(200, 0, 0, took_s)
    found = only(counts)
    assert found.durations == (2, *[1] * len(BOUNDS_S))
    assert found.took_s == pytest.approx(sum(BOUNDS_S) + 1e6)


def test_a_status_that_nobody_gives_is_taken_for_a_failure_of_ours(counts: Counts) -> None:
    """Rather than for another one's number."""
    counts.kind("GET", b"/v2/").count(599, 0, 0, 0.0)
    assert given(counts) == {("v2", "GET", 500): 1}


def test_whoever_takes_a_place_counts_on_and_has_nothing_under_way(memory: int, counts: Counts) -> None:
    """Sums are of all places, and those of the dead stay."""
    other = Counts(memory, 1)
    for each in (counts, other):
        each.kind("GET", b"/v2/").begin()
        each.kind("GET", b"/v2/").count(200, 10, 1, 0.5)
    heir = Counts(memory, 1)
    heir.kind("GET", b"/v2/").count(200, 10, 1, 0.5)
    (found,) = (each for each in heir.sums() if each.under_way)
    assert (found.under_way, found.answers[200], found.sent_bytes, found.received_bytes) == (1, 3, 30, 3)
