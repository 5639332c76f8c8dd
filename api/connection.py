"""One connection: Hypercorn's server of it, made to give every client its whole answer in bounded memory.

What differs from upstream: files go out by `sendfile`; a client that is still sending what nobody wants is heard
out for a while before the end; peers that stall in a transfer, either way, are dropped. Knows which protocol
the peer speaks, and refuses to know its rules: those are in `api/http1.py` and `api/http2.py`.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, cast, final

from hypercorn.asyncio.task_group import TaskGroup
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.h11 import H2ProtocolAssumedError
from hypercorn.typing import AppWrapper, ConnectionState, LifespanState
from hypercorn.utils import parse_socket_addr

from api.config import KIB, HttpSettings
from api.evenly import Share
from api.flow import Stalled, unsent_bytes
from api.http1 import Http1, Linger
from api.http2 import Http2
from api.inbox import Held, Tasks
from api.intake import Pieces
from api.layer import Layer
from api.loan import Plain, Source
from api.observed import Observers
from api.outlet import LentData, ShortFile
from api.patience import Patience
from api.repeats import Repeats
from api.sealed import SealedSender
from api.threads import Threads
from api.zerocopy import FileData, FileSender, sent

log = logging.getLogger(__name__)

# What is longer goes to the socket itself, where that is plain.
_LONG_BYTES: Final = 128 * KIB
# How often it is looked whether a TLS peer has all that was sent, and how often in a row it must have: what still waits
# above the socket goes there between two looks.
_PARTING_S: Final = 0.25
_PARTING_LOOKS: Final = 3


@dataclass(frozen=True, slots=True)
class Worker:
    """What all connections of a worker share."""

    app: AppWrapper
    config: Config
    context: WorkerContext
    state: LifespanState
    settings: HttpSettings
    cold: Threads
    held: Held
    repeats: Repeats
    observers: Observers | None = None


class Protocols(ProtocolWrapper):
    """The protocol a connection speaks; it may turn out to be another than it looked at first."""

    def __init__(self, connection: Connection, tasks: TaskGroup) -> None:
        worker, info = connection.worker, connection.writer.get_extra_info
        family, tls = info("socket").family, info("ssl_object")
        self._http2: Final = worker.settings, worker.observers
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
        self.protocol = Http2(*self._http2, *self._shared) if alpn == "h2" else Http1(connection, *self._shared)

    @property
    def is_held_up(self) -> bool:
        """Whether a transfer waits for the peer, which must not stall."""
        return cast("Http1 | Http2", self.protocol).is_held_up

    async def handle(self, event: Event) -> None:
        try:
            await self.protocol.handle(event)
        except H2ProtocolAssumedError as error:
            await self._change(error.data)

    async def _change(self, data: bytes) -> None:
        self.protocol = Http2(*self._http2, *self._shared)
        await self.protocol.initiate()
        await self.send(Updated(idle=self.protocol.idle))
        if data:
            await self.protocol.handle(RawData(data))


@final
class Connection(TCPServer):
    """One accepted connection until it is closed; `await connection.run()`."""

    protocol: Protocols

    def __init__(self, worker: Worker, reader: Pieces, writer: asyncio.StreamWriter, share: Share) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(worker.app, loop, worker.config, worker.context, worker.state, reader, writer)
        self.worker, self.settings, self.pieces = worker, worker.settings, reader
        self.repeats, self.observers = worker.repeats, worker.observers
        self.counts = worker.observers and worker.observers.counts
        self.lost, self._share = False, share
        self.is_tls = writer.get_extra_info("ssl_object") is not None
        self._layer = Layer(writer.transport) if self.is_tls else None
        self.socket: Any = writer.get_extra_info("socket")
        self._lingering = self._is_read = False
        self._linger_end: asyncio.TimerHandle | None = None
        self._files = FileSender(writer.transport, self.settings, worker.cold)
        self._sealed = SealedSender(self._write, self._drain, worker.cold)
        self._idle = Patience(loop, self.settings.keep_alive_s, self._leave)

    async def run(self) -> None:
        try:
            if self.writer.get_extra_info("peername") is None:
                return  # it was gone before we could ask who it is
            async with Tasks(self.loop, self.worker.held) as tasks:
                self._task_group = tasks
                self.protocol = Protocols(self, tasks)
                await self.protocol.initiate()
                self._rest()
                try:
                    await self._read_data()
                finally:
                    self._is_read = True  # nobody waits for another request now
                    self._idle.stop()
        finally:
            await self._close()

    @property
    def moved_bytes(self) -> int:
        """What went out so far that no writer saw: of files, and what applications wrote by themselves."""
        return self._sealed.moved_bytes if self.is_tls else self._files.moved_bytes

    async def lend(self) -> Source | None:
        """Let threads read from it until `take_back`, by what is returned; None if that cannot be done now."""
        return Plain() if self._layer is None else await self._layer.lend()

    def take_back(self) -> None:
        """Read on where they stopped."""
        if self._layer is not None:
            self._layer.take_back()

    def dismiss(self) -> None:
        """Take no more requests: the worker was told to stop. A connection at work sees that at its next answer."""
        if self._idle.is_running:
            self._leave()

    def _rest(self) -> None:
        """Wait for the next request, if there may be one."""
        if self.context.terminated.is_set():
            self._leave()
        else:
            self._idle.start()

    def _leave(self) -> None:
        self._idle.stop()
        self._task_group.spawn(self._initiate_server_close)

    async def _initiate_server_close(self) -> None:
        has_all = not self._unsent_bytes()
        await super()._initiate_server_close()
        if self.is_tls and has_all:
            self._cut()  # for the farewell of a peer that needs nothing more nobody waits
        else:
            self._part()

    def _part(self, looks: int = 0) -> None:
        """Cut a TLS connection that is being closed once its peer has everything."""
        fd = self.socket.fileno()
        if self.is_tls and fd >= 0:
            looks = 0 if unsent_bytes(fd) else looks + 1
            if looks < _PARTING_LOOKS:
                self.loop.call_later(_PARTING_S, self._part, looks)
            else:
                self._cut()

    def abort(self) -> None:
        """Cut the connection now; what it was doing fails."""
        self.lost = True
        self._cut()

    def _cut(self) -> None:
        if self._layer is not None:
            self._layer.cut()
        else:
            self.writer.transport.abort()

    async def protocol_send(self, event: Event) -> None:
        if isinstance(event, RawData | FileData | LentData):
            if not (self.lost or await self._put(event)):
                self.abort()
                await self.protocol.handle(Closed())
        elif isinstance(event, Linger):
            self._linger()
        elif isinstance(event, Updated):
            if not event.idle:
                self._idle.stop()
                self._share.take()
            elif self._is_read:
                await self._close()
            else:
                self._share.drop()
                self._rest()
        else:
            await super().protocol_send(event)

    async def _put(self, data: RawData | FileData | LentData) -> bool:
        """Send; False if the connection is of no more use."""
        async with self.send_lock:
            try:
                if self.is_tls:
                    await self._put_sealed(data)
                else:
                    await self._put_plain(data)
            except (ConnectionError, TimeoutError, RuntimeError, Stalled):
                return False
            except (OSError, ShortFile) as error:
                log.error("An answer was cut short: %s", error)  # noqa: TRY400 - the sentence says it all
                return False
            return True

    async def _put_plain(self, data: RawData | FileData | LentData) -> None:
        if isinstance(data, RawData) and len(data.data) < _LONG_BYTES:
            if not self._write(data.data):
                await self._drain()
            return
        await self._flush()
        if isinstance(data, RawData):
            await self._files.send_bytes(data.data)
        elif isinstance(data, FileData):
            await self._files.send(data)
        else:
            await self._files.lend(data)

    async def _put_sealed(self, data: RawData | FileData | LentData) -> None:
        if isinstance(data, FileData):
            await self._sealed.send(data)
        else:
            assert isinstance(data, RawData), "a connection that encrypts is lent to nobody"
            await self._sealed.send_bytes(data.data)

    def _write(self, data: bytes | memoryview) -> bool:
        """Hand bytes to the transport; tell whether it has sent all of it, as far as it says.

        Raises:
            ConnectionResetError: the peer left.
        """
        if self._layer is not None and (self._layer.is_deaf or self._layer.is_lent):
            raise ConnectionResetError("The peer left, or somebody else speaks to it.")
        if not self.writer.transport.is_closing():  # else it is thrown away, with a line in the log
            sent.writes += 1
            self.writer.write(data)
        return not self._is_full()

    def _is_full(self) -> bool:
        """Tell whether something is left to be sent, or nothing can be any more."""
        transport = self.writer.transport
        return transport.is_closing() or transport.get_write_buffer_size() > 0

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
                async with asyncio.timeout(self.settings.stall_s):
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
        settings, discarded = self.settings, 0
        while not self.reader.at_eof() and discarded <= settings.linger_bytes:
            try:
                data = await self.pieces.take(self._is_held_up)
            except OSError:
                break
            if self._lingering:
                discarded += len(data)
            else:
                await self.protocol.handle(RawData(data))
        await self.protocol.handle(Closed())

    def _is_held_up(self) -> bool:
        return not self._lingering and self.protocol.is_held_up

    def _linger(self) -> None:
        self._lingering = True
        self.pieces.take_back()
        with suppress(OSError, NotImplementedError, RuntimeError):  # TLS has no half-closed state
            self.writer.write_eof()
        self._linger_end = self.loop.call_later(self.settings.linger_s, self._hang_up)

    def _hang_up(self) -> None:
        # asyncio's TLS does nothing when it is closed once its peer is gone, or while somebody else uses it.
        if self._layer is not None and (self._layer.is_lent or self._layer.is_deaf):
            self._layer.cut()
        else:
            self.writer.close()

    async def _close(self) -> None:
        if self._linger_end is not None:
            self._linger_end.cancel()
        self._idle.close()
        self.pieces.close()
        with suppress(OSError, NotImplementedError, RuntimeError):
            self.writer.write_eof()
        self.writer.close()
        self._part()
        try:
            async with asyncio.timeout(self.settings.stall_s):
                await self.writer.wait_closed()
        except OSError:
            self._cut()
