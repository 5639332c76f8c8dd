"""Bodies that threads read from the connection themselves: the same bytes, and nobody held up by who is slow."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import pytest
from starlette.types import ASGIApp

from api import layer
from api.config import HttpSettings
from api.intake import received
from api.layer import Decrypted, Layer
from api.loan import Loan
from api.threads import Threads
from cas import Digest, Store
from tests.support.engine import KIB, MIB, noise, read
from tests.wire.blobs import application, self_signed, trusting
from tests.wire.harness import PATIENCE_S, Running, body_of, open_descriptors, read_all, serving

FIRST = 64 * KIB  # what the connection reads with a head


@pytest.fixture
def one_thread() -> Iterator[Threads]:
    pool = Threads(1)
    yield pool
    pool.close()


def head(size: int, *lines: str) -> bytes:
    return "\r\n".join(["PUT / HTTP/1.1", "Host: here", f"Content-Length: {size}", *lines, "", ""]).encode()


@dataclass
class Line:
    """How clients are connected."""

    tls: ssl.SSLContext | None

    @property
    def first(self) -> int:
        """Most bytes of a body that are read before any of it is lent."""
        return 2 * FIRST if self.tls is None else 5 * FIRST

    def serving(self, app: ASGIApp, settings: HttpSettings | None = None) -> AbstractContextManager[Running]:
        return serving(app, settings, tls=self.tls)

    def connect(self, running: Running) -> socket.socket:
        sock = running.connect()
        return sock if self.tls is None else trusting().wrap_socket(sock)


@pytest.fixture(params=["plain", "tls"])
def line(request: pytest.FixtureRequest, tmp_path: Path) -> Line:
    return Line(self_signed(tmp_path) if request.param == "tls" else None)


def no_more(sock: socket.socket) -> None:
    """End what a client sends, whether or not it is encrypted."""
    with closing(socket.socket(fileno=os.dup(sock.fileno()))) as wire:
        wire.shutdown(socket.SHUT_WR)


def hear_until(sock: socket.socket, wanted: bytes) -> None:
    """Read until something is said; what comes after it nobody reads."""
    heard = b""
    while wanted not in heard:
        heard += (more := sock.recv(4096))
        assert more, heard


def put(line: Line, running: Running, data: bytes) -> bytes:
    """Push a body on a connection of its own; give the answer's body."""
    with line.connect(running) as sock:
        sock.sendall(head(len(data), "Connection: close") + data)
        return body_of(read_all(sock))


@pytest.mark.parametrize("size", [FIRST, 2 * FIRST - 200, 2 * FIRST, MIB - 1, 5 * MIB + 1, 40 * MIB])
def test_a_body_of_known_length_is_read_by_threads(line: Line, store: Store, threads: Threads, size: int) -> None:
    """All of it that did not come with its head, and it is the same."""
    data, before = noise(size, size), received.lent_bytes
    with line.serving(application(store, threads)) as running:
        assert put(line, running, data).decode() == str(Digest.of(data))
    assert read(store, Digest.of(data)) == data
    lent = received.lent_bytes - before
    assert lent >= size - line.first
    assert lent == 0 or size > FIRST


def test_the_request_behind_a_body_is_its_own(line: Line, store: Store, threads: Threads) -> None:
    """Sent in one go with it, and after it: a thread reads to the body's end and no further."""
    blobs = [noise(300_000, number) for number in range(4)]
    with line.serving(application(store, threads)) as running, line.connect(running) as sock:
        sock.sendall(b"".join(head(len(blob)) + blob for blob in blobs[:2]))
        sock.sendall(head(len(blobs[2])) + blobs[2])
        sock.sendall(head(len(blobs[3]), "Connection: close") + blobs[3])
        said = read_all(sock)
    assert said.count(b"HTTP/1.1 200") == len(blobs)
    assert [said.find(str(Digest.of(blob)).encode()) > 0 for blob in blobs] == [True] * len(blobs)


