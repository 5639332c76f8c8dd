"""Bodies that threads read from the connection themselves: the same bytes, and nobody held up by who is slow."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, suppress
from typing import Any

import pytest

from api.config import HttpSettings
from api.intake import received
from api.loan import Loan
from api.threads import Threads
from cas import Digest, Store
from tests.support.engine import KIB, MIB, noise, read
from tests.wire.blobs import application
from tests.wire.harness import PATIENCE_S, Running, body_of, read_all, serving

FIRST = 64 * KIB  # what the connection reads with a head


@pytest.fixture
def one_thread() -> Iterator[Threads]:
    pool = Threads(1)
    yield pool
    pool.close()


def head(size: int, *lines: str) -> bytes:
    return "\r\n".join(["PUT / HTTP/1.1", "Host: here", f"Content-Length: {size}", *lines, "", ""]).encode()


def put(running: Running, data: bytes) -> bytes:
    """Push a body on a connection of its own; give the answer's body."""
    with running.connect() as sock:
        sock.sendall(head(len(data), "Connection: close") + data)
        return body_of(read_all(sock))


@pytest.mark.parametrize("size", [FIRST, 2 * FIRST - 200, 2 * FIRST, MIB - 1, 5 * MIB + 1, 40 * MIB])
def test_a_body_of_known_length_is_read_by_threads(store: Store, threads: Threads, size: int) -> None:
    """All of it that did not come with its head, and it is the same."""
    data, before = noise(size, size), received.lent_bytes
    with serving(application(store, threads)) as running:
        assert put(running, data).decode() == str(Digest.of(data))
    assert read(store, Digest.of(data)) == data
    lent = received.lent_bytes - before
    assert lent >= size - 2 * FIRST
    assert lent == 0 or size > FIRST


def test_the_request_behind_a_body_is_its_own(store: Store, threads: Threads) -> None:
    """Sent in one go with it, and after it: a thread reads to the body's end and no further."""
    blobs = [noise(300_000, number) for number in range(4)]
    with serving(application(store, threads)) as running, running.connect() as sock:
        sock.sendall(b"".join(head(len(blob)) + blob for blob in blobs[:2]))
        sock.sendall(head(len(blobs[2])) + blobs[2])
        sock.sendall(head(len(blobs[3]), "Connection: close") + blobs[3])
        said = read_all(sock)
    assert said.count(b"HTTP/1.1 200") == len(blobs)
    assert [said.find(str(Digest.of(blob)).encode()) > 0 for blob in blobs] == [True] * len(blobs)


def test_slow_clients_hold_no_thread(store: Store, one_thread: Threads) -> None:
    """Ten bodies stop in the middle; the only thread there is serves an eleventh, and then the ten when they go on."""
    slow = [noise(700_000, number) for number in range(10)]
    with serving(application(store, one_thread)) as running:
        socks = [running.connect() for _ in slow]
        for sock, data in zip(socks, slow, strict=True):
            sock.sendall(head(len(data), "Connection: close") + data[:400_000])
        quick = noise(2 * MIB, 99)
        assert put(running, quick).decode() == str(Digest.of(quick))
        for sock, data in zip(socks, slow, strict=True):
            sock.sendall(data[400_000:])
            assert body_of(read_all(sock)).decode() == str(Digest.of(data))


def test_a_body_that_comes_a_little_at_a_time_is_whole(store: Store, one_thread: Threads) -> None:
    """Bytes wait in the kernel until a block of them is there, or the last."""
    data = noise(3 * FIRST, 1)
    with serving(application(store, one_thread)) as running, running.connect() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(head(len(data), "Connection: close"))
        for start in range(0, len(data), 5000):
            sock.sendall(data[start : start + 5000])
        assert body_of(read_all(sock)).decode() == str(Digest.of(data))


