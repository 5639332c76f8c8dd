"""Hypercorn's HTTP/2, made to end an answer that broke off, and to bear a body that nobody wants.

Upstream, a response that its application left unfinished leaves the client waiting, and a DATA frame that
comes after the answer breaks the whole connection.
"""

from __future__ import annotations

from typing import Any

from h2.connection import H2Connection
from h2.errors import ErrorCodes
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.events import StreamClosed
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.protocol.ws_stream import WSStream


class _Nobody:
    """Takes the events of a stream that was answered already."""

    idle = True

    async def handle(self, event: StreamEvent) -> None:
        """Drop it; its flow control is settled by the caller."""


class _Streams(dict[int, "HTTPStream | WSStream"]):
    def __missing__(self, stream_id: int) -> Any:
        return _Nobody()


class Http2(H2Protocol):
    """One HTTP/2 connection."""

    connection: H2Connection

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.streams = _Streams()

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