def test_slow_clients_hold_no_thread(line: Line, store: Store, one_thread: Threads) -> None:
    """Ten bodies stop in the middle; the only thread there is serves an eleventh, and then the ten when they go on."""
    slow = [noise(700_000, number) for number in range(10)]
    with line.serving(application(store, one_thread)) as running:
        socks = [line.connect(running) for _ in slow]
        for sock, data in zip(socks, slow, strict=True):
            sock.sendall(head(len(data), "Connection: close") + data[:400_000])
        quick = noise(2 * MIB, 99)
        assert put(line, running, quick).decode() == str(Digest.of(quick))
        for sock, data in zip(socks, slow, strict=True):
            sock.sendall(data[400_000:])
            assert body_of(read_all(sock)).decode() == str(Digest.of(data))


def test_a_body_that_comes_a_little_at_a_time_is_whole(line: Line, store: Store, one_thread: Threads) -> None:
    """Bytes wait in the kernel until a block of them is there, or the last."""
    data = noise(3 * FIRST, 1)
    with line.serving(application(store, one_thread)) as running, line.connect(running) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(head(len(data), "Connection: close"))
        for start in range(0, len(data), 5000):
            sock.sendall(data[start : start + 5000])
        assert body_of(read_all(sock)).decode() == str(Digest.of(data))


@pytest.mark.parametrize("sent", [0, 1, 400_000])
def test_a_client_that_leaves_in_the_middle_leaves_nothing(
    line: Line, store: Store, threads: Threads, sent: int
) -> None:
    """And the server goes on; whatever ends the connection."""
    data = noise(MIB, 2)
    with line.serving(application(store, threads)) as running:
        for linger in (None, b"\1\0\0\0\0\0\0\0"):  # an orderly end, and a reset
            with line.connect(running) as sock:
                sock.sendall(head(len(data)) + data[:sent])
                if linger is not None:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        assert put(line, running, data).decode() == str(Digest.of(data))
    assert store.stats().blobs == 1


@pytest.mark.parametrize("sent", [0, 400_000])
def test_a_client_that_stalls_is_dropped(line: Line, store: Store, threads: Threads, sent: int) -> None:
    """After stall_s without a byte; nothing of it stays."""
    data = noise(MIB, 3)
    with (
        line.serving(application(store, threads), HttpSettings(stall_s=0.1)) as running,
        line.connect(running) as sock,
        suppress(ConnectionError),  # dropped while we were still sending, if we were slow
    ):
        sock.sendall(head(len(data)) + data[:sent])
        assert not read_all(sock).startswith(b"HTTP/1.1 200")
    assert store.stats().blobs == 0


def test_a_body_is_invited_before_it_is_waited_for(line: Line, store: Store, threads: Threads) -> None:
    """Whoever asked first whether to send hears `100 Continue`, once."""
    data = noise(MIB, 4)
    with line.serving(application(store, threads)) as running, line.connect(running) as sock:
        sock.sendall(head(len(data), "Expect: 100-continue", "Connection: close"))
        assert sock.recv(1000).startswith(b"HTTP/1.1 100 ")
        sock.sendall(data)
        said = read_all(sock)
    assert said.startswith(b"HTTP/1.1 200 ")
    assert body_of(said).decode() == str(Digest.of(data))


def test_a_body_over_the_limit_is_refused_and_not_read(line: Line, store: Store, threads: Threads) -> None:
    """Announced, so nobody reads it; its client sees the answer all the same."""
    settings = HttpSettings(linger_s=PATIENCE_S)  # for as long whoever cannot be told the end is heard out
    with line.serving(application(store, threads, limit_bytes=MIB), settings) as running:
        with line.connect(running) as sock:
            sock.sendall(head(MIB + 1) + bytes(MIB + 1))
            hear_until(sock, b"larger")
        assert put(line, running, bytes(MIB)).decode() == str(Digest.of(bytes(MIB)))


def chunked(data: bytes, size: int, end: bytes = b"0\r\n\r\n") -> bytes:
    """Write a body in chunks of a size."""
    pieces = (data[at : at + size] for at in range(0, len(data), size))
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + end