@pytest.mark.parametrize("sent", [0, 1, 400_000])
def test_a_client_that_leaves_in_the_middle_leaves_nothing(store: Store, threads: Threads, sent: int) -> None:
    """And the server goes on; whatever ends the connection."""
    data = noise(MIB, 2)
    with serving(application(store, threads)) as running:
        for linger in (None, b"\1\0\0\0\0\0\0\0"):  # an orderly end, and a reset
            with running.connect() as sock:
                sock.sendall(head(len(data)) + data[:sent])
                if linger is not None:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        assert put(running, data).decode() == str(Digest.of(data))
    assert store.stats().blobs == 1


@pytest.mark.parametrize("sent", [0, 400_000])
def test_a_client_that_stalls_is_dropped(store: Store, threads: Threads, sent: int) -> None:
    """After stall_s without a byte; nothing of it stays."""
    data = noise(MIB, 3)
    with serving(application(store, threads), HttpSettings(stall_s=0.1)) as running, running.connect() as sock:
        sock.sendall(head(len(data)) + data[:sent])
        assert not read_all(sock).startswith(b"HTTP/1.1 200")
    assert store.stats().blobs == 0


def test_a_body_is_invited_before_it_is_waited_for(store: Store, threads: Threads) -> None:
    """Whoever asked first whether to send hears `100 Continue`, once."""
    data = noise(MIB, 4)
    with serving(application(store, threads)) as running, running.connect() as sock:
        sock.sendall(head(len(data), "Expect: 100-continue", "Connection: close"))
        assert sock.recv(1000).startswith(b"HTTP/1.1 100 ")
        sock.sendall(data)
        said = read_all(sock)
    assert said.startswith(b"HTTP/1.1 200 ")
    assert body_of(said).decode() == str(Digest.of(data))


def test_a_body_over_the_limit_is_refused_and_not_read(store: Store, threads: Threads) -> None:
    """Announced, so nobody reads it; its client sees the answer all the same."""
    with serving(application(store, threads, limit_bytes=MIB)) as running:
        assert b"larger" in put(running, bytes(MIB + 1))
        assert put(running, bytes(MIB)).decode() == str(Digest.of(bytes(MIB)))


def test_what_has_to_be_decrypted_is_not_lent(store: Store, threads: Threads, tls: ssl.SSLContext) -> None:
    """It comes the other way, and is the same."""
    data, before = noise(MIB, 5), received.lent_bytes
    with serving(application(store, threads), tls=tls) as running:
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
        with client.wrap_socket(running.connect()) as sock:
            sock.sendall(head(len(data), "Connection: close") + data)
            assert body_of(read_all(sock)).decode() == str(Digest.of(data))
    assert received.lent_bytes == before


def chunked(data: bytes, size: int, end: bytes = b"0\r\n\r\n") -> bytes:
    """Write a body in chunks of a size."""
    pieces = (data[at : at + size] for at in range(0, len(data), size))
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + end


def chunked_head(*lines: str) -> bytes:
    return "\r\n".join(["PUT / HTTP/1.1", "Host: here", "Transfer-Encoding: chunked", *lines, "", ""]).encode()


