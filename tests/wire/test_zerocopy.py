"""Files to sockets: every byte, none through Python, and nobody waits for another's slow peer or disk."""

from __future__ import annotations

import asyncio
import http.client
import os
import random
import socket
import struct
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from api import page_cache
from api.config import HttpSettings
from api.flow import wait_writable
from api.page_cache import cached_pages, is_resident
from api.streaming import ZERO_COPY
from api.threads import Threads
from api.zerocopy import FileData, FileSender, sent
from tests.wire.harness import PATIENCE_S, ask, body_of, open_descriptors, read_all, serving

SIZE = 3 * (1 << 20) + 12_345


@pytest.fixture
def data() -> bytes:
    return random.Random(7).randbytes(SIZE)


Answer = Callable[[Scope, Send], Awaitable[None]]


def application(answer: Answer) -> ASGIApp:
    """Make an application of something that answers requests without a body."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await answer(scope, send)

    return app


async def start(send: Send, size: int | None = None) -> None:
    headers = [] if size is None else [(b"content-length", str(size).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})


def piece(fd: int, offset: int, count: int, *, more: bool = False) -> dict[str, Any]:
    return {"type": ZERO_COPY, "file": fd, "offset": offset, "count": count, "more_body": more}


def in_memory(fd: int, offset: int, count: int, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": os.pread(fd, count, offset), "more_body": more}


# A body in one message, from the file or from memory: the promises of a transfer are the same.
EITHER = pytest.mark.parametrize("body", [piece, in_memory])
Body = Callable[..., dict[str, Any]]


def ranges_of(fd: int, *, announced: bool = True, body: Body = piece) -> ASGIApp:
    """Answer /A-B with bytes [A, B) of a file."""

    async def answer(scope: Scope, send: Send) -> None:
        first, last = (int(number) for number in scope["path"][1:].split("-"))
        await start(send, last - first if announced else None)
        await send(body(fd, first, last - first))

    return application(answer)


@EITHER
@pytest.mark.parametrize("announced", [True, False])
def test_every_range_arrives_byte_identical(fd: int, data: bytes, announced: bool, body: Body) -> None:
    """With a length or chunked, over one connection that stays open."""
    some = random.Random(1)
    with serving(ranges_of(fd, announced=announced, body=body)) as running:
        client = http.client.HTTPConnection(*running.address, timeout=PATIENCE_S)
        for first in (0, 1, SIZE - 1, SIZE, *(some.randrange(SIZE) for _ in range(20))):
            last = some.randint(first, SIZE)
            client.request("GET", f"/{first}-{last}")
            assert client.getresponse().read() == data[first:last]
        client.close()


def test_no_byte_of_a_file_passes_through_python(fd: int, data: bytes) -> None:
    """What sendfile sent is the body, and no other body bytes were written."""
    before = replace(sent)
    with serving(ranges_of(fd)) as running:
        assert body_of(ask(running, f"GET /0-{SIZE} HTTP/1.1\nHost: a\nConnection: close")) == data
    assert sent.sendfile_bytes - before.sendfile_bytes == SIZE
    assert sent.body_bytes == before.body_bytes


def test_files_and_bytes_mix_in_one_body(fd: int, data: bytes) -> None:
    """In the order they were sent; what a message leaves out is where the file stands, and its end."""

    async def answer(scope: Scope, send: Send) -> None:
        os.lseek(fd, SIZE - 5, os.SEEK_SET)
        await start(send)
        await send({"type": "http.response.body", "body": b"<" * 300_000, "more_body": True})
        await send(piece(fd, 10, 1_500_000, more=True))
        await send({"type": "http.response.body", "body": b"|", "more_body": True})
        await send(piece(fd, 0, 0, more=True))
        with os.fdopen(fd, "rb", closefd=False) as file:
            await send({"type": ZERO_COPY, "file": file})

    with serving(application(answer)) as running:
        client = http.client.HTTPConnection(*running.address, timeout=PATIENCE_S)
        client.request("GET", "/")
        expected = b"<" * 300_000 + data[10:1_500_010] + b"|" + data[-5:]
        assert client.getresponse().read() == expected
        client.close()


def test_head_gets_the_length_and_no_bytes(fd: int) -> None:
    """The application need not care."""
    before = sent.sendfile_bytes
    with serving(ranges_of(fd)) as running:
        answer = ask(running, f"HEAD /0-{SIZE} HTTP/1.1\nHost: a\nConnection: close")
    assert f"content-length: {SIZE}".encode() in answer
    assert body_of(answer) == b""
    assert sent.sendfile_bytes == before


def test_pipelined_requests_are_answered_in_order(fd: int, data: bytes) -> None:
    """Three requests in one segment, three answers back to back."""
    ends = (2_000_000, 10, SIZE)
    with serving(ranges_of(fd)) as running:
        text = [f"GET /5-{end} HTTP/1.1\nHost: a" for end in ends]
        answer = ask(running, "\n\n".join(text) + "\nConnection: close")
    for end in ends:
        head, _, answer = answer.partition(b"\r\n\r\n")
        assert f"content-length: {end - 5}".encode() in head
        assert answer[: end - 5] == data[5:end]
        answer = answer[end - 5 :]
    assert answer == b""


@EITHER
def test_a_slow_reader_gets_everything_and_holds_back_nobody(fd: int, data: bytes, body: Body) -> None:
    """Its transfer pauses; others are answered in between; it need only take something now and then."""
    with serving(ranges_of(fd, body=body)) as running:
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.settimeout(PATIENCE_S)
        slow.connect(running.address)
        slow.sendall(f"GET /0-{SIZE} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        got = slow.recv(10)
        for _ in range(20):
            got += slow.recv(1000)
            assert body_of(ask(running, "GET /7-77 HTTP/1.1\nHost: a\nConnection: close")) == data[7:77]
        assert body_of(got + read_all(slow)) == data


def told_of_the_end(fd: int, over: threading.Event, body: Body = piece) -> ASGIApp:
    """Send a file again and again, then tell that the application came to an end by an error of send()."""

    async def answer(_: Scope, send: Send) -> None:
        await start(send)
        try:
            while True:
                await send(body(fd, 0, SIZE, more=True))
        except OSError:
            over.set()
            raise

    return application(answer)


@EITHER
def test_a_reader_that_takes_nothing_is_dropped(fd: int, caplog: pytest.LogCaptureFixture, body: Body) -> None:
    """After stall_s without progress, and nothing of it stays behind."""
    before = open_descriptors()
    over = threading.Event()
    settings = HttpSettings(stall_s=0.2)
    with serving(told_of_the_end(fd, over, body), settings) as running, running.connect() as peer:
        peer.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert over.wait(PATIENCE_S)
    assert open_descriptors() <= before
    assert not caplog.records


def test_a_client_that_leaves_is_no_news(fd: int, caplog: pytest.LogCaptureFixture) -> None:
    """The application is told, nothing is logged, every descriptor and task is gone."""
    before = open_descriptors()
    over = threading.Event()
    with serving(told_of_the_end(fd, over)) as running:
        with running.connect() as peer:
            peer.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert peer.recv(100_000)
        assert over.wait(PATIENCE_S)
    assert open_descriptors() <= before
    assert not caplog.records


@EITHER
@pytest.mark.parametrize("has_begun", [False, True])
def test_a_client_that_left_before_its_answer_is_no_news(
    fd: int, caplog: pytest.LogCaptureFixture, body: Body, has_begun: bool
) -> None:
    """With no connection to send to, nobody tells operators that an answer was cut short."""
    asked, over = threading.Event(), threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        asked.set()
        try:
            if has_begun:
                await start(send, SIZE)
            while (await receive())["type"] != "http.disconnect":
                pass
            if not has_begun:
                await start(send, SIZE)
            await send(body(fd, 0, SIZE))
        finally:
            over.set()

    with serving(app) as running, running.connect() as peer:
        peer.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert asked.wait(PATIENCE_S)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        assert over.wait(PATIENCE_S)
    assert not caplog.records


@pytest.mark.parametrize("announced", [True, False])
def test_a_file_that_is_too_short_ends_the_connection(
    fd: int, data: bytes, announced: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The client must see that something is missing, in either framing, and the log says so once."""
    with serving(ranges_of(fd, announced=announced)) as running:
        client = http.client.HTTPConnection(*running.address, timeout=PATIENCE_S)
        client.request("GET", f"/0-{SIZE + 1}")
        with pytest.raises((http.client.IncompleteRead, ConnectionError)) as caught:
            client.getresponse().read()
        client.close()
    if isinstance(caught.value, http.client.IncompleteRead):
        assert data.startswith(caught.value.partial)
    assert ["cut short" in record.message for record in caplog.records] == [True]


