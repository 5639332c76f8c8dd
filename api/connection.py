"""One connection: Hypercorn's server of it, made to give every client its whole answer in bounded memory.

What differs from upstream: bodies from files; `100 Continue` only when the application wants the body; an
answer that did not want the body reaches a client that is still sending it; heads that are too large get a
431; peers that stall in a transfer, either way, are dropped. Knows no route and no blob.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final, cast, final

import h11
from hypercorn.asyncio.task_group import TaskGroup
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.events import Body, EndBody, Request, Response
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h11 import STREAM_ID, H2CProtocolRequiredError, H2ProtocolAssumedError, H11Protocol
from hypercorn.typing import AppWrapper, ConnectionState, LifespanState
from hypercorn.utils import parse_socket_addr

from api.config import HttpSettings
from api.http2 import Http2
from api.inbox import PeerLost, Tasks
from api.intake import Chunked, Pieces, Sized, body_of, received, split_head
from api.threads import Threads
from api.zerocopy import (
    FileBody,
    FileData,
    FileSender,
    FileStream,
    Placeholder,
    ShortFile,
    Stalled,
    sent,
    unsent_bytes,
)

log = logging.getLogger(__name__)

_CLOSE: Final = (b"connection", b"close")
_ANSWERED: Final = (h11.DONE, h11.MUST_CLOSE)


@dataclass(frozen=True)
class Linger(Event):
    """Say no more, but hear the client out for a while: it may still be sending what nobody wants."""


@dataclass(frozen=True, slots=True)
class Worker:
    """What all connections of a worker share."""

    app: AppWrapper
    config: Config
    context: WorkerContext
    state: LifespanState
    settings: HttpSettings
    cold: Threads


class Stream(FileStream):
    """A request and its response, whose application learns when nobody listens any more."""

    def __init__(self, *args: Any, connection: Connection, **kwargs: Any) -> None:
        super().__init__(*args, zero_copy=not connection.is_tls, **kwargs)
        self._connection = connection

    async def app_send(self, message: Any) -> None:
        await super().app_send(message)
        # A short answer to a client that left just vanishes; only who has more to send needs to know.
        if self._connection.lost and message is not None and message.get("more_body"):
            raise PeerLost("The client went away.")


class Http1(H11Protocol):
    """One HTTP/1.1 connection. It has no websockets: a request to become one is answered like any other."""

    connection: h11.Connection

    def __init__(self, connection: Connection, *args: Any) -> None:
        super().__init__(*args)
        self._connection = connection
        self._is_chunked = False
        self._direct: Sized | Chunked | None = None

    @property
    def is_held_up(self) -> bool:
        """Whether a request body is on its way, with which alone things go on."""
        return self.connection.their_state is h11.SEND_BODY

    async def handle(self, event: Event) -> None:
        if isinstance(event, RawData) and event.data:
            await self._take(event.data)
        else:
            await super().handle(event)

    async def _take(self, data: bytes) -> None:
        if self.connection.their_state is h11.IDLE:
            head, data = split_head(data)
            try:
                await super().handle(RawData(head))
            except (H2ProtocolAssumedError, H2CProtocolRequiredError) as error:
                error.data += data
                raise
            self._direct = body_of(self.connection, is_chunked=self._is_chunked)
        if data and self._direct is not None:
            data = await self._take_direct(self._direct, data)
        if data:
            await super().handle(RawData(data))

    async def _take_direct(self, direct: Sized | Chunked, data: bytes) -> bytes:
        """Take body bytes past h11; return what it has to see."""
        body, rest = direct.take(data)
        received.direct_bytes += len(body)
        if body and self.stream is not None:
            await self.stream.handle(Body(stream_id=STREAM_ID, data=body))
        if rest:
            self._direct = None
        else:
            await self._handle_events()  # this may have been the last of it
        return rest

    async def stream_send(self, event: StreamEvent) -> None:
        if isinstance(event, FileBody):
            await self._send_file(event)
            return
        if isinstance(event, Body):
            sent.body_bytes += len(event.data)
        elif isinstance(event, Response) and event.status_code >= 200 and self._is_last():  # noqa: PLR2004
            event = replace(event, headers=[*event.headers, _CLOSE])
        await super().stream_send(event)

    def _is_last(self) -> bool:
        """Tell whether the connection ends with the answer that is about to begin."""
        spent = self.keep_alive_requests >= self._connection.worker.settings.keep_alive_requests
        return self.is_held_up or spent or self.context.terminated.is_set()

    async def _send_file(self, event: FileBody) -> None:
        placeholder: Any = Placeholder(event.count)
        for piece in self.connection.send_with_data_passthrough(h11.Data(data=placeholder)) or ():
            if piece is placeholder:
                await self.send(FileData(event.fd, event.offset, event.count))
            else:
                await self.send(RawData(piece))

    async def _handle_events(self) -> None:
        while True:
            try:
                event = self.connection.next_event()
            except h11.RemoteProtocolError as error:
                await self._refuse(error.error_status_hint)
                return
            if event is h11.PAUSED:
                await self.can_read.clear()
                await self.can_read.wait()
            elif isinstance(event, h11.Request):
                await self._begin(event)
            elif event is h11.NEED_DATA or isinstance(event, h11.ConnectionClosed) or self.stream is None:
                return
            elif isinstance(event, h11.Data):
                await self.stream.handle(Body(stream_id=STREAM_ID, data=event.data))
            elif isinstance(event, h11.EndOfMessage):
                await self.stream.handle(EndBody(stream_id=STREAM_ID))

    async def _begin(self, request: h11.Request) -> None:
        head_bytes = len(request.target) + sum(len(name) + len(value) + 4 for name, value in request.headers)
        if head_bytes > self._connection.worker.settings.max_header_bytes:
            await self._refuse(431)
            return
        names = {name for name, _ in request.headers}
        self._is_chunked = b"transfer-encoding" in names
        if self._is_chunked and b"content-length" in names:
            await self._refuse(400)  # two lengths: a proxy that goes by the other one sees other requests
            return
        await self.send(Updated(idle=False))
        await self._check_protocol(request)
        await self._create_stream(request)

    async def _create_stream(self, request: h11.Request) -> None:
        self.stream = Stream(
            self.app,
            self.config,
            self.context,
            self.task_group,
            self.ssl,
            self.client,
            self.server,
            self.stream_send,
            STREAM_ID,
            connection=self._connection,
            invite=self._invite,
        )
        self.keep_alive_requests += 1
        await self.stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=list(request.headers),
                http_version=request.http_version.decode(),
                method=request.method.decode("ascii").upper(),
                raw_path=request.target,
                state=self.connection_state,
            )
        )

    async def _invite(self) -> None:
        if self.connection.they_are_waiting_for_100_continue:
            headers = self.config.response_headers("h11")
            await self._send_h11_event(h11.InformationalResponse(status_code=100, headers=headers))

    async def _refuse(self, status: int) -> None:
        """Answer what is no proper request, and tell an application that was reading it."""
        if self.connection.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            await self._send_error_response(status)
        await self._close_stream()
        await self.send(Linger())

    async def _maybe_recycle(self) -> None:
        if self.is_held_up and self.connection.our_state in _ANSWERED:
            await self._close_stream()
            await self.can_read.set()
            await self.send(Linger())
        else:
            await super()._maybe_recycle()


class Protocols(ProtocolWrapper):
    """The protocol a connection speaks; it may turn out to be another than it looked at first."""

    def __init__(self, connection: Connection, tasks: TaskGroup) -> None:
        worker, info = connection.worker, connection.writer.get_extra_info
        family, tls = info("socket").family, info("ssl_object")
        self._shared: Final = (
            worker.app,
            worker.config,
            worker.context,
            tasks,
            ConnectionState(worker.state),
            connection.is_tls,
            parse_socket_addr(family, info("peername")),
            parse_socket_addr(family, info("sockname")),
            connection.protocol_send,
        )
        super().__init__(*self._shared)
        alpn = tls.selected_alpn_protocol() if tls is not None else None
        self.protocol = Http2(*self._shared) if alpn == "h2" else Http1(connection, *self._shared)

    @property
    def is_held_up(self) -> bool:
        """Whether a transfer waits for the peer, which must not stall."""
        return cast("Http1 | Http2", self.protocol).is_held_up

    async def handle(self, event: Event) -> None:
        try:
            await self.protocol.handle(event)
        except H2ProtocolAssumedError as error:
            await self._change(error.data)
        except H2CProtocolRequiredError as error:
            await self._change(error.data, error.headers, error.settings)

    async def _change(self, data: bytes, *upgrade: Any) -> None:
        self.protocol = Http2(*self._shared)
        await self.protocol.initiate(*upgrade)
        await self.send(Updated(idle=self.protocol.idle))
        if data:
            await self.protocol.handle(RawData(data))


@final
class Connection(TCPServer):
    """One accepted connection until it is closed; `await connection.run()`."""

    protocol: Protocols

    def __init__(self, worker: Worker, reader: Pieces, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(worker.app, loop, worker.config, worker.context, worker.state, reader, writer)
        self.worker, self._pieces = worker, reader
        self.lost = False
        self.is_tls = writer.get_extra_info("ssl_object") is not None
        self._lingering = self._is_read = False
        self._linger_end: asyncio.TimerHandle | None = None
        self._files = FileSender(writer.transport, worker.settings, worker.cold)

    async def run(self) -> None:
        try:
            if self.writer.get_extra_info("peername") is None:
                return  # it was gone before we could ask who it is
            async with Tasks(self.loop) as tasks:
                self._task_group = tasks
                self.protocol = Protocols(self, tasks)
                await self.protocol.initiate()
                await self.idle_task.restart(tasks, self._idle_timeout)
                await self._read_data()
                # Upstream waits for its idle timer even now that no request can come.
                self._is_read = True
                await self.idle_task.stop()
        finally:
            await self._close()

    def abort(self) -> None:
        """Cut the connection now; what it was doing fails."""
        self.lost = True
        self.writer.transport.abort()

    async def protocol_send(self, event: Event) -> None:
        if isinstance(event, RawData | FileData):
            if not (self.lost or await self._put(event)):
                self.abort()
                await self.protocol.handle(Closed())
        elif isinstance(event, Linger):
            self._linger()
        elif isinstance(event, Updated) and event.idle and self._is_read:
            await self._close()
        else:
            await super().protocol_send(event)

    async def _put(self, data: RawData | FileData) -> bool:
        """Send; False if the connection is of no more use."""
        async with self.send_lock:
            try:
                if isinstance(data, RawData):
                    self.writer.write(data.data)
                    await self._drain()
                else:
                    await self._flush()
                    await self._files.send(data)
            except (ConnectionError, TimeoutError, RuntimeError, Stalled):
                return False
            except (OSError, ShortFile) as error:
                log.error("An answer was cut short: %s", error)  # noqa: TRY400 - the sentence says it all
                return False
            return True

    async def _flush(self) -> None:
        """Wait until every byte written so far is with the kernel."""
        transport = self.writer.transport
        if transport.get_write_buffer_size():
            transport.set_write_buffer_limits(high=0)
            try:
                await self._drain()
            finally:
                transport.set_write_buffer_limits()

    async def _drain(self) -> None:
        """Wait until more may be written, for as long as the peer takes something."""
        left = self._unsent_bytes()
        while True:
            try:
                async with asyncio.timeout(self.worker.settings.stall_s):
                    return await self.writer.drain()
            except TimeoutError:
                before, left = left, self._unsent_bytes()
                if left >= before:
                    raise Stalled("The peer takes nothing.") from None

    def _unsent_bytes(self) -> int:
        transport = self.writer.transport
        if transport.is_closing():
            return 0
        return transport.get_write_buffer_size() + unsent_bytes(transport.get_extra_info("socket").fileno())

    async def _read_data(self) -> None:
        settings, discarded = self.worker.settings, 0
        while not self.reader.at_eof() and discarded <= settings.linger_bytes:
            try:
                data = await self._next_data()
            except OSError:
                break
            if self._lingering:
                discarded += len(data)
            else:
                await self.protocol.handle(RawData(data))
        await self.protocol.handle(Closed())

    async def _next_data(self) -> bytes:
        """Wait for more to read; raise TimeoutError once a transfer was held up by the peer's silence."""
        was_held_up = self.protocol.is_held_up
        while True:
            try:
                return await self._pieces.take(None if self._lingering else self.worker.settings.stall_s)
            except TimeoutError:
                is_held_up = self.protocol.is_held_up
                if is_held_up and was_held_up:
                    raise
                was_held_up = is_held_up

    def _linger(self) -> None:
        self._lingering = True
        with suppress(OSError, NotImplementedError, RuntimeError):  # TLS has no half-closed state
            self.writer.write_eof()
        self._linger_end = self.loop.call_later(self.worker.settings.linger_s, self.writer.close)

    async def _close(self) -> None:
        if self._linger_end is not None:
            self._linger_end.cancel()
        await self.idle_task.stop()
        with suppress(OSError, NotImplementedError, RuntimeError):
            self.writer.write_eof()
        self.writer.close()
        try:
            async with asyncio.timeout(self.worker.settings.stall_s):
                await self.writer.wait_closed()
        except OSError:
            self.writer.transport.abort()
