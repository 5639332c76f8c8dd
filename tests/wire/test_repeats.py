"""Answers given again on a connection: word for word the same questions, and never anything else's answer."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from starlette.types import Receive, Scope, Send

from api.basis import Basis
from api.config import HttpSettings
from api.repeats import BASIS
from api.zerocopy import sent
from tests.wire.harness import Running, read_all, serving
from tests.wire.hourglass import Hourglass

DATE = re.compile(rb"\r\ndate: [^\r]*")
HOST = b"Host: a\r\n"


@dataclass
class Application:
    """Says what it was asked and how often it was asked anything; its answers are of `moment`."""

    moment: int | None = 7
    body: bytes | None = None
    more: bool = False
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        body = b"%d %s" % (next(self.numbers), scope["raw_path"]) if self.body is None else self.body
        headers = [(b"content-length", b"%d" % len(body))]
        start = {"type": "http.response.start", "status": 200, "headers": headers}
        await send(start if self.moment is None else {**start, BASIS: Basis(self.moment, lambda: None)})
        if self.more:
            await send({"type": "http.response.body", "body": body[:1], "more_body": True})
            body = body[1:]
        await send({"type": "http.response.body", "body": body})


@contextmanager
def repeating(app: Application, settings: HttpSettings | None = None) -> Iterator[Running]:
    with serving(app, settings, moment=lambda: app.moment) as running:
        yield running


def said(running: Running, *pieces: bytes) -> list[bytes]:
    """Send pieces on one connection, each after the answer to the one before; give the answers, undated."""
    answers = []
    with running.connect() as sock:
        for piece in pieces:
            sock.sendall(piece)
            answer = b""
            while (end := answer.find(b"\r\n\r\n")) < 0:
                answer += (got := sock.recv(65_536))
                assert got, answer
            size = int(re.findall(rb"content-length: (\d+)", answer)[0])
            while not piece.startswith(b"HEAD") and len(answer) < end + 4 + size:
                answer += (got := sock.recv(65_536))
                assert got, answer
            assert len(DATE.findall(answer)) == 1
            answers.append(DATE.sub(b"", answer))
    return answers


def question(path: bytes, method: bytes = b"GET", headers: bytes = HOST) -> bytes:
    return method + b" " + path + b" HTTP/1.1\r\n" + headers + b"\r\n"


def test_the_same_question_is_answered_byte_for_byte_the_same_without_the_application() -> None:
    """On the same connection, and on others of the worker."""
    before = sent.repeats
    with repeating(Application()) as running:
        answers = said(running, *[question(b"/a")] * 3) + said(running, question(b"/a"))
    assert len(set(answers)) == 1
    assert answers[0].endswith(b"\r\n\r\n1 /a")
    assert sent.repeats - before == 3


def test_head_and_get_are_two_questions() -> None:
    """The answer to one has no body."""
    with repeating(Application()) as running:
        head, get, again, got = said(
            running, question(b"/a", b"HEAD"), question(b"/a"), question(b"/a", b"HEAD"), question(b"/a")
        )
    assert head == again
    assert head.endswith(b"\r\n\r\n")
    assert get == got
    assert get.endswith(b"2 /a")


@pytest.mark.parametrize("headers", [HOST + b"Accept: b\r\n", b"Host: b\r\n", HOST + b"If-None-Match: x\r\n"])
def test_any_other_word_is_another_question(headers: bytes) -> None:
    """What is not understood may matter."""
    with repeating(Application()) as running:
        first, other = said(running, question(b"/a"), question(b"/a", headers=headers))
    assert (first[-4:], other[-4:]) == (b"1 /a", b"2 /a")


def test_a_change_of_the_store_is_seen_by_the_next_question() -> None:
    """Whatever it was that changed."""
    app = Application()
    with repeating(app) as running:
        said(running, question(b"/a"))
        app.moment = 8
        assert said(running, question(b"/a"))[0].endswith(b"2 /a")


def test_what_is_not_said_to_be_of_a_moment_is_asked_anew() -> None:
    """Only whoever made an answer knows what went into it."""
    with repeating(Application(moment=None)) as running:
        first, second = said(running, question(b"/a"), question(b"/a"))
    assert (first[-4:], second[-4:]) == (b"1 /a", b"2 /a")


def test_the_end_of_one_request_is_never_taken_for_another_one() -> None:
    """A head in two pieces, the second of which looks like a request of somebody else's."""
    with repeating(Application()) as running:
        assert said_in_two(running, b"GET /evil HTTP/1.1\r\nX: ", question(b"/good")).endswith(b"/evil")
        assert said(running, question(b"/good"))[0].endswith(b"/good")


