"""Bodies on their way from an ASGI application's client into the engine, a bounded block at a time (I5).

Knows the ASGI messages of a body, connections that are lent, and the engine's Upload. Refuses to know routes, statuses
and protocols: what its errors mean to a client is said in `api/errors.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Final, Generic, TypeVar, final

from starlette.types import Receive

from api.config import KIB, MIB
from api.loan import Lender, Loan
from api.threads import Run, outlive
from cas import Upload

T = TypeVar("T")

# Bytes handed to the engine at once: enough that the hop to a thread is cheap beside hashing them. Two such blocks, one
# being written and one being received, are what an upload costs here; so with many uploads they are smaller.
_LARGEST_BLOCK_BYTES: Final = 1 * MIB
_SMALLEST_BLOCK_BYTES: Final = 256 * KIB
_ALL_BLOCKS_BYTES: Final = 4 * MIB
# The same of a block that is read from a connection. No other copy of it is held, so it may be larger, and should be:
# what is done once a block costs a third of the CPU where blocks are of 1 MiB.
# Of several, smaller ones again: what all of them hold falls out of the cores' caches else.
_LONE_LOAN_BYTES: Final = 4 * MIB
_LARGEST_LOAN_BYTES: Final = 2 * MIB
_SMALLEST_LOAN_BYTES: Final = 512 * KIB
_ALL_LOANS_BYTES: Final = 8 * MIB
# Bytes that a thread takes from a connection before others may have it: a large upload is never done. Of an upload that
# nobody waits for it takes more: a turn costs a hop to the loop and back, while nothing is received.
_TURN_BYTES: Final = 8 * MIB
_LONE_TURN_BYTES: Final = 64 * MIB
# Pieces from here on are written as they are: to join them would copy them.
_PIECE_BYTES: Final = 64 * KIB
# How often an upload looks, while its client sends nothing, whether a collection waits for it; collections wait longer.
_REST_S: Final = 3.0


class ClientGone(ConnectionError):
    """The peer went away before its body was complete. Nobody is left to answer; discard what came."""


class BodyIncomplete(ClientGone):
    """The body ended before the length its sender announced."""


class BodyTooLarge(Exception):
    """The peer sends more than it may. Theirs to fix: answer 413; the rest is thrown away below us."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"The body is larger than {limit_bytes} bytes.")
        self.limit_bytes = limit_bytes


async def receive_into(
    receive: Receive,
    begin: Callable[[], Upload],
    *,
    limit_bytes: int | None,
    run: Run,
    announced_bytes: int | None = None,
    lend: Lender | None = None,
    then: Callable[[int], T],
) -> T:
    """Stream a request body into an upload, then end it: what `then` returns, which is told the body's size.

    `begin` gives the upload, in the thread that takes the first bytes. The next block is received while a thread writes
    the last one, never more than one. Where the connection is lent, threads read from it themselves instead. `then`
    runs in the thread that took the last bytes. However this ends, no thread uses the upload afterwards.

    Raises:
        ClientGone: the body broke off, or is shorter than announced.
        BodyTooLarge: it is longer than the limit; known at once if the length was announced.
        Exception: what `begin` raised.
    """
    taken = _Taken()
    writer = _Writer(partial(_begin, begin, announced_bytes), run, then)
    try:
        _check(limit_bytes, announced_bytes)
        async with aclosing(pieces(receive, limit_bytes, announced_bytes, taken)) as body:
            await writer.borrow(lend, taken, limit_bytes)
            async for data in body:
                await writer.add(data)
                await writer.borrow(lend, taken, limit_bytes)
        return await writer.finish(taken.bytes)
    finally:
        await writer.end()


def _begin(begin: Callable[[], Upload], announced_bytes: int | None) -> Upload:
    upload = begin()
    if announced_bytes is not None:
        upload.announce(announced_bytes)
    return upload


def _check(limit_bytes: int | None, announced_bytes: int | None) -> None:
    """Refuse a body that is going to be too large."""
    if limit_bytes is not None and (announced_bytes or 0) > limit_bytes:
        raise BodyTooLarge(limit_bytes)


@dataclass(slots=True)
class _Taken:
    """How much of a body has come, in whichever way."""

    bytes: int = 0


async def pieces(
    receive: Receive, limit_bytes: int | None, announced_bytes: int | None, taken: _Taken | None = None
) -> AsyncGenerator[bytes, None]:
    """Yield the pieces of a body until it is whole, and only if it is.

    Raises:
        ClientGone, BodyTooLarge: see `receive_into`.
    """
    taken, more = taken or _Taken(), True
    _check(limit_bytes, announced_bytes)
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone("The client went away in the middle of its body.")
        data, more = message.get("body", b""), message.get("more_body", False)
        taken.bytes += len(data)
        if limit_bytes is not None and taken.bytes > limit_bytes:
            raise BodyTooLarge(limit_bytes)
        if data:
            yield data
    if announced_bytes is not None and taken.bytes != announced_bytes:
        raise BodyIncomplete(f"The body has {taken.bytes} bytes where {announced_bytes} were announced.")