def test_the_loop_answers_while_a_disk_is_waited_for(fd: int, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cold file blocks a thread of its own, not the others' requests."""
    waiting, arrived = threading.Event(), threading.Event()
    sendfile = os.sendfile

    def from_disk(out: int, source: int, offset: int, count: int) -> int:
        waiting.set()
        assert arrived.wait(PATIENCE_S), "the disk never answered"
        return sendfile(out, source, offset, count)

    async def answer(scope: Scope, send: Send) -> None:
        await start(send, SIZE if scope["path"] == "/file" else 2)
        if scope["path"] == "/file":
            await send(piece(fd, 0, SIZE))
        else:
            await send({"type": "http.response.body", "body": b"hi"})

    monkeypatch.setattr(page_cache, "is_resident", lambda *_: False)
    monkeypatch.setattr(os, "sendfile", from_disk)
    with serving(application(answer)) as running:
        cold = running.connect()
        cold.sendall(b"GET /file HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert waiting.wait(PATIENCE_S)
        assert body_of(ask(running, "GET / HTTP/1.1\nHost: a\nConnection: close")) == b"hi"
        arrived.set()
        assert body_of(read_all(cold)) == data


def test_a_file_that_left_the_page_cache_arrives_whole(fd: int, data: bytes) -> None:
    """Through threads, if this filesystem lets its pages go at all."""
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    was_cold = not is_resident(fd, 0, SIZE)
    os.pread(fd, SIZE, 0)  # to look at what is away has the kernel fetch it: that is over now
    for _ in range(1000):  # what the kernel is just looking at it keeps
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        if not cached_pages(fd, 0, SIZE):
            break
    before = sent.cold_calls
    with serving(ranges_of(fd)) as running:
        assert body_of(ask(running, f"GET /0-{SIZE} HTTP/1.1\nHost: a\nConnection: close")) == data
    assert (sent.cold_calls > before) == was_cold


def test_a_client_that_leaves_while_a_disk_is_waited_for_is_no_news(
    fd: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The thread ends before its descriptors do, so no number is ever used for another connection."""
    waiting, arrived, over = threading.Event(), threading.Event(), threading.Event()
    sendfile = os.sendfile

    def from_disk(out: int, source: int, offset: int, count: int) -> int:
        waiting.set()
        assert arrived.wait(PATIENCE_S)
        assert str(Path(f"/proc/self/fd/{out}").readlink()).startswith("socket:")
        return sendfile(out, source, offset, count)

    monkeypatch.setattr(page_cache, "is_resident", lambda *_: False)
    monkeypatch.setattr(os, "sendfile", from_disk)
    before = open_descriptors()
    with serving(told_of_the_end(fd, over), HttpSettings(grace_s=0.01)) as running:
        with running.connect() as peer:
            peer.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert waiting.wait(PATIENCE_S)
            running.begin_stop()
        arrived.set()
    assert open_descriptors() <= before
    assert not caplog.records


def test_a_body_from_a_file_before_its_head_is_the_applications_error(
    fd: int, caplog: pytest.LogCaptureFixture
) -> None:
    """It gets a RuntimeError and the client a 500."""

    async def answer(_: Scope, send: Send) -> None:
        await send(piece(fd, 0, 10))

    with serving(application(answer)) as running:
        assert ask(running, "GET / HTTP/1.1\nHost: a\nConnection: close").startswith(b"HTTP/1.1 500 ")
    assert "application failed" in caplog.text


def test_two_workers_share_one_socket(fd: int, data: bytes) -> None:
    """Whoever accepts, every client gets its bytes."""
    listening = socket.create_server(("127.0.0.1", 0))
    other = listening.dup()
    with serving(ranges_of(fd), sock=listening) as running, serving(ranges_of(fd), sock=other):
        clients = [running.connect() for _ in range(20)]
        for client in clients:
            client.sendall(b"GET /0-200000 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        for client in clients:
            assert body_of(read_all(client)) == data[:200_000]


def test_a_body_of_many_small_pieces_leaves_the_others_their_turns(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However fast its client takes them: after `send_bytes` it is somebody else's turn."""
    monkeypatch.setattr(os, "sendfile", lambda _out, _fd, _offset, count: count)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def scenario() -> None:
        ours, theirs = socket.socketpair()
        reader = asyncio.create_task(others())
        threads = Threads(1)
        with theirs:
            _, writer = await asyncio.open_connection(sock=ours)
            sender = FileSender(writer.transport, HttpSettings(send_bytes=65_536), threads)
            for _ in range(64):
                await sender.send(FileData(fd, 0, 16_384))
            writer.close()
            reader.cancel()
        threads.close()

    asyncio.run(scenario())
    assert turns >= 64 * 16_384 // 65_536 - 1


@pytest.mark.parametrize(("are_others_answered", "most"), [(False, 4 * 65_536), (True, 65_536)])
def test_files_are_sent_in_longer_steps_while_nobody_else_is_answered(
    fd: int, data: bytes, monkeypatch: pytest.MonkeyPatch, *, are_others_answered: bool, most: int
) -> None:
    """Up to four times `send_bytes`, in fewer steps; and no more than that while small requests come."""
    asked, sendfile = [], os.sendfile

    def watched(out: int, file: int, offset: int, count: int) -> int:
        asked.append(count)
        sent.writes += are_others_answered
        return sendfile(out, file, offset, count)

    monkeypatch.setattr(os, "sendfile", watched)
    with serving(ranges_of(fd), HttpSettings(send_bytes=65_536)) as running:
        answer = ask(running, "GET /0-2000000 HTTP/1.1\nHost: a\nConnection: close")
    assert body_of(answer) == data[:2_000_000]
    assert max(asked) == most


def test_a_wait_for_a_socket_ends_when_its_task_is_cancelled() -> None:
    """And leaves no watch behind."""

    async def scenario() -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            while True:
                try:
                    ours.send(b"x" * 65536)
                except BlockingIOError:
                    break
            task = asyncio.create_task(wait_writable(ours.fileno(), PATIENCE_S))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not asyncio.get_running_loop().remove_writer(ours.fileno())

    asyncio.run(scenario())
