"""Files over TLS: every byte, a few records at a time, and nobody waits for another's disk or slow peer."""

from __future__ import annotations

import asyncio
import errno
import http.client
import os
import random
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from api import sealed
from api.config import KIB
from api.outlet import ShortFile
from api.sealed import SealedSender
from api.streaming import ZERO_COPY
from api.threads import Threads
from api.zerocopy import FileData, sent
from tests.wire.blobs import trusting
from tests.wire.harness import PATIENCE_S, Running, body_of, read_all, serving

SIZE = 2 * (1 << 20) + 12_345
MOST = 112 * KIB


@pytest.fixture
def data() -> bytes:
    return random.Random(7).randbytes(SIZE)


def ranges_of(fd: int) -> ASGIApp:
    """Answer /A-B with bytes [A, B) of a file, and anything else shortly."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        first, _, last = scope["path"][1:].partition("-")
        count = int(last) - int(first) if last else 2
        head = [(b"content-length", str(count).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        if last:
            await send({"type": ZERO_COPY, "file": fd, "offset": int(first), "count": count, "more_body": False})
        else:
            await send({"type": "http.response.body", "body": b"hi"})

    return app


async def not_full() -> None:
    """Stand for a wait for room."""
    raise AssertionError("nothing is full")


def connect(running: Running, buffer_bytes: int | None = None) -> ssl.SSLSocket:
    sock = running.connect()
    if buffer_bytes:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
    return trusting().wrap_socket(sock)


def cache(monkeypatch: pytest.MonkeyPatch, has: Callable[[int], int]) -> None:
    """Let the page cache have, of what is wanted at a place of a file, only so much."""
    preadv = os.preadv

    def from_memory(fd: int, buffers: list[memoryview], at: int, flags: int = 0) -> int:
        if not flags & os.RWF_NOWAIT:
            return preadv(fd, buffers, at, flags)
        if not (most := has(at)):
            raise BlockingIOError(errno.EAGAIN, "it would have to be waited for")
        return preadv(fd, [buffers[0][:most]], at)

    monkeypatch.setattr(os, "preadv", from_memory)


@pytest.mark.parametrize("is_cold", [False, True])
def test_every_range_arrives_byte_identical(
    fd: int, data: bytes, is_cold: bool, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From memory and from a disk; whatever lies around the ends of what is encrypted at once."""
    cache(monkeypatch, lambda _: 0 if is_cold else SIZE)
    some, before = random.Random(1), replace(sent)
    places = [(0, 0), (0, 1), (0, SIZE), (SIZE - 1, SIZE), (5, 5 + MOST), (0, MOST - 1), (0, MOST + 1)]
    places += [(first, some.randint(first, SIZE)) for first in (some.randrange(SIZE) for _ in range(20))]
    with serving(ranges_of(fd), tls=tls) as running:
        client = http.client.HTTPSConnection(*running.address, timeout=PATIENCE_S, context=trusting())
        for first, last in places:
            client.request("GET", f"/{first}-{last}")
            assert client.getresponse().read() == data[first:last]
        client.close()
    assert sent.body_bytes - before.body_bytes == sum(last - first for first, last in places)
    assert (sent.cold_calls > before.cold_calls) == is_cold
    assert sent.sendfile_bytes == before.sendfile_bytes


