"""Hypercorn's HTTP/2, made to hold no more than it must, however its peer behaves, and to be quick on long ways.

Upstream, 64 KiB may be on their way in a request, which makes an upload wait for every round trip, and an
application that is slow to read holds up the whole connection. Here windows are wide, and the peer gets new room
as its application takes what came. Upstream, also, a response that its application left unfinished leaves the
client waiting; a DATA frame that comes after the answer breaks the whole connection; a peer without room for an
answer makes the server hold all of it; and several frames that make no sense end in a traceback.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, cast

from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, RequestReceived
from h2.events import Event as H2Event
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings
from h2.stream import StreamState
from hypercorn.events import Closed, Event, Updated
from hypercorn.protocol.events import Body, InformationalResponse, Request, StreamClosed
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h2 import BUFFER_HIGH_WATER, BufferCompleteError, H2Protocol, StreamBuffer
from hypercorn.protocol.http_stream import ASGIHTTPState, HTTPStream
from hypercorn.protocol.ws_stream import WSStream
from hypercorn.typing import ASGIReceiveCallable, ASGIReceiveEvent, ASGISendCallable, Scope
from hypercorn.utils import filter_pseudo_headers
from priority.priority import DuplicateStreamError, PriorityError

from api.config import KIB, HttpSettings
from api.inbox import Tasks
from api.observed import Observed, Observers
from api.refusals import AnsweredStream

_METHOD: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}")
_FRAME_HEADER_BYTES: Final = 9
# Longest frame that a peer may send: large enough that its framing costs little, and held whole while it arrives.
_FRAME_BYTES: Final = 64 * KIB
_FIRST_WINDOW_BYTES: Final = 65_535  # of a connection, by the protocol
# Requests that were reset count until their application ends. Beyond what a client that changes its mind needs.
_MOST_APPS: Final = 300
# States in which the peer still owes (part of) a request.
_RECEIVING: Final = (StreamState.OPEN, StreamState.HALF_CLOSED_LOCAL)


class _Flood(Exception):
    """The peer opens and resets requests faster than they can end."""


class _Nobody:
    """Takes the events of a stream that was answered already."""

    idle = True

    async def handle(self, event: StreamEvent) -> None:
        """Drop it; its flow control is settled by the caller."""


class _Streams(dict[int, "HTTPStream | WSStream"]):
    def __missing__(self, stream_id: int) -> Any:
        return _Nobody()


class _Buffer(StreamBuffer):
    """What of an answer the peer has no room for yet. Its application waits while there is much of it.

    Upstream's lets the application go on as soon as a little was sent, even nothing.
    """

    async def push(self, data: bytes) -> None:
        if self._complete:
            raise BufferCompleteError
        self.buffer.extend(data)
        await self._is_empty.clear()
        while len(self.buffer) >= BUFFER_HIGH_WATER and not self._complete:
            await self._paused.clear()
            await self._paused.wait()


class _Counted(_Buffer):
    """The same, for observers: told is what the peer had room for."""

    sent_bytes = 0

    async def pop(self, max_length: int) -> bytes:
        data = await super().pop(max_length)
        self.sent_bytes += len(data)
        return data


class Stream(AnsweredStream):
    """A request and its answer. What its application takes of the body, the peer may send anew."""

    def __init__(self, protocol: Http2, stream_id: int) -> None:
        ours = protocol
        self._protocol, self._is_invited = protocol, False
        place = (ours.ssl, ours.client, ours.server, ours.stream_send, stream_id)
        super().__init__(self._run, ours.config, ours.context, ours.task_group, *place)

    async def _run(
        self,
        scope: Scope,
        receive: ASGIReceiveCallable,
        send: ASGISendCallable,
        sync_spawn: Callable[..., Any],
        call_soon: Callable[..., Any],
    ) -> None:
        async def metered() -> ASGIReceiveEvent:
            await self._invite()
            message = await receive()
            await self._protocol.credit(self.stream_id, len(cast("dict[str, Any]", message).get("body", b"")))
            return message

        try:
            await self._protocol.app(scope, metered, send, sync_spawn, call_soon)
        finally:
            await self._protocol.settle(self.stream_id)

    async def _invite(self) -> None:
        """Tell a client that asked first (`Expect: 100-continue`) that its body is wanted."""
        if self._is_invited or self.state is not ASGIHTTPState.REQUEST:
            return
        self._is_invited = True
        if (b"expect", b"100-continue") in self.scope["headers"]:
            await self.send(InformationalResponse(stream_id=self.stream_id, headers=[], status_code=100))


class ObservedStream(Observed, Stream):
    """The same, and observers are told."""

    def __init__(self, protocol: Http2, stream_id: int, observers: Observers, buffer: _Counted) -> None:
        super().__init__(protocol, stream_id, observers=observers)
        self._buffer = buffer

    def _tell(self) -> None:
        self.sent_bytes = self._buffer.sent_bytes
        super()._tell()


class Http2(H2Protocol):
    """One HTTP/2 connection."""

    connection: H2Connection

    def __init__(self, settings: HttpSettings, observers: Observers | None, *args: Any) -> None:
        super().__init__(*args)
        self._settings, self._observers = settings, observers
        self._owed: dict[int, int] = {}  # body bytes that came and their applications did not take yet
        self.streams = _Streams()
        self.connection.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: settings.h2_streams,
                SettingCodes.MAX_HEADER_LIST_SIZE: settings.max_header_bytes,
                SettingCodes.INITIAL_WINDOW_SIZE: settings.h2_stream_bytes,
                SettingCodes.MAX_FRAME_SIZE: _FRAME_BYTES,
            },
        )
        self.connection.max_inbound_frame_size = _FRAME_BYTES
        self.connection.decoder.max_header_list_size = settings.max_header_bytes

    async def initiate(self, headers: list[tuple[bytes, bytes]] | None = None, settings: bytes | None = None) -> None:
        await super().initiate(headers, settings)
        self.connection.increment_flow_control_window(self._settings.h2_connection_bytes - _FIRST_WINDOW_BYTES)
        await self._flush()

    @property
    def is_held_up(self) -> bool:
        """Whether something can go on only after the peer sent more: of a request, or room for an answer."""
        return any(self._is_held_up(stream_id) for stream_id in self.streams)

    def _is_held_up(self, stream_id: int) -> bool:
        stream, buffer = self.connection.streams.get(stream_id), self.stream_buffers.get(stream_id)
        if stream is None or stream.closed:
            return False
        if buffer is not None and buffer.buffer and self.connection.local_flow_control_window(stream_id) <= 0:
            return True
        # A peer that has used up its window waits for an application, not we for it.
        is_receiving = stream.state_machine.state in _RECEIVING
        return is_receiving and self.connection.remote_flow_control_window(stream_id) > 0

    async def handle(self, event: Event) -> None:
        try:
            await super().handle(event)
        except (_Flood, PriorityError, ProtocolError):
            await self.send(Closed())
        if isinstance(event, Closed):
            for buffer in list(self.stream_buffers.values()):
                await buffer.close()  # lets go of applications that wait for room
        elif self._is_overlong():
            await self.send(Closed())

    def _is_overlong(self) -> bool:
        """Whether a frame is longer than we said it may be: h2 looks only once all of it is there."""
        held = len(self.connection.incoming_buffer._data)  # noqa: SLF001 - it has no other way to ask
        return held > self.connection.max_inbound_frame_size + _FRAME_HEADER_BYTES

    async def _handle_events(self, events: list[H2Event]) -> None:
        for event in events:
            if isinstance(event, DataReceived):
                await self._take(event)
            else:
                await super()._handle_events([event])
        await self._flush()
        if self.idle and any(isinstance(event, RequestReceived) for event in events):
            await self.send(Updated(idle=True))  # none of them became a stream

    async def _take(self, event: DataReceived) -> None:
        stream_id, data = event.stream_id, event.data or b""
        owed = self._owed.get(stream_id)
        if owed is not None:
            self._owed[stream_id] = owed + len(data)
        unowed = (event.flow_controlled_length or 0) - (0 if owed is None else len(data))  # padding, or all of it
        self._acknowledge(stream_id, unowed)
        await self.streams[stream_id].handle(Body(stream_id=stream_id, data=data))

    async def credit(self, stream_id: int, size: int) -> None:
        """Give the peer room for what an application took."""
        if size and stream_id in self._owed:
            self._owed[stream_id] -= size
            self._acknowledge(stream_id, size)
            await self._flush()

    async def settle(self, stream_id: int) -> None:
        """Give the peer room for what an application left when it ended."""
        self._acknowledge(stream_id, self._owed.pop(stream_id, 0))
        await self._flush()

    def _acknowledge(self, stream_id: int, size: int) -> None:
        if size:
            with suppress(ProtocolError):  # the connection is closed already
                self.connection.acknowledge_received_data(size, stream_id)

    async def _create_stream(self, request: RequestReceived) -> None:
        if cast("Tasks", self.task_group).apps >= _MOST_APPS:
            raise _Flood
        stream_id, fields = request.stream_id, dict(request.headers or ())
        method, path = (bytes(fields.get(name, b"")) for name in (b":method", b":path"))
        # CONNECT would make a websocket, of which there are none here.
        if not _METHOD.fullmatch(method) or method.upper() == b"CONNECT" or not (path and path.isascii()):
            await self._reset(stream_id, ErrorCodes.PROTOCOL_ERROR)
            if self._observers is not None:
                self._observers.refused({"client": self.client, "headers": []}, 400, 0)
            return
        with suppress(DuplicateStreamError):  # its PRIORITY frame came before it
            self.priority.insert_stream(stream_id)
            self.priority.block(stream_id)
        stream = self.streams[stream_id] = self._stream(stream_id)
        self._owed[stream_id] = 0
        headers = filter_pseudo_headers(request.headers)
        await stream.handle(Request(stream_id, headers, "2", method.decode(), path, self.connection_state))

    def _stream(self, stream_id: int) -> Stream:
        if self._observers is None:
            self.stream_buffers[stream_id] = _Buffer(self.context.event_class)
            return Stream(self, stream_id)
        buffer = self.stream_buffers[stream_id] = _Counted(self.context.event_class)
        return ObservedStream(self, stream_id, self._observers, buffer)

    async def stream_send(self, event: StreamEvent) -> None:
        if isinstance(event, StreamClosed):
            buffer = self.stream_buffers.get(event.stream_id)
            if buffer is not None and not buffer._complete:  # noqa: SLF001 - `complete` also means sent
                await buffer.close()
                await self._reset(event.stream_id, ErrorCodes.INTERNAL_ERROR)
        await super().stream_send(event)

    async def _send_data(self, stream_id: int) -> None:
        await super()._send_data(stream_id)
        if stream_id not in self.stream_buffers:  # answered in full, perhaps before the request was read
            await self._reset(stream_id, ErrorCodes.NO_ERROR)

    async def _reset(self, stream_id: int, code: ErrorCodes) -> None:
        stream = self.connection.streams.get(stream_id)
        if stream is not None and not stream.closed:
            with suppress(ProtocolError):  # the connection is closed already
                self.connection.reset_stream(stream_id, code)
            await self._flush()
