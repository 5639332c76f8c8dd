"""Bodies on their way from the engine to an ASGI application's client, a bounded piece at a time (I5).

Knows the ASGI messages of a body and what the engine reads from. Refuses to know routes, statuses and protocols.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Container, Iterator, Mapping, MutableMapping
from contextlib import aclosing
from typing import Any, Final, Protocol, final

from starlette.types import Receive, Scope, Send

from api.ahead import Ahead
from api.config import KIB
from api.outlet import EXTENSION as LOAN
from api.outlet import missing_bytes
from api.receiving import ClientGone
from api.relay import Relay
from api.threads import Threads, outlive
from cas import CasError, Damaged, Digest, FileRange, Held, Packed

log = logging.getLogger(__name__)

ZERO_COPY: Final = "http.response.zerocopysend"

# Bytes of a file read at once where there is no sendfile; the next of them are read while these are sent.
_READ_BYTES: Final = 512 * KIB
_END: Final = {"type": "http.response.body", "body": b"", "more_body": False}


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
            else:
                await self._send_some_way(scope.get("extensions") or {}, receive, send)
        except ClientGone:
            pass  # no news, and nobody to tell
        finally:
            await close(self._reader, self._threads)

    async def _send_head(self, send: Send, *, more_body: bool) -> None:
        await send({"type": "http.response.start", "status": self._status, "headers": self._headers})
        if not more_body:
            await send(_END)

    async def _send_some_way(self, extensions: Container[str], receive: Receive, send: Send) -> None:
        reader = self._reader
        if isinstance(reader, Held) and ZERO_COPY in extensions:
            await self._send_files(_telling(send, None), reader)
        elif not isinstance(reader, Held) and LOAN in extensions:
            await self._send_lent(_telling(send, None), reader)
        else:
            await self._send_watched(receive, send, has_files=ZERO_COPY in extensions)

    async def _send_files(self, send: Send, held: Held) -> None:
        """Send what lies in open files and nowhere else."""
        await self._send_head(send, more_body=True)
        for piece in held.pieces(self._start, self._stop):
            await self._send_file(send, piece)
        await send(_END)

    async def _send_file(self, send: Send, piece: FileRange) -> None:
        message = {"file": piece.fd, "offset": piece.offset, "count": piece.count}
        try:
            await send({"type": ZERO_COPY, **message, "more_body": True})
        except ClientGone:
            if missing := missing_bytes(piece):
                self._reader.ends_early(piece.fd, missing)  # then we left; the connection said why
            raise

    async def _send_lent(self, send: Send, source: Source) -> None:
        """Have threads write it, unless the first of them finds that it is little."""
        relay, size = Relay(source, iter(source.plan(self._start, self._stop)), self._threads), self._stop - self._start
        first = await relay.begin()
        await self._send_head(send, more_body=True)
        try:
            if first is not None and sum(map(len, first)) == size:
                await send({"type": "http.response.body", "body": b"".join(first), "more_body": True})
            else:
                await send({"type": LOAN, "count": size, "write": relay.write, "more_body": True})
            await send(_END)
        except CasError as error:
            self._tell(error)

    def _tell(self, error: CasError) -> None:
        log.error("The answer with %s was cut short: %s", self._reader.digest, error)

    async def _send_watched(self, receive: Receive, send: Send, *, has_files: bool) -> None:
        """Send by a server that may swallow what nobody receives any more, instead of saying so."""
        gone = asyncio.ensure_future(_disconnect(receive))
        by_file = self._send_file if has_files else self._send_read
        try:
            await self._send_messages(_telling(send, gone), by_file)
        finally:
            gone.cancel()
            await asyncio.wait([gone])

    async def _send_messages(self, send: Send, by_file: Callable[[Send, FileRange], Awaitable[None]]) -> None:
        begun = False
        try:
            async with aclosing(self._pieces()) as pieces:
                async for piece in pieces:
                    if not begun:
                        begun = True
                        await self._send_head(send, more_body=True)
                    if isinstance(piece, FileRange):
                        await by_file(send, piece)
                    else:
                        await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send(_END)
        except CasError as error:
            if not begun:
                raise
            self._tell(error)

    def _pieces(self) -> AsyncGenerator[FileRange | bytes, None]:
        if isinstance(self._reader, Held):
            return _at_once(self._reader.pieces(self._start, self._stop))
        return Ahead(iter(self._reader.plan(self._start, self._stop)), self._threads).pieces()

    async def _send_read(self, send: Send, piece: FileRange) -> None:
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
