"""Bytes of a file to a plain HTTP/1.1 connection by `sendfile(2)`, never through Python (I6).

Offers the ASGI extension `http.response.zerocopysend` to the application, frames such a body with h11, and
moves it. Knows sockets and Hypercorn's stream classes. Refuses to know blobs, routes and when
a connection ends: `api/connection.py` decides that.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Final, Protocol, cast, final

from hypercorn.events import Event
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.http_stream import ASGIHTTPState
from hypercorn.typing import (
    AppWrapper,
    ASGIReceiveCallable,
    ASGIReceiveEvent,
    ASGISendCallable,
    ASGISendEvent,
    Scope,
)
from hypercorn.utils import suppress_body

from api.config import KIB, HttpSettings
from api.flow import flow, wait_writable
from api.outlet import EXTENSION as LOAN
from api.outlet import LentBody, LentData, Outlet, ShortFile
from api.page_cache import Pages, read_far_ahead
from api.refusals import AnsweredStream
from api.threads import Threads
from cas import FileRange

EXTENSION: Final = "http.response.zerocopysend"

# Tells a client that asked (`Expect: 100-continue`) to go on; may be called again and again.
Invite = Callable[[], Awaitable[None]]

# How many times as much is given at once while nobody else is answered: to one connection, to all in a round of theirs.
_MOST_TIMES: Final = 4
_MOST_TIMES_IN_ALL: Final = 8
# From here on what is written is held back until it fills segments: of less, the two calls gain nothing.
_CORKED_BYTES: Final = 256 * KIB


@dataclass(slots=True)
class Sent:
    """Work this process has done so far, counted, so that tests and benchmarks need no clock."""

    sendfile_bytes: int = 0
    sendfile_calls: int = 0
    cold_calls: int = 0  # calls made in a thread because they might have waited for a disk
    body_bytes: int = 0  # bytes of HTTP/1.1 answers that did pass through Python
    writes: int = 0  # pieces of heads and bodies handed to a connection
    repeats: int = 0  # answers given again


sent: Final = Sent()


@dataclass(frozen=True)
class FileBody(StreamEvent):
    """A piece of an answer's body that lies in a file."""

    fd: int
    offset: int
    count: int


@dataclass(frozen=True)
class FileData(Event):
    """Bytes of a file that go to the connection as they are, and with them what comes before."""

    fd: int
    offset: int
    count: int
    before: bytes = b""


@final
class Placeholder:
    """Stands for bytes that h11 must count but not see."""

    __slots__ = ("_count",)

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count


class FileStream(AnsweredStream):
    """Hypercorn's request and response, with files as bodies where the connection can send them."""

    def __init__(self, app: AppWrapper, *args: Any, extensions: Mapping[str, Any], invite: Invite) -> None:
        super().__init__(_prepared(app, extensions, invite), *args)

    async def app_send(self, message: ASGISendEvent | dict[str, Any] | None) -> None:
        if message is None or message["type"] not in _BODIES:
            await super().app_send(cast("ASGISendEvent | None", message))
        elif self.state is not ASGIHTTPState.RESPONSE:
            raise RuntimeError(f"{message['type']} came outside of a response body.")
        else:
            await self._send_body(cast("dict[str, Any]", message))

    async def _send_body(self, message: dict[str, Any]) -> None:
        if not suppress_body(self.scope["method"], int(self.response["status"])):
            event = _BODIES[message["type"]](self.stream_id, message)
            if event.count:
                await self.send(event)
        if not message.get("more_body", False):
            await self._send_closed()


def _prepared(app: AppWrapper, extensions: Mapping[str, Any], invite: Invite) -> AppWrapper:
    """Wrap an application: its scope tells of the extensions, and its first receive() invites the body."""

    async def wrapped(
        scope: Scope,
        receive: ASGIReceiveCallable,
        send: ASGISendCallable,
        sync_spawn: Callable[..., Any],
        call_soon: Callable[..., Any],
    ) -> None:
        async def invited() -> ASGIReceiveEvent:
            await invite()
            return await receive()

        cast("dict[str, Any]", scope)["extensions"].update(extensions)
        await app(scope, invited, send, sync_spawn, call_soon)

    return wrapped


def file_body(stream_id: int, message: dict[str, Any]) -> FileBody:
    """Read an extension message; what it leaves out is where the file stands and what is left of it."""
    file = message["file"]
    fd = file if isinstance(file, int) else file.fileno()
    offset, count = message.get("offset"), message.get("count")
    if offset is None:
        offset = os.lseek(fd, 0, os.SEEK_CUR)
    if count is None:
        count = max(0, os.fstat(fd).st_size - offset)
    return FileBody(stream_id, fd, offset, count)


def _lent_body(stream_id: int, message: dict[str, Any]) -> LentBody:
    return LentBody(stream_id, message["count"], message["write"])


_BODIES: Final[Mapping[str, Callable[[int, dict[str, Any]], FileBody | LentBody]]] = {
    EXTENSION: file_body,
    LOAN: _lent_body,
}


