"""Bodies on their way from the engine to an ASGI application's client, a bounded piece at a time (I5).

Knows the ASGI messages of a body and what the engine reads from. Refuses to know routes, statuses and protocols.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, MutableMapping
from contextlib import aclosing
from typing import Any, Final, Protocol, final

from starlette.types import Receive, Scope, Send

from api.ahead import Ahead
from api.config import KIB
from api.receiving import ClientGone
from api.threads import Threads, outlive
from cas import CasError, Damaged, Digest, FileRange, Held, Packed

log = logging.getLogger(__name__)

ZERO_COPY: Final = "http.response.zerocopysend"

# Bytes of a file read at once where there is no sendfile; the next of them are read while these are sent.
_READ_BYTES: Final = 512 * KIB


class Source(Protocol):
    """What an answer's bytes are taken from: a Reader, or something that is made of one."""

    @property
    def digest(self) -> Digest: ...

    @property
    def size(self) -> int: ...

    def plan(self, start: int, stop: int, /) -> Iterator[FileRange | Packed | bytes]: ...

    def ends_early(self, fd: int, missing: int, /) -> Damaged: ...

    def close(self) -> None: ...


@final
class BlobResponse:
    """Answers with the bytes [start, stop) of a blob; by `sendfile` where possible. Closes the reader."""

    def __init__(
        self,
        reader: Source | Held,
        threads: Threads,
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        start: int = 0,
        stop: int | None = None,
    ) -> None:
        self._reader, self._threads, self._status = reader, threads, status
        self._start, self._stop = start, reader.size if stop is None else stop
        length = {"content-length": str(self._stop - start)}
        self._headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in {**(headers or {}), **length}.items()
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the head, and for anything but HEAD the bytes.

        An engine error before the first byte is raised; after it the answer is left unfinished, which every
        server turns into a broken connection.
        """
        try:
            if scope["method"] == "HEAD" or self._start == self._stop:
                await self._send_head(send, more_body=False)
            elif ZERO_COPY in (scope.get("extensions") or {}):
                await self._send_body(_telling(send, None), self._by_sendfile)
            else:
                await self._send_watched(receive, send)
        except ClientGone:
            pass  # no news, and nobody to tell
        finally:
            await close(self._reader, self._threads)

    async def _send_head(self, send: Send, *, more_body: bool) -> None:
        await send({"type": "http.response.start", "status": self._status, "headers": self._headers})
        if not more_body:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_watched(self, receive: Receive, send: Send) -> None:
        """Send by a server that may swallow what nobody receives any more, instead of saying so."""
        gone = asyncio.ensure_future(_disconnect(receive))
        try:
            await self._send_body(_telling(send, gone), self._by_message)
        finally:
            gone.cancel()
            await asyncio.wait([gone])

    async def _send_body(self, send: Send, send_piece: _SendPiece) -> None:
        begun = False
        try:
            async with aclosing(self._pieces()) as pieces:
                async for piece in pieces:
                    if not begun:
                        begun = True
                        await self._send_head(send, more_body=True)
                    await send_piece(send, piece)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except CasError as error:
            if not begun:
                raise
            log.error("The answer with %s was cut short: %s", self._reader.digest, error)  # noqa: TRY400

    def _pieces(self) -> AsyncGenerator[FileRange | bytes, None]:
        if isinstance(self._reader, Held):
            return _at_once(self._reader.pieces(self._start, self._stop))
        return Ahead(iter(self._reader.plan(self._start, self._stop)), self._threads).pieces()

    async def _by_sendfile(self, send: Send, piece: FileRange | bytes) -> None:
        if isinstance(piece, FileRange):
            message = {"file": piece.fd, "offset": piece.offset, "count": piece.count}
            try:
                await send({"type": ZERO_COPY, **message, "more_body": True})
            except ClientGone:
                if missing := max(piece.offset + piece.count - os.fstat(piece.fd).st_size, 0):
                    self._reader.ends_early(piece.fd, missing)  # then we left; the connection said why
                raise
        else:
            await send({"type": "http.response.body", "body": piece, "more_body": True})

    async def _by_message(self, send: Send, piece: FileRange | bytes) -> None:
        if not isinstance(piece, FileRange):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            return
        async with aclosing(self._threads.batches(_blocks(piece, self._reader), bool)) as blocks:
            async for (data,) in blocks:
                await send({"type": "http.response.body", "body": data, "more_body": True})


async def _at_once(pieces: Iterator[FileRange]) -> AsyncGenerator[FileRange, None]:
    """Yield the pieces of an iterator that never waits."""
    for piece in pieces:
        yield piece


async def close(source: Source | Held, threads: Threads) -> None:
    """Let go of a source, by whichever way does not keep the loop waiting, and whatever becomes of the waiter."""
    if isinstance(source, Held):
        source.close()
    else:
        await outlive(asyncio.ensure_future(threads.run(source.close)))


def _blocks(piece: FileRange, source: Source | Held) -> Iterator[bytes]:
    """Read a range of a file of a source, a block at a time."""
    at, stop = piece.offset, piece.offset + piece.count
    while at < stop:
        data = os.pread(piece.fd, min(_READ_BYTES, stop - at), at)
        if not data:
            raise source.ends_early(piece.fd, stop - at)
        yield data
        at += len(data)


_SendPiece = Callable[[Send, FileRange | bytes], Awaitable[None]]


def _telling(send: Send, gone: asyncio.Future[None] | None) -> Send:
    """Wrap send(): it raises ClientGone once nobody listens, by whichever way the server lets us know."""

    async def telling(message: MutableMapping[str, Any]) -> None:
        if gone is not None and gone.done():
            raise ClientGone("The client went away.")
        try:
            await send(message)
        except OSError as error:
            raise ClientGone("The client went away.") from error

    return telling


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
