"""Hypercorn's HTTP/2, made to hold no more than it must, however its peer behaves.

Upstream, a response that its application left unfinished leaves the client waiting; a DATA frame that comes
after the answer breaks the whole connection; a peer without room for an answer makes the server hold all of
it; and several frames that make no sense end in a traceback.
"""

from __future__ import annotations

import re
from typing import Any, Final, cast

from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import Event as H2Event
from h2.events import RequestReceived
from h2.exceptions import ProtocolError
from h2.stream import StreamState
from hypercorn.events import Closed, Event, Updated
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.events import StreamClosed
from hypercorn.protocol.h2 import BUFFER_HIGH_WATER, BufferCompleteError, H2Protocol, StreamBuffer
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.protocol.ws_stream import WSStream
from priority.priority import PriorityError

from api.inbox import Tasks

_METHOD: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}")
_FRAME_HEADER_BYTES: Final = 9
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


class _Buffers(dict[int, StreamBuffer]):
    """Upstream makes a stream's buffer itself; kept is one of ours in its place."""

    def __init__(self, event_class: Any) -> None:
        super().__init__()
        self._event_class = event_class

    def __setitem__(self, stream_id: int, _: StreamBuffer) -> None:
        super().__setitem__(stream_id, _Buffer(self._event_class))


class Http2(H2Protocol):
    """One HTTP/2 connection."""

    connection: H2Connection

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.streams = _Streams()
        self.stream_buffers = _Buffers(self.context.event_class)

    @property
    def is_held_up(self) -> bool:
        """Whether something can go on only after the peer sent more: of a request, or room for an answer."""
        return any(self._is_held_up(stream_id) for stream_id in self.streams)

    def _is_held_up(self, stream_id: int) -> bool:
        stream, buffer = self.connection.streams.get(stream_id), self.stream_buffers.get(stream_id)
        if stream is None or stream.closed:
            return False
        is_blocked = buffer is not None and buffer.buffer and self.connection.local_flow_control_window(stream_id) <= 0
        return bool(is_blocked) or stream.state_machine.state in _RECEIVING

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
        await super()._handle_events(events)
        if self.idle and any(isinstance(event, RequestReceived) for event in events):
            await self.send(Updated(idle=True))  # none of them became a stream

    async def _create_stream(self, request: RequestReceived) -> None:
        if cast("Tasks", self.task_group).apps >= _MOST_APPS:
            raise _Flood
        fields = dict(request.headers or ())
        method, path = (bytes(fields.get(name, b"")) for name in (b":method", b":path"))
        # CONNECT would make a websocket, of which there are none here.
        if not _METHOD.fullmatch(method) or method.upper() == b"CONNECT" or not (path and path.isascii()):
            await self._reset(request.stream_id, ErrorCodes.PROTOCOL_ERROR)
            return
        try:
            await super()._create_stream(request)
        except PriorityError:
            self.streams.pop(request.stream_id, None)  # half made: it could not even be closed
            self.stream_buffers.pop(request.stream_id, None)
            raise

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
            self.connection.reset_stream(stream_id, code)
            await self._flush()