@final
class _Writer(Generic[T]):
    """Gathers pieces to blocks and keeps one block on its way into an upload."""

    active: ClassVar[int] = 0  # writers at work in this process, all on its one loop

    def __init__(self, begin: Callable[[], Upload], run: Run, then: Callable[[int], T]) -> None:
        _Writer.active += 1
        self._begin, self._run, self._then = begin, run, then
        self._upload: Upload | None = None
        self._results: list[T] = []  # what `then` returned
        self._pieces: list[bytes] = []
        self._size = 0
        self._writing: asyncio.Task[object] | None = None
        self._look = asyncio.get_running_loop().call_later(_REST_S, self._rest)

    def _rest(self) -> None:
        """Let the upload rest if no thread is at it: what a client that stalls has sent must hold nobody up."""
        if self._results:
            return  # it is over, and only its connection is still to be given back
        self._look = asyncio.get_running_loop().call_later(_REST_S, self._rest)
        last = self._writing
        if last is None or (last.done() and not last.cancelled() and last.exception() is None):
            self._writing = asyncio.ensure_future(self._run(lambda: self._write([]).rest()))

    async def _start(self) -> None:
        """Have the upload begun, unless a thread has just done that: one with its first bytes may be on its way."""
        await self._wait()
        if self._upload is None:
            self._writing = asyncio.ensure_future(self._run(self._write, []))
            await self._wait()

    async def add(self, data: bytes) -> None:
        self._pieces.append(data)
        self._size += len(data)
        if self._size >= _block_bytes(_Writer.active):
            await self._turn()

    async def borrow(self, lend: Lender | None, taken: _Taken, limit_bytes: int | None) -> None:
        """Let threads take what is left of a body from its connection, if that is lent; ends early if the body does."""
        loan = None if lend is None else await lend(taken.bytes)
        if loan is None:
            return
        before = loan.left
        size = taken.bytes + before
        try:
            while loan.left and not loan.is_over:
                block = _loan_bytes(_Writer.active)
                if self._upload is None and not loan.is_ready:
                    await self._start()  # what it says must not wait for a slow client
                await loan.wait(_SMALLEST_BLOCK_BYTES)
                await self._wait()
                pieces, self._pieces, self._size = self._pieces, [], 0
                self._writing = asyncio.ensure_future(self._run(self._draw, pieces, loan, block, size))
                await self._wait()
                _check(limit_bytes, size - loan.left)
        finally:
            try:
                await self.settle()
            finally:  # cancelled once more, too: no thread reads by now
                taken.bytes += before - loan.left
                await loan.close()

    async def finish(self, size: int) -> T:
        """Write what was gathered, and end."""
        await self._wait()
        if not self._results:
            self._writing = asyncio.ensure_future(self._run(self._end, self._pieces, size))
            await self._wait()
        return self._results[0]

    async def _turn(self) -> None:
        """Wait for the block being written, then hand over what was gathered meanwhile."""
        await self._wait()
        if self._pieces:
            pieces, self._pieces, self._size = self._pieces, [], 0
            self._writing = asyncio.ensure_future(self._run(self._write, pieces))

    async def _wait(self) -> None:
        """Wait until no thread is at the upload."""
        while (writing := self._writing) is not None:
            await _finish(writing)
            if self._writing is writing:
                self._writing = None

    def _write(self, pieces: list[bytes]) -> Upload:
        """Write pieces in order; small ones are joined, since each costs a call for every hash."""
        if self._upload is None:
            self._upload = self._begin()
        if len(pieces) > 1 and len(pieces[0]) < _PIECE_BYTES:
            pieces[:] = [b"".join(pieces)]
        if pieces:
            self._upload.write(*pieces)
            pieces.clear()
        return self._upload

    def _draw(self, pieces: list[bytes], loan: Loan, block: int, size: int) -> None:
        """Write what came before, then take some blocks, for as long as the client is not slower than we are."""
        upload, drawn, got = self._write(pieces), 0, block
        while drawn < (_TURN_BYTES if _Writer.active > 1 else _LONE_TURN_BYTES) and got == block:
            got = upload.draw(loan.read, loan.left, block)
            drawn += got
            if not loan.left:
                self._end([], size)
                break

    def _end(self, pieces: list[bytes], size: int) -> None:
        self._write(pieces)
        self._results.append(self._then(size))

    async def end(self) -> None:
        """End the writer's work, whatever became of it."""
        _Writer.active -= 1
        self._look.cancel()
        await self.settle()

    async def settle(self) -> None:
        """Wait for a block still being written, whatever becomes of it."""
        if self._writing is not None and not self._writing.cancelled():
            with suppress(Exception):  # the caller is on its way out with an error that came first
                await _finish(self._writing)


def _block_bytes(active: int) -> int:
    """Return how large a block is while so many uploads are on their way."""
    return max(_SMALLEST_BLOCK_BYTES, min(_LARGEST_BLOCK_BYTES, _ALL_BLOCKS_BYTES // active))


def _loan_bytes(active: int) -> int:
    """Return how much of a body is read from its connection at once while so many uploads are on their way."""
    if active == 1:
        return _LONE_LOAN_BYTES
    return max(_SMALLEST_LOAN_BYTES, min(_LARGEST_LOAN_BYTES, _ALL_LOANS_BYTES // active))


async def _finish(task: asyncio.Task[object]) -> None:
    """Wait for a task; if the waiter is cancelled, the task ends first all the same."""
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        task.cancel()
        await outlive(task)
        raise