def said_in_two(running: Running, first: bytes, second: bytes) -> bytes:
    """Send a request in two pieces that arrive one after the other."""
    with running.connect() as sock, running.connect() as other:
        sock.sendall(first)
        other.sendall(question(b"/between", headers=HOST + b"Connection: close\r\n"))
        assert read_all(other)  # by now the first piece was read, since the loop reads in order
        sock.sendall(second)
        return sock.recv(65_536)


def test_two_questions_in_one_piece_get_two_answers_each_time() -> None:
    """Also where the first ends in a way that only the parser knows."""
    for both in (question(b"/a") + question(b"/b"), b"GET /a HTTP/1.1\nHost: a\n\n" + question(b"/b")):
        with repeating(Application()) as running:
            for _ in range(3):
                with running.connect() as sock:
                    sock.sendall(both)
                    sock.sendall(question(b"/c", headers=HOST + b"Connection: close\r\n"))
                    text = read_all(sock)
                    assert re.findall(rb"\d (/.)", text) == [b"/a", b"/b", b"/c"]


def test_an_answer_that_ends_its_connection_is_not_kept() -> None:
    """It says so in its head."""
    closing = question(b"/a", headers=HOST + b"Connection: close\r\n")
    with repeating(Application()) as running:
        texts = []
        for _ in range(2):
            with running.connect() as sock:
                sock.sendall(closing)
                texts.append(read_all(sock))
    assert [text[-4:] for text in texts] == [b"1 /a", b"2 /a"]
    assert all(b"connection: close" in text.lower() for text in texts)


def test_a_connection_ends_after_its_requests_however_they_are_answered() -> None:
    """The last answer says so."""
    with repeating(Application(), HttpSettings(keep_alive_requests=4)) as running, running.connect() as sock:
        for _ in range(4):
            sock.sendall(question(b"/a"))
            answer = sock.recv(65_536)
        assert b"connection: close" in answer.lower()
        assert sock.recv(1) == b""


def test_a_connection_on_which_answers_are_given_again_is_not_idle(hourglass: Hourglass) -> None:
    """Each question begins the wait for the next one anew."""
    before = sent.repeats
    with (
        repeating(Application(), HttpSettings(keep_alive_s=10.0)) as running,
        running.connect() as quiet,
        running.connect() as sock,
    ):
        for _ in range(4):
            for _ in range(2):  # the second answer comes after the wait that the first one began
                sock.sendall(question(b"/a"))
                assert sock.recv(65_536)
            hourglass.let_pass(running, 4.0)
        assert quiet.recv(1) == b""
        sock.sendall(question(b"/a"))
        assert sock.recv(65_536)
    assert sent.repeats - before == 8


def test_a_question_with_a_body_is_asked_anew() -> None:
    """Its body would be taken for the next request."""
    headers = HOST + b"Content-Length: 5\r\n"
    with repeating(Application()) as running:
        for number in (1, 2):
            with running.connect() as sock:
                sock.sendall(question(b"/a", headers=headers))
                answer = sock.recv(65_536)
                assert answer.endswith(b"%d /a" % number)


def test_what_went_out_in_pieces_is_not_kept() -> None:
    """It may be a large one, made while it is sent."""
    with repeating(Application(more=True)) as running:
        first, second = said(running, question(b"/a"), question(b"/a"))
    assert (first[-4:], second[-4:]) == (b"1 /a", b"2 /a")


def test_head_and_body_of_an_answer_go_out_together() -> None:
    """One write each, made anew or given again."""
    with repeating(Application()) as running:
        before = sent.writes
        said(running, question(b"/a"), question(b"/a"), question(b"/b"))
        assert sent.writes - before == 3


class Listener(Application):
    """One that hears all of a request before it says anything."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        while scope["type"] == "http" and (await receive()).get("more_body"):
            pass
        await super().__call__(scope, receive, send)


@pytest.mark.parametrize("framing", [b"Content-Length: 37\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_a_question_with_a_body_is_never_answered_by_heart(framing: bytes) -> None:
    """Its body, left lying, would be taken for the next request: perhaps somebody else's."""
    head, body = question(b"/a", headers=HOST + framing), question(b"/evil", headers=b"Host: a\r\nX: y\r\n")
    assert len(body) == 37
    if b"chunked" in framing:
        body = b"25\r\n" + body + b"\r\n0\r\n\r\n"
    before = sent.repeats
    with repeating(Listener()) as running:
        for _ in range(3):
            assert said_in_two(running, head, body).endswith(b"/a")
        assert said(running, question(b"/a", headers=HOST + b"X: z\r\n"))[0].endswith(b"/a")
    assert sent.repeats == before