@pytest.mark.parametrize("chunk", [1000, 32 * KIB, 5 * MIB + 7])
@pytest.mark.parametrize("size", [1, FIRST, 2 * FIRST, MIB, 20 * MIB + 1])
def test_a_large_body_in_chunks_is_read_by_threads_too(store: Store, threads: Threads, size: int, chunk: int) -> None:
    """Once more than a little has come of it, and it is the same."""
    data, before = noise(size, size + chunk), received.lent_bytes
    with serving(application(store, threads)) as running, running.connect() as sock:
        sock.sendall(chunked_head("Connection: close") + chunked(data, chunk))
        assert body_of(read_all(sock)).decode() == str(Digest.of(data))
    assert read(store, Digest.of(data)) == data
    lent = received.lent_bytes - before
    assert size - 2 * FIRST <= lent <= max(0, size - FIRST // 2)


def test_what_stands_behind_chunks_is_read_by_those_who_understand_it(store: Store, threads: Threads) -> None:
    """Trailers, chunks with extensions, and the next request, however much of it a thread has read."""
    blobs = [noise(700_000 + number, number) for number in range(4)]
    strange = b"10;of=strangers\r\n" + bytes(16) + b"\r\n0\r\nX-Sum: 1\r\n\r\n"
    bodies = [*blobs[:3], blobs[3] + bytes(16)]
    said = b"".join(
        [
            chunked_head() + chunked(blobs[0], 32 * KIB),
            chunked_head() + chunked(blobs[1], 700, b"0\r\nX-Sum: 1\r\n\r\n"),
            head(len(blobs[2])) + blobs[2],
            chunked_head("Connection: close") + chunked(blobs[3], 8 * KIB, strange),
        ]
    )
    with serving(application(store, threads)) as running, running.connect() as sock:
        sender = threading.Thread(target=sock.sendall, args=[said])
        sender.start()
        heard = read_all(sock)
        sender.join(PATIENCE_S)
    assert heard.count(b"HTTP/1.1 200") == len(bodies)
    places = [heard.find(str(Digest.of(body)).encode()) for body in bodies]
    assert places == sorted(places)
    assert places[0] > 0


@pytest.mark.parametrize("end", [b"5\r\nhelloXX", b"zzz\r\n", b"-1\r\n", b""])
def test_a_body_whose_chunks_break_off_or_are_none_is_refused(store: Store, threads: Threads, end: bytes) -> None:
    """A megabyte of good ones before it stays nowhere."""
    with serving(application(store, threads)) as running, running.connect() as sock:
        sock.sendall(chunked_head() + chunked(noise(MIB, 6), 32 * KIB, end))
        sock.shutdown(socket.SHUT_WR)
        assert not read_all(sock).startswith(b"HTTP/1.1 200")
    assert store.stats().blobs == 0


def test_a_body_in_chunks_is_limited_while_it_comes(store: Store, threads: Threads) -> None:
    """Nobody said how long it would be; its client sees the answer."""
    with serving(application(store, threads, limit_bytes=2 * MIB)) as running:
        for size in (2 * MIB, 2 * MIB + 1, 30 * MIB):
            data = noise(size, size)
            with running.connect() as sock:
                sender = threading.Thread(target=send_as_far_as_heard, args=[sock, chunked_head() + chunked(data, KIB)])
                sender.start()
                wanted = str(Digest.of(data)).encode() if size == 2 * MIB else b"larger"
                heard = more = sock.recv(4096)
                while more and wanted not in heard:
                    more = sock.recv(4096)
                    heard += more
                assert wanted in heard
            sender.join(PATIENCE_S)


def send_as_far_as_heard(sock: socket.socket, data: bytes) -> None:
    with suppress(OSError):
        sock.sendall(data)


def test_slow_clients_of_chunks_hold_no_thread(store: Store, one_thread: Threads) -> None:
    """Ten bodies stop in the middle of a chunk or of its header; an eleventh passes; then they go on, byte by byte."""
    slow = [noise(300_000, number) for number in range(10)]
    with serving(application(store, one_thread)) as running:
        socks = [running.connect() for _ in slow]
        bodies = [chunked(data, 32 * KIB) for data in slow]
        stops = [200_000, 196_663, *range(196_650, 196_658)]
        for sock, body, stop in zip(socks, bodies, stops, strict=True):
            sock.sendall(chunked_head("Connection: close") + body[:stop])
        quick = noise(2 * MIB, 99)
        assert put(running, quick).decode() == str(Digest.of(quick))
        for sock, body, stop, data in zip(socks, bodies, stops, slow, strict=True):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for at in range(stop, stop + 20):
                sock.sendall(body[at : at + 1])
            sock.sendall(body[stop + 20 :])
            assert body_of(read_all(sock)).decode() == str(Digest.of(data))


def test_a_client_of_chunks_that_stalls_is_dropped(store: Store, threads: Threads) -> None:
    """After stall_s without a byte; nothing of it stays."""
    with serving(application(store, threads), HttpSettings(stall_s=0.1)) as running, running.connect() as sock:
        sock.sendall(chunked_head() + chunked(noise(400_000, 3), 32 * KIB, b"8000\r\nabc"))
        assert not read_all(sock).startswith(b"HTTP/1.1 200")
    assert store.stats().blobs == 0


def lent(left: int, stall_s: float, work: Callable[[Loan, socket.socket], Awaitable[None]]) -> list[Loan]:
    """Lend one end of a connection; give what was told at its end."""
    told = list[Loan]()

    async def ended(loan: Loan) -> None:
        told.append(loan)

    async def main(near: Any, far: socket.socket) -> None:
        loan = Loan(near, left, stall_s, ended)
        try:
            await work(loan, far)
        finally:
            await loan.close()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        far = socket.create_connection(listening.getsockname(), timeout=PATIENCE_S)
        near, _ = listening.accept()
    near.setblocking(False)
    with closing(near), closing(far):
        asyncio.run(asyncio.wait_for(main(near, far), PATIENCE_S))
        assert near.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1, "the next head would wait for more"
        assert near.fileno() >= 0
    return told


def test_a_sender_is_not_stalled_while_something_comes() -> None:
    """Far too little to wake anybody for, and yet more each time somebody looks."""

    async def work(loan: Loan, far: socket.socket) -> None:
        loop, sent = asyncio.get_running_loop(), 0

        def send() -> None:
            nonlocal sent
            sent += 1
            far.sendall(b"x")
            if sent < 20:
                loop.call_later(0.02, send)
            else:
                far.sendall(bytes(100_000))

        loop.call_later(0.001, send)
        await loan.wait(100_000)
        assert (sent, loan.is_stalled) == (20, False)

    lent(1 << 20, 0.1, work)


def test_a_read_takes_what_is_there_and_no_more_than_the_body() -> None:
    """Less than a block from a slow client, after a few milliseconds; nothing at the end, which it tells of."""

    async def work(loan: Loan, far: socket.socket) -> None:
        far.sendall(b"abcdef")
        await loan.wait(6)
        memory = bytearray(100)
        assert await asyncio.to_thread(loan.read, memoryview(memory)[:4]) == 4
        assert await asyncio.to_thread(loan.read, memoryview(memory)[4:]) == 1
        assert (bytes(memory[:5]), loan.left, loan.is_over) == (b"abcde", 0, False)

    assert [loan.left for loan in lent(5, PATIENCE_S, work)] == [0]

    async def cut_off(loan: Loan, far: socket.socket) -> None:
        far.sendall(b"abc")
        far.shutdown(socket.SHUT_WR)
        await loan.wait(100)
        assert await asyncio.to_thread(loan.read, memoryview(bytearray(100))) == 3
        assert (loan.left, loan.is_over, loan.is_stalled) == (97, True, False)

    lent(100, PATIENCE_S, cut_off)


def test_a_client_that_trickles_gets_no_thread_for_each_drop() -> None:
    """Once a read fell short, the loop waits for a whole block, whatever little is there."""

    async def work(loan: Loan, far: socket.socket) -> None:
        far.sendall(b"a")
        await loan.wait(1000)
        assert await asyncio.to_thread(loan.read, memoryview(bytearray(100))) == 1
        far.sendall(b"b")
        waiting = asyncio.ensure_future(loan.wait(1000))
        done, _ = await asyncio.wait([waiting], timeout=0.05)
        assert not done
        far.sendall(bytes(999))
        await waiting
        assert await asyncio.to_thread(loan.read, memoryview(bytearray(1000))) == 1000

    lent(1 << 20, PATIENCE_S, work)


def test_no_thread_waits_for_a_client_that_sends_nothing() -> None:
    """A read of nothing is over at once, as far as people can tell."""

    async def work(loan: Loan, _: socket.socket) -> None:
        done = threading.Event()

        def look() -> None:
            assert loan.read(memoryview(bytearray(10))) == 0
            done.set()

        await asyncio.to_thread(look)
        assert done.is_set()
        assert not loan.is_over

    lent(10, PATIENCE_S, work)