def chunked_head(*lines: str) -> bytes:
    return "\r\n".join(["PUT / HTTP/1.1", "Host: here", "Transfer-Encoding: chunked", *lines, "", ""]).encode()


@pytest.mark.parametrize("chunk", [1000, 32 * KIB, 5 * MIB + 7])
@pytest.mark.parametrize("size", [1, FIRST, 2 * FIRST, MIB, 20 * MIB + 1])
def test_a_large_body_in_chunks_is_read_by_threads_too(
    line: Line, store: Store, threads: Threads, size: int, chunk: int
) -> None:
    """Once more than a little has come of it, and it is the same."""
    data, before = noise(size, size + chunk), received.lent_bytes
    with line.serving(application(store, threads)) as running, line.connect(running) as sock:
        sock.sendall(chunked_head("Connection: close") + chunked(data, chunk))
        assert body_of(read_all(sock)).decode() == str(Digest.of(data))
    assert read(store, Digest.of(data)) == data
    lent = received.lent_bytes - before
    assert size - line.first <= lent <= max(0, size - FIRST // 2)


def test_what_stands_behind_chunks_is_read_by_those_who_understand_it(
    line: Line, store: Store, threads: Threads
) -> None:
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
    with line.serving(application(store, threads)) as running, line.connect(running) as sock:
        sock.sendall(said)  # what is answered meanwhile is little
        heard = read_all(sock)
    assert heard.count(b"HTTP/1.1 200") == len(bodies)
    places = [heard.find(str(Digest.of(body)).encode()) for body in bodies]
    assert places == sorted(places)
    assert places[0] > 0


@pytest.mark.parametrize("end", [b"5\r\nhelloXX", b"zzz\r\n", b"-1\r\n", b""])
def test_a_body_whose_chunks_break_off_or_are_none_is_refused(
    line: Line, store: Store, threads: Threads, end: bytes
) -> None:
    """A megabyte of good ones before it stays nowhere."""
    with line.serving(application(store, threads)) as running, line.connect(running) as sock:
        sock.sendall(chunked_head() + chunked(noise(MIB, 6), 32 * KIB, end))
        no_more(sock)
        assert not read_all(sock).startswith(b"HTTP/1.1 200")
    assert store.stats().blobs == 0


def test_a_body_in_chunks_is_limited_while_it_comes(store: Store, threads: Threads) -> None:
    """Nobody said how long it would be; its client sees the answer."""
    line = Line(None)  # of one that is encrypted Python cannot write and read at the same time
    with line.serving(application(store, threads, limit_bytes=2 * MIB)) as running:
        for size in (2 * MIB, 2 * MIB + 1, 30 * MIB):
            data = noise(size, size)
            with line.connect(running) as sock:
                sender = threading.Thread(target=send_as_far_as_heard, args=[sock, chunked_head() + chunked(data, KIB)])
                sender.start()
                wanted = str(Digest.of(data)).encode() if size == 2 * MIB else b"larger"
                hear_until(sock, wanted)
            sender.join(PATIENCE_S)


def send_as_far_as_heard(sock: socket.socket, data: bytes) -> None:
    with suppress(OSError):
        sock.sendall(data)


def test_slow_clients_of_chunks_hold_no_thread(line: Line, store: Store, one_thread: Threads) -> None:
    """Ten bodies stop in the middle of a chunk or of its header; an eleventh passes; then they go on, byte by byte."""
    slow = [noise(300_000, number) for number in range(10)]
    with line.serving(application(store, one_thread)) as running:
        socks = [line.connect(running) for _ in slow]
        bodies = [chunked(data, 32 * KIB) for data in slow]
        stops = [200_000, 196_663, *range(196_650, 196_658)]
        for sock, body, stop in zip(socks, bodies, stops, strict=True):
            sock.sendall(chunked_head("Connection: close") + body[:stop])
        quick = noise(2 * MIB, 99)
        assert put(line, running, quick).decode() == str(Digest.of(quick))
        for sock, body, stop, data in zip(socks, bodies, stops, slow, strict=True):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for at in range(stop, stop + 20):
                sock.sendall(body[at : at + 1])
            sock.sendall(body[stop + 20 :])
            assert body_of(read_all(sock)).decode() == str(Digest.of(data))


def test_a_client_of_chunks_that_stalls_is_dropped(line: Line, store: Store, threads: Threads) -> None:
    """After stall_s without a byte; nothing of it stays."""
    with (
        line.serving(application(store, threads), HttpSettings(stall_s=0.1)) as running,
        line.connect(running) as sock,
        suppress(ConnectionError),  # dropped while we were still sending, if we were slow
    ):
        sock.sendall(chunked_head() + chunked(noise(400_000, 3), 32 * KIB, b"8000\r\nabc"))
        assert not read_all(sock).startswith(b"HTTP/1.1 200")
    assert store.stats().blobs == 0


class Records:
    """A client that speaks TLS and decides by itself when each byte goes out."""

    def __init__(self, running: Running) -> None:
        self.sock, self._in, self._out = running.connect(), ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = trusting().wrap_bio(self._in, self._out, server_hostname="localhost")
        self._until_done(self._tls.do_handshake)

    def _until_done(self, step: Callable[[], Any]) -> Any:
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                self.sock.sendall(self._out.read())
                self._in.write(self.sock.recv(65_536))
            finally:
                self.sock.sendall(self._out.read())

    def encrypted(self, data: bytes) -> bytes:
        self._tls.write(data)
        return self._out.read()

    def hear(self) -> bytes:
        return bytes(self._until_done(lambda: self._tls.read(4096)))


@pytest.mark.parametrize("missing", [1, 5, 21, 400, 16_400, 16_406, 16_500, 40_000])
def test_a_record_that_comes_in_parts_is_waited_for_and_no_longer(
    store: Store, one_thread: Threads, tls: ssl.SSLContext, missing: int
) -> None:
    """Its beginning is inside already when its end is waited for, so that less is to come than of the body is left."""
    line, data, quick = Line(tls), noise(700_000, missing), noise(MIB, 99)
    with line.serving(application(store, one_thread)) as running:
        slow = Records(running)
        with slow.sock:
            said = slow.encrypted(head(len(data)) + data)
            slow.sock.sendall(said[:-missing])
            assert put(line, running, quick).decode() == str(Digest.of(quick))  # by the thread that read the other one
            slow.sock.sendall(said[-missing:])
            assert body_of(slow.hear()).decode() == str(Digest.of(data))


def test_a_client_that_says_farewell_in_the_middle_leaves_nothing(
    store: Store, threads: Threads, tls: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    """By TLS alone: the connection as such is still there."""
    data = noise(MIB, 2)
    with Line(tls).serving(application(store, threads)) as running, Line(tls).connect(running) as sock:
        assert isinstance(sock, ssl.SSLSocket)
        sock.sendall(head(len(data)) + data[:600_000])
        with suppress(OSError):
            sock.unwrap()
        assert put(Line(tls), running, data).decode() == str(Digest.of(data))
    assert store.stats().blobs == 1
    assert not caplog.records


def test_what_is_no_tls_ends_a_body(store: Store, threads: Threads, tls: ssl.SSLContext) -> None:
    """A record that was not made with the connection's key, in the middle of what a thread reads."""
    data = noise(MIB, 2)
    with Line(tls).serving(application(store, threads)) as running:
        broken = Records(running)
        with broken.sock:
            said = bytearray(broken.encrypted(head(len(data)) + data))
            said[700_000] ^= 1
            broken.sock.sendall(said)
            with suppress(OSError):
                assert b"200 OK" not in broken.hear()
        assert put(Line(tls), running, data).decode() == str(Digest.of(data))
    assert store.stats().blobs == 1


def test_a_server_that_stops_cuts_a_connection_that_is_lent_once_its_thread_is_done(
    store: Store, threads: Threads, line: Line
) -> None:
    """OpenSSL's objects are for one thread at a time."""
    data, before = noise(MIB, 7), received.lent_bytes
    with line.serving(application(store, threads), HttpSettings(grace_s=0.01)) as running:
        socks = [line.connect(running) for _ in range(8)]
        for sock in socks:
            sock.sendall(head(len(data)) + data[:-1])
        assert put(line, running, data).decode() == str(Digest.of(data))
        running.begin_stop()
        for sock in socks:
            with suppress(OSError):
                assert not read_all(sock)
    assert received.lent_bytes > before
    assert store.stats().blobs == 1


@pytest.mark.parametrize("why", ["Transfer-Encoding: chunked", f"X: {'x' * 4000}"], ids=["two-lengths", "large-head"])
def test_a_refused_body_over_tls_leaves_no_connection_behind(
    store: Store, threads: Threads, tls: ssl.SSLContext, why: str
) -> None:
    """However much of it came with its head, which nobody wanted."""
    line, before = Line(tls), open_descriptors()
    settings = HttpSettings(linger_s=0.3, grace_s=2 * PATIENCE_S, max_header_bytes=3000)
    with line.serving(application(store, threads), settings) as running:
        for number in range(20):
            client = Records(running)
            with client.sock, suppress(ConnectionError):  # if we are so slow that it hangs up before we heard it
                client.sock.sendall(client.encrypted(head(MIB, why) + chunked(bytes(150_000 + 60_000 * number), 5000)))
                assert client.hear().startswith(b"HTTP/1.1 4")
    assert open_descriptors() <= before


def test_a_connection_that_cannot_be_lent_for_lack_of_descriptors_is_answered(
    line: Line, store: Store, threads: Threads, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And goes on, once there are some again."""
    dup, data = os.dup, noise(MIB, 8)

    def none_left(_: int) -> int:
        monkeypatch.setattr(os, "dup", dup)
        raise OSError(errno.EMFILE, "Too many open files")

    with line.serving(application(store, threads), HttpSettings(linger_s=PATIENCE_S)) as running:
        with line.connect(running) as sock:
            monkeypatch.setattr(os, "dup", none_left)
            sock.sendall(head(len(data)) + data)
            hear_until(sock, b"HTTP/1.1 500 ")
        assert put(line, running, data).decode() == str(Digest.of(data))
    assert "Too many open files" in caplog.text


def test_what_is_only_about_tls_holds_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys may be changed for ever; nothing of a body comes by that."""

    class Silent:
        def read(self, _count: int, _into: memoryview) -> int:
            raise ssl.SSLWantReadError

    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        far.sendall(bytes(50_000))
        monkeypatch.setattr(layer, "_TAKEN_BYTES", 1000)
        source = Decrypted(cast("ssl.SSLObject", Silent()), ssl.MemoryBIO())
        with pytest.raises(BlockingIOError):
            source.read(near, memoryview(bytearray(100)))
        assert source.is_dry
        assert near.recv(1, socket.MSG_PEEK), "it was read to the end"


def test_nobody_writes_to_a_connection_that_encrypts_while_it_is_lent() -> None:
    """Nor closes it: whoever reads is told, and then it is."""

    async def main() -> None:
        ended = asyncio.Event()

        async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            ours = Layer(writer.transport)
            source = await ours.lend()
            assert source is not None
            assert ours.is_lent
            assert await ours.lend() is None
            ours.cut()
            assert not writer.transport.is_closing()
            near = writer.get_extra_info("socket")
            with closing(socket.socket(fileno=os.dup(near.fileno()))) as sock:
                assert await asyncio.to_thread(source.read, sock, memoryview(bytearray(100))) == 0
            ours.take_back()
            assert writer.transport.is_closing()
            ended.set()

        with TemporaryDirectory() as folder:
            server = await asyncio.start_server(served, "127.0.0.1", 0, ssl=self_signed(Path(folder)))
        async with server:
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname(), ssl=trusting())
            await asyncio.wait_for(ended.wait(), PATIENCE_S)
            writer.close()

    asyncio.run(main())


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
