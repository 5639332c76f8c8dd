"""Bytes of a file to a plain HTTP/1.1 connection by `sendfile(2)`, never through Python (I6).

Offers the ASGI extension `http.response.zerocopysend` to the application, frames such a body with h11, and
moves it. Knows sockets, the page cache and Hypercorn's stream classes. Refuses to know blobs, routes and when
a connection ends: `api/connection.py` decides that.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import termios
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, cast, final

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
from api.refusals import AnsweredStream
from api.threads import Threads

EXTENSION: Final = "http.response.zerocopysend"

# Tells a client that asked (`Expect: 100-continue`) to go on; may be called again and again.
Invite = Callable[[], Awaitable[None]]

# Far enough apart to be cheap, near enough that a gap the kernel left between two read-aheads is seen.
_PROBE_EVERY_BYTES: Final = 256 * KIB


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


class ShortFile(Exception):
    """The file ends before the bytes promised of it. Ours to mend; the answer must not look complete."""


class Stalled(Exception):
    """The peer took nothing for as long as it may. Theirs; nothing is lost by dropping it."""


@dataclass(frozen=True)
class FileBody(StreamEvent):
    """A piece of an answer's body that lies in a file."""

    fd: int
    offset: int
    count: int


@dataclass(frozen=True)
class FileData(Event):
    """Bytes of a file that go to the connection as they are."""

    fd: int
    offset: int
    count: int


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
        if message is None or message["type"] != EXTENSION:
            await super().app_send(cast("ASGISendEvent | None", message))
        elif self.state is not ASGIHTTPState.RESPONSE:
            raise RuntimeError(f"{EXTENSION} came outside of a response body.")
        else:
            await self._send_file(cast("dict[str, Any]", message))

    async def _send_file(self, message: dict[str, Any]) -> None:
        if not suppress_body(self.scope["method"], int(self.response["status"])):
            event = file_body(self.stream_id, message)
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


@final
class FileSender:
    """Moves ranges of files, and long pieces of memory, to one connection. One at a time; the caller sees to that."""

    def __init__(self, transport: asyncio.WriteTransport, settings: HttpSettings, cold: Threads) -> None:
        self._transport, self._settings, self._cold = transport, settings, cold

    async def send(self, data: FileData) -> None:
        """Send the range whole, or raise OSError, ShortFile or Stalled."""
        # A duplicate: the loop lets nobody else watch its transport's descriptor, and a thread that is still
        # in sendfile() when the transport closes must not find the number given to another connection.
        out = os.dup(self._transport.get_extra_info("socket").fileno())
        try:
            await self._move(_Range(data.fd, data.offset, data.offset + data.count, self._settings), out)
        finally:
            os.close(out)

    async def send_bytes(self, data: bytes) -> None:
        """Send all of it, or raise OSError or Stalled. A transport would copy what the socket does not take at once."""
        out, rest = os.dup(self._transport.get_extra_info("socket").fileno()), memoryview(data)
        try:
            while rest:
                with suppress(BlockingIOError):
                    rest = rest[os.write(out, rest) :]
                if rest:
                    await wait_writable(out, self._settings.stall_s)
        finally:
            os.close(out)

    async def _move(self, file: _Range, out: int) -> None:
        while file.offset < file.stop:
            wanted = min(file.stop - file.offset, self._settings.send_bytes)
            try:
                if file.is_warm(wanted):
                    moved = os.sendfile(out, file.fd, file.offset, wanted)
                else:
                    sent.cold_calls += 1
                    moved = await self._cold.run(file.send_cold, out, wanted)
            except BlockingIOError:
                await wait_writable(out, self._settings.stall_s)
                continue
            if moved == 0:
                raise ShortFile(f"A stored file ends {file.stop - file.offset} bytes too early.")
            file.offset += moved
            sent.sendfile_bytes += moved
            sent.sendfile_calls += 1
            if moved < wanted:  # the socket is full: asking again would only say so
                await wait_writable(out, self._settings.stall_s)
            else:
                await asyncio.sleep(0)  # the other connections' turn


@final
class _Range:
    """What is left of a range, and what is known of its pages."""

    def __init__(self, fd: int, offset: int, stop: int, settings: HttpSettings) -> None:
        self.fd, self.offset, self.stop = fd, offset, stop
        self._warm_to = self._advised_to = offset
        self._readahead = settings.readahead_bytes

    def is_warm(self, count: int) -> bool:
        """Tell whether sendfile of the next bytes would very likely not wait for a disk."""
        end = self.offset + count
        if self._warm_to < end and _resident(self.fd, max(self.offset, self._warm_to), end):
            self._warm_to = end
        return self._warm_to >= end

    def send_cold(self, out: int, count: int) -> int:
        """Send from disk; called in a thread, which may have to wait."""
        if self._advised_to - self.offset < self._readahead // 2:
            start = max(self.offset, self._advised_to)
            self._advised_to = min(self.stop, self.offset + self._readahead)
            if start < self._advised_to:
                os.posix_fadvise(self.fd, start, self._advised_to - start, os.POSIX_FADV_WILLNEED)
        return os.sendfile(out, self.fd, self.offset, count)


def _resident(fd: int, start: int, stop: int) -> bool:
    """Probe the page cache. A filesystem that cannot be probed counts as cold: slower, never blocking."""
    byte = bytearray(1)
    try:
        for at in (*range(start, stop, _PROBE_EVERY_BYTES), stop - 1):
            os.preadv(fd, [byte], at, os.RWF_NOWAIT)
    except OSError:
        return False
    return True


async def wait_writable(fd: int, stall_s: float) -> None:
    """Wait until a socket takes bytes again; raise Stalled once its peer took none for stall_s."""
    loop = asyncio.get_running_loop()
    writable: asyncio.Future[None] = loop.create_future()
    watch = _Watch(loop, fd, stall_s, writable)
    loop.add_writer(fd, _settle, writable)
    try:
        await writable
    finally:
        watch.cancel()
        loop.remove_writer(fd)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


@final
class _Watch:
    """Fails a wait for a socket whose peer takes nothing.

    A socket counts as writable only when a good part of its buffer is free. A slow peer may need longer than
    the limit for that, and is no dead one: what counts is whether the queue shrinks.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int, stall_s: float, future: asyncio.Future[None]) -> None:
        self._loop, self._fd, self._stall_s, self._future = loop, fd, stall_s, future
        self._left = unsent_bytes(fd)
        self._timer = loop.call_later(stall_s, self._look)

    def _look(self) -> None:
        before, self._left = self._left, unsent_bytes(self._fd)
        if self._left < before:
            self._timer = self._loop.call_later(self._stall_s, self._look)
        elif not self._future.done():
            self._future.set_exception(Stalled(f"The peer took nothing for {self._stall_s} s."))

    def cancel(self) -> None:
        self._timer.cancel()


def unsent_bytes(fd: int) -> int:
    """Count the bytes in a socket's send queue that its peer has not acknowledged."""
    (count,) = struct.unpack("i", fcntl.ioctl(fd, termios.TIOCOUTQ, b"\0\0\0\0"))
    return int(count)
