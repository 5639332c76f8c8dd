"""The load driver: clients that cost little of the cores they share with the server.

Knows sockets and the framing of HTTP/1.1, and nothing of registries. A client is a thread with one connection, and
takes its next job when the last one is answered. A body that nobody looks at is thrown away inside the kernel
(`MSG_TRUNC` copies nothing); a body that is sent goes from a file on a tmpfs by `sendfile`, except over TLS.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Self

MIB = 1 << 20
_TIMEOUT_S = 300.0
_HEAD_BYTES = 16_384


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens, and whether it speaks TLS there."""

    port: int
    tls: ssl.SSLContext | None = None
    host: str = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Slice:
    """Bytes of a file that a request sends."""

    file: Path
    size: int
    start: int = 0


@dataclass(frozen=True, slots=True)
class Made:
    """Bytes that are made while they are sent."""

    size: int
    blocks: Iterator[bytes]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: `body` is empty unless it was to be kept, `size` is how long it was."""

    status: int
    head: bytes
    size: int
    body: bytes = b""

    def header(self, name: str) -> str | None:
        for line in self.head.split(b"\r\n")[1:]:
            key, _, value = line.partition(b":")
            if key.strip().lower() == name.encode().lower():
                return value.strip().decode()
        return None


class Connection:
    """One connection, kept alive, and made anew when the server ends it after an answer."""

    def __init__(self, address: Address) -> None:
        self._address, self._tls = address, address.tls is not None
        self._socket = _connected(address)
        self._host = f"{address.host}:{address.port}"
        self._buffer = bytearray(MIB)

    def ask(
        self, method: str, target: str, content: bytes | Slice | Made = b"", *, keep: bool = False, **headers: str
    ) -> Answer:
        """Make one request and take its whole answer."""
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self._host}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        size = len(content) if isinstance(content, bytes) else content.size
        if size or method not in ("GET", "HEAD"):
            lines.append(f"Content-Length: {size}")
        head = "\r\n".join([*lines, "", ""]).encode()
        if isinstance(content, bytes):
            self._socket.sendall(head + content)
        else:
            self._socket.sendall(head, *self._more())
            self._send(content)
        return self._answer(has_body=method != "HEAD", keep=keep)

    def ask_in_chunks(self, method: str, target: str, content: Slice, chunk_bytes: int) -> Answer:
        """Send a body of a length nobody told, as engines do."""
        head = f"{method} {target} HTTP/1.1\r\nHost: {self._host}\r\nTransfer-Encoding: chunked\r\n"
        self._socket.sendall(head.encode() + b"Content-Type: application/octet-stream\r\n\r\n")
        with content.file.open("rb", buffering=0) as file:
            end = b""
            for at in range(0, content.size, chunk_bytes):
                size = min(chunk_bytes, content.size - at)
                self._socket.sendall(end + b"%x\r\n" % size, *self._more())
                self._send_from(file, content.start + at, size)
                end = b"\r\n"
        self._socket.sendall(end + b"0\r\n\r\n")
        return self._answer(has_body=True, keep=False)

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _more(self) -> tuple[int, ...]:
        return () if self._tls else (socket.MSG_MORE,)

    def _send(self, content: Slice | Made) -> None:
        if isinstance(content, Made):
            for block in content.blocks:
                self._socket.sendall(block)
            return
        with content.file.open("rb", buffering=0) as file:
            self._send_from(file, content.start, content.size)

    def _send_from(self, file: FileIO, at: int, size: int) -> None:
        end = at + size
        if self._tls:
            file.seek(at)
            while at < end:
                block = file.read(min(MIB, end - at))
                self._socket.sendall(block)
                at += len(block)
        while at < end:
            try:
                sent = os.sendfile(self._socket.fileno(), file.fileno(), at, end - at)
                assert sent, f"{file.name} ends before byte {end}"
                at += sent
            except BlockingIOError:  # a socket with a timeout does not block
                _writable(self._socket)

    def _answer(self, *, has_body: bool, keep: bool) -> Answer:
        held = b""
        while (end := held.find(b"\r\n\r\n")) < 0:
            piece = self._socket.recv(_HEAD_BYTES)
            assert piece, f"the server hung up: {held!r}"
            held += piece
        head, rest = held[:end], held[end + 4 :]
        found = Answer(int(head[9:12]), head, 0)
        size = int(found.header("content-length") or 0) if has_body else 0
        assert not has_body or b"chunked" not in head.lower(), "answers of unknown length are not driven"
        body = self._keep(rest, size) if keep else self._drain(size - len(rest))
        if b"onnection: close" in head:  # with either c; after so many requests ours does
            self._socket.close()
            self._socket = _connected(self._address)
        return Answer(found.status, head, size, body)

    def _drain(self, left: int) -> bytes:
        flags = 0 if self._tls else socket.MSG_TRUNC
        while left:
            got = self._socket.recv_into(self._buffer, min(left, MIB), flags)
            assert got, f"cut off, {left} bytes were still to come"
            left -= got
        return b""

    def _keep(self, rest: bytes, size: int) -> bytes:
        body = bytearray(rest)
        while len(body) < size:
            piece = self._socket.recv(min(size - len(body), MIB))
            assert piece, f"cut off after {len(body)} bytes of {size}"
            body += piece
        return bytes(body)


def _connected(address: Address) -> socket.socket:
    plain = socket.create_connection((address.host, address.port), timeout=_TIMEOUT_S)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return address.tls.wrap_socket(plain, server_hostname=address.host) if address.tls else plain


Job = Callable[[Connection], int]
"""One piece of work on a connection; gives the bytes of content that it moved."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What one run of a load took."""

    wall_s: float
    moved_bytes: int
    seconds: tuple[float, ...]

    @property
    def mib_per_s(self) -> float:
        return self.moved_bytes / MIB / self.wall_s

    @property
    def jobs_per_s(self) -> float:
        return len(self.seconds) / self.wall_s


def drive(address: Address, clients: int, jobs: Iterable[Job]) -> Sample:
    """Let so many clients share the jobs; the time begins when all of them are connected."""
    waiting = iter(list(jobs))
    done: list[tuple[float, int]] = []
    failed: list[BaseException] = []
    ready = threading.Barrier(clients + 1)

    def client() -> None:
        try:
            with Connection(address) as connection:
                ready.wait(_TIMEOUT_S)
                done.extend(_work(connection, waiting))
        except BaseException as error:  # noqa: BLE001 - raised below, where somebody hears it
            failed.append(error)
            ready.abort()

    threads = [threading.Thread(target=client, daemon=True) for _ in range(clients)]
    for thread in threads:
        thread.start()
    with suppress(threading.BrokenBarrierError):  # why is in `failed`
        ready.wait(_TIMEOUT_S)
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    wall_s = time.perf_counter() - began
    if failed:
        raise failed[0]
    return Sample(wall_s, sum(moved for _, moved in done), tuple(seconds for seconds, _ in done))


def _work(connection: Connection, waiting: Iterator[Job]) -> list[tuple[float, int]]:
    done = []
    for job in waiting:  # next() of a list's iterator is one step of the interpreter, so clients may share it
        began = time.perf_counter()
        moved = job(connection)
        done.append((time.perf_counter() - began, moved))
    return done


def _writable(sock: socket.socket) -> None:
    assert select.select([], [sock], [], _TIMEOUT_S)[1], "the server takes nothing"