def test_pages_that_left_meanwhile_are_waited_for_by_a_thread(
    fd: int, data: bytes, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However slowly they are taken: nothing that was in memory a moment ago has to be there still."""
    some = random.Random(3)
    cache(monkeypatch, lambda _: some.choice([0, 1, 5000, SIZE]))
    before = replace(sent)
    with serving(ranges_of(fd), tls=tls) as running:
        client = http.client.HTTPSConnection(*running.address, timeout=PATIENCE_S, context=trusting())
        for _ in range(5):
            client.request("GET", f"/7-{SIZE}")
            assert client.getresponse().read() == data[7:]
        client.close()
    assert sent.cold_calls > before.cold_calls
    assert sent.body_bytes - before.body_bytes == 5 * (SIZE - 7)


def test_what_a_disk_cannot_give_is_no_end_of_a_file(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the disk is raised, by whichever way it was read."""

    def broken(*_: object) -> int:
        raise OSError(errno.EIO, "the disk is broken")

    async def scenario() -> None:
        threads = Threads(1)
        sender = SealedSender(lambda _: True, not_full, threads)
        with pytest.raises(OSError, match="broken"):
            await sender.send(FileData(fd, 0, SIZE))
        threads.close()

    monkeypatch.setattr(os, "preadv", broken)
    asyncio.run(scenario())


def test_a_head_goes_out_with_the_first_bytes_of_its_file(fd: int, tls: ssl.SSLContext) -> None:
    """A small file is one write, where each write is a record at least."""
    before = sent.writes
    with serving(ranges_of(fd), tls=tls) as running, connect(running) as client:
        client.sendall(b"GET /0-60000 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert len(body_of(read_all(client))) == 60_000
    assert sent.writes - before == 1


def test_slow_clients_beside_each_other_get_each_their_own(fd: int, data: bytes, tls: ssl.SSLContext) -> None:
    """All are encrypted from the same memory, and none before the one before was done with it."""
    with serving(ranges_of(fd), tls=tls) as running:
        clients = [connect(running, 64 * KIB) for _ in range(6)]
        for number, client in enumerate(clients):
            client.sendall(b"GET /%d-%d HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % (number, SIZE))
        got = [b"" for _ in clients]
        while any(len(body_of(each)) < SIZE - number for number, each in enumerate(got)):
            for number, client in enumerate(clients):
                got[number] += client.recv(50_000)
        for client in clients:
            client.close()
    assert [body_of(each) for each in got] == [data[number:] for number in range(6)]


def test_memory_that_may_still_be_needed_is_not_written_over(fd: int, data: bytes) -> None:
    """Whoever says that they are not done with it keeps it as it was."""
    kept: list[bytes | memoryview] = []
    drains = 0

    def write(piece: bytes | memoryview) -> bool:
        kept.append(piece)
        return False

    async def drain() -> None:
        nonlocal drains
        drains += 1

    async def scenario() -> None:
        threads = Threads(1)
        sender = SealedSender(write, drain, threads)
        await sender.send(FileData(fd, 10, SIZE - 10, b"head"))
        await sender.send_bytes(data)
        threads.close()

    asyncio.run(scenario())
    assert b"".join(kept) == b"head" + data[10:] + data
    assert drains == len(kept)


def test_a_long_file_leaves_the_others_their_turns(fd: int) -> None:
    """However fast its client takes it, and whether or not another one is sent at the same time."""
    places = [FileData(fd, 0, SIZE)] * 8
    turns: dict[int, int] = {}

    async def others(sending: asyncio.Task[None]) -> int:
        count = 0
        while not sending.done():
            count += 1
            await asyncio.sleep(0)
        return count

    async def send(sender: SealedSender) -> None:
        for place in places:
            await sender.send(place)

    async def scenario() -> None:
        threads = Threads(1)
        for streams in (1, 2):
            senders = [SealedSender(lambda _: True, not_full, threads) for _ in range(streams)]
            tasks = [asyncio.create_task(send(sender)) for sender in senders]
            turns[streams] = await others(tasks[0])
            await asyncio.gather(*tasks)
        threads.close()

    asyncio.run(scenario())
    assert min(turns[1], turns[2]) >= 8 * SIZE // (2 * 4 * MOST)


def test_the_loop_answers_while_a_disk_is_waited_for(
    fd: int, data: bytes, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cold file blocks a thread of its own, not the others' requests."""
    waiting, arrived = threading.Event(), threading.Event()
    read = sealed._read  # noqa: SLF001

    def from_disk(file: int, at: int, stop: int) -> bytes:
        waiting.set()
        assert arrived.wait(PATIENCE_S), "the disk never answered"
        return read(file, at, stop)

    cache(monkeypatch, lambda _: 0)
    monkeypatch.setattr(sealed, "_read", from_disk)
    with serving(ranges_of(fd), tls=tls) as running:
        cold = connect(running)
        cold.sendall(b"GET /0-%d HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % SIZE)
        assert waiting.wait(PATIENCE_S)
        with connect(running) as other:
            other.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert body_of(read_all(other)) == b"hi"
        arrived.set()
        assert body_of(read_all(cold)) == data


@pytest.mark.parametrize("is_cold", [False, True])
def test_a_file_that_ends_early_is_told_apart_from_one_that_is_sent(
    fd: int, is_cold: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With how much of it is missing; what there was went out, and is counted."""
    cache(monkeypatch, lambda _: 0 if is_cold else SIZE)
    written = 0

    def write(piece: bytes | memoryview) -> bool:
        nonlocal written
        written += len(piece)
        return True

    async def scenario() -> None:
        threads = Threads(1)
        sender = SealedSender(write, not_full, threads)
        with pytest.raises(ShortFile) as caught:
            await sender.send(FileData(fd, 100, SIZE))
        assert caught.value.missing == 100
        assert sender.moved_bytes == written == SIZE - 100
        threads.close()

    asyncio.run(scenario())