@final
class FileSender:
    """Moves ranges of files, and long pieces of memory, to one connection. One at a time; the caller sees to that.

    Attributes:
        moved_bytes: of files, and what applications wrote by themselves, so far.
    """

    def __init__(self, transport: asyncio.WriteTransport, settings: HttpSettings, cold: Threads) -> None:
        self._transport, self._settings, self._cold = transport, settings, cold
        self._at_once = 0  # bytes sent since the other connections had their turn
        self.moved_bytes = 0

    async def send(self, data: FileData) -> None:
        """Send what comes before the range, and the range whole, or raise OSError, ShortFile or Stalled."""
        if self._at_once >= self._settings.send_bytes:
            await asyncio.sleep(0)
            self._at_once = 0
        self._at_once += data.count
        with self._outlet() as out:
            await self._say(out, data.before)
            await self._send_range(out, FileRange(data.fd, data.offset, data.count))

    async def _send_range(self, out: socket.socket, place: FileRange) -> None:
        file = _Range(place.fd, place.offset, place.offset + place.count, self._settings)
        _Range.active += 1
        try:
            while file.is_left:
                await self._flow(out, file)
                if file.is_left:  # and cold
                    await self._send_cold(out, file)
        finally:
            _Range.active -= 1
            self.moved_bytes += file.offset - place.offset

    async def lend(self, data: LentData) -> None:
        """Send what comes before, and have the application write the rest; raise what that raises."""
        with self._outlet() as out, _corked(out, data.count):
            await self._say(out, data.before)
            outlet, before = Outlet(out, self._settings.stall_s, partial(self._send_range, out)), self.moved_bytes
            try:
                await data.write(outlet)
            finally:
                self.moved_bytes += outlet.memory_bytes + outlet.file_bytes
                sent.body_bytes += outlet.memory_bytes
                sent.sendfile_bytes += outlet.file_bytes
                sent.sendfile_calls += outlet.file_calls
        if (wrote := self.moved_bytes - before) != data.count:
            raise OSError(f"An application wrote {wrote} bytes instead of {data.count}.")

    async def send_bytes(self, data: bytes) -> None:
        """Send all of it, or raise OSError or Stalled. A transport would copy what the socket does not take at once."""
        with self._outlet() as out:
            await self._flow(out, _Memory(data))

    def _outlet(self) -> socket.socket:
        # A duplicate: the loop lets nobody else watch its transport's descriptor, and a thread that is still
        # in sendfile() when the transport closes must not find the number given to another connection.
        sock = self._transport.get_extra_info("socket")
        if sock.fileno() < 0:
            raise ConnectionResetError("The client was gone before anything could be sent.")
        return socket.socket(sock.family, sock.type, sock.proto, fileno=os.dup(sock.fileno()))

    async def _say(self, out: socket.socket, before: bytes) -> None:
        if before:
            sent.writes += 1
            await self._flow(out, _Memory(before, socket.MSG_MORE))

    async def _flow(self, out: socket.socket, source: _Source) -> None:
        await flow(out.fileno(), self._settings.stall_s, lambda: source.send(out))

    async def _send_cold(self, out: socket.socket, file: _Range) -> None:
        sent.cold_calls += 1
        try:
            is_more = await self._cold.run(file.send_cold, out)
        except BlockingIOError:
            is_more = True
        if is_more:
            await wait_writable(out.fileno(), self._settings.stall_s)


@contextmanager
def _corked(out: socket.socket, count: int) -> Iterator[None]:
    """Let only full segments out while much is written, and at the end the rest."""
    if count < _CORKED_BYTES:
        yield
        return
    cork(out, is_in=True)
    try:
        yield
    finally:
        cork(out, is_in=False)


def cork(out: socket.socket, *, is_in: bool) -> None:
    """Hold back what fills no segment, or let it out: else its reader is woken for the end of every piece."""
    with suppress(OSError):  # it is gone, as whoever writes to it will hear
        out.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, is_in)


class _Source(Protocol):
    """What is sent a step at a time."""

    def send(self, out: socket.socket, /) -> bool:
        """Send what the socket takes now; tell whether to come again when it takes more."""


@final
class _Memory:
    """What is left of a piece of memory."""

    def __init__(self, data: bytes, flags: int = 0) -> None:
        self._rest, self._flags = memoryview(data), flags

    def send(self, out: socket.socket) -> bool:
        self._rest = self._rest[out.send(self._rest, self._flags) :]
        return bool(self._rest)


@final
class _Range:
    """What is left of a range."""

    active: ClassVar[int] = 0  # ranges on their way in this process, all on its one loop

    def __init__(self, fd: int, offset: int, stop: int, settings: HttpSettings) -> None:
        self._fd, self.offset, self._stop, self._most = fd, offset, stop, settings.send_bytes
        self._times, self._writes = 1, -1  # at the last step: none yet
        self._pages = Pages(fd, offset)

    @property
    def is_left(self) -> bool:
        return self.offset < self._stop

    def send(self, out: socket.socket) -> bool:
        """Send from the page cache; come to an end where the disk would have to be waited for."""
        wanted = min(self._stop - self.offset, self._step_bytes())
        if not self._pages.are_here(self.offset, self.offset + wanted):
            return False
        self._move(out, wanted)
        return self.is_left

    def _step_bytes(self) -> int:
        """Return twice as much each time, until somebody is answered in between: who asks for little waits little."""
        if self._writes == sent.writes:
            self._times = min(2 * self._times, max(1, min(_MOST_TIMES, _MOST_TIMES_IN_ALL // self.active)))
        else:
            self._times, self._writes = 1, sent.writes
        return self._times * self._most

    def send_cold(self, out: socket.socket) -> bool:
        """Send from disk; called in a thread, which may have to wait. Tell whether the socket is full."""
        read_far_ahead(self._fd)
        wanted = min(self._stop - self.offset, self._most)
        return self._move(out, wanted) < wanted

    def _move(self, out: socket.socket, wanted: int) -> int:
        moved = os.sendfile(out.fileno(), self._fd, self.offset, wanted)
        if not moved:
            raise ShortFile(self._stop - self.offset)
        self.offset += moved
        sent.sendfile_bytes += moved
        sent.sendfile_calls += 1
        return moved
