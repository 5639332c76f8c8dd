"""A real listener for tests: `api.server.serve` in a thread of its own, on a port of its own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from starlette.types import ASGIApp, Receive, Scope, Send

from api.access_log import AccessLog
from api.config import HttpSettings
from api.counts import Counts
from api.evenly import Burden
from api.server import NewestContext, serve

NOW = 1_795_437_699.0
PATIENCE_S = 30.0  # how long a test waits for what must happen before it calls that a failure


@dataclass
class Clock:
    """The registry's time, as far as a test moves it."""

    now: float = NOW

    def __call__(self) -> float:
        return self.now


@dataclass
class Running:
    """A server that answers at `address` until `stop()`."""

    address: tuple[str, int]
    loop: asyncio.AbstractEventLoop
    stopping: asyncio.Event
    thread: threading.Thread
    failures: list[BaseException] = field(default_factory=list)

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=PATIENCE_S)

    def begin_stop(self) -> None:
        with contextlib.suppress(RuntimeError):  # it stopped by itself just now
            self.loop.call_soon_threadsafe(self.stopping.set)

    def stop(self) -> None:
        if self.thread.is_alive():
            self.begin_stop()
            self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive(), "the server does not end"
        assert not self.failures, self.failures


@contextlib.contextmanager
def serving(
    app: ASGIApp,
    settings: HttpSettings | None = None,
    tls: ssl.SSLContext | NewestContext | None = None,
    sock: socket.socket | None = None,
    moment: Callable[[], int | None] = lambda: None,
    *,
    access: AccessLog | None = None,
    counts: Counts | None = None,
    burden: Burden | None = None,
) -> Iterator[Running]:
    """Serve an application; at the end nothing of the server is left but the threads of its application."""
    sock = sock or socket.create_server(("127.0.0.1", 0))
    ready = threading.Event()
    running: list[Running] = []
    failures: list[BaseException] = []

    async def main() -> None:
        stop = asyncio.Event()
        address = sock.getsockname()[:2]
        running.append(Running(address, asyncio.get_running_loop(), stop, threading.current_thread(), failures))
        newest = (lambda: tls) if isinstance(tls, ssl.SSLContext) else tls
        await serve(
            app,
            [sock],
            settings or HttpSettings(),
            stop=stop,
            on_ready=ready.set,
            tls=newest,
            moment=moment,
            access=access,
            counts=counts,
            burden=burden,
        )
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"tasks left behind: {left}"

    def work() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:  # noqa: BLE001 - it is raised in the test's own thread
            failures.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=work, name="server")
    thread.start()
    assert ready.wait(PATIENCE_S)
    if failures:
        raise failures[0]
    try:
        yield running[0]
    finally:
        running[0].stop()


def open_descriptors() -> set[str]:
    """Name what every descriptor of this process is, to compare before and after."""
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add(f"{link.name} {link.readlink()}")
    return found


def read_all(sock: socket.socket) -> bytes:
    """Read until the peer ends."""
    with contextlib.closing(sock):
        return b"".join(iter(lambda: sock.recv(1 << 20), b""))


@final
class Waiting:
    """An application that answers nobody, and waits until its client is gone."""

    def __init__(self) -> None:
        self.came, self.ended = threading.Event(), threading.Event()

    async def __call__(self, scope: Scope, receive: Receive, _: Send) -> None:
        if scope["type"] == "http":
            self.came.set()
            while (await receive())["type"] != "http.disconnect":
                pass
            self.ended.set()


def reset(sock: socket.socket) -> None:
    """Leave at once, with no farewell: the other side's next step on the connection fails."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def push_and_be_torn_away(running: Running, waiting: Waiting, target: str) -> None:
    """Send the beginning of a body to such an application, and leave by a reset."""
    sock = running.connect()
    sock.sendall(f"PUT {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab".encode())
    assert waiting.came.wait(PATIENCE_S)
    reset(sock)
    assert waiting.ended.wait(PATIENCE_S)


def ask(running: Running, text: str) -> bytes:
    """Send one request, which should end the connection, and read the whole answer."""
    sock = running.connect()
    sock.sendall(text.replace("\n", "\r\n").encode() + b"\r\n\r\n")
    return read_all(sock)


def body_of(answer: bytes) -> bytes:
    """Return what follows an answer's head."""
    return answer.partition(b"\r\n\r\n")[2]


async def answer(send: Send, body: bytes, status: int = 200) -> None:
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def count(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the size and the sum of the body, or with 499 if it broke off."""
    if scope["type"] != "http":
        return
    size = total = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            await answer(send, b"broke off", 499)
            return
        size += len(message["body"])
        total += sum(message["body"])
        if not message["more_body"]:
            break
    await answer(send, f"{size} {total}".encode())
