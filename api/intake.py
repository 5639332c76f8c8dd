"""Bytes of a request on their way in, uncopied: pieces as the socket gave them, and bodies past h11.

Upstream copies each byte of a body six times before an application sees it, which costs more CPU than to hash
it. Knows framing only where it is plain; whatever is unusual goes to h11, which knows the rest.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Final, cast, final

import h11

from api.config import KIB, MIB
from api.loan import Part
from api.patience import Patience

# Bytes that wait for their reader before the socket is left alone. To let a second piece wait would save the pausing,
# and cost a worker with 16 uploads 25 MiB (measured).
_PAUSE_AT_BYTES: Final = 128 * KIB
# Most bytes of a first piece: a small request whole, and little of a body that threads will read by themselves.
_FIRST_BYTES: Final = 64 * KIB
# Most bytes of those after a full one, by how many connections of the worker send so much: every piece costs the loop
# as much, however long it is, and up to four of them are held of each body.
_PIECE_BYTES: Final = 256 * KIB
_LONG_PIECE_BYTES: Final = 1 * MIB
_MOST_LONG: Final = 4

_LEAST_LOAN_BYTES: Final = 64 * KIB  # of a body; below, to lend the connection costs more than it saves
_FIRST_CHUNKS_BYTES: Final = 32 * KIB  # of a body of unknown length; where so much has come, more may

_CRLF: Final = b"\r\n"
_PLAIN_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,15})\r\n")
_PART_OF_HEADER: Final = re.compile(rb"[0-9A-Fa-f]{1,15}\r?")
_LEAST_ALIKE: Final = 2  # chunks of one size that are worth being looked at together
_NO_CHUNK: Final = b"\0" + _CRLF  # h11 refuses this wherever it expects a chunk


@dataclass(slots=True)
class Received:
    """Work this process has done so far, counted, so that tests and benchmarks need no clock."""

    direct_bytes: int = 0  # bytes of bodies that never went through h11
    lent_bytes: int = 0  # of them, those that a thread read from the socket itself


received: Final = Received()


@final
class Pieces(asyncio.StreamReader):
    """A stream reader that hands on the transport's own pieces, and holds about one of them."""

    streaming: ClassVar[int] = 0  # readers in this process whose last piece was as long as a first one may be

    def __init__(self, loop: asyncio.AbstractEventLoop, stall_s: float) -> None:
        """Make one that waits no longer than this while a transfer is held up."""
        super().__init__(loop=loop)
        self._loop_ = loop
        self._patience = Patience(loop, stall_s, self._look)
        self._is_held_up, self._was_held_up = _never, False
        self._pieces: deque[bytes] = deque()
        self._held_bytes = 0
        self._is_over = self._is_paused = self._is_streaming = self._is_lent = False
        self._wire: asyncio.ReadTransport | None = None
        self._taker: asyncio.Future[None] | None = None

    def set_transport(self, transport: asyncio.BaseTransport) -> None:
        super().set_transport(transport)
        self._wire = cast("asyncio.ReadTransport", transport)
        self._count(is_streaming=False)

    def feed_data(self, data: bytes) -> None:  # type: ignore[override]
        self._pieces.append(data)
        self._held_bytes += len(data)
        if self._held_bytes >= _PAUSE_AT_BYTES and not self._is_paused and self._wire is not None:
            self._is_paused = True
            self._wire.pause_reading()
        self._count(is_streaming=len(data) >= _FIRST_BYTES)
        self._wake()

    def feed_eof(self) -> None:
        super().feed_eof()
        self._end()

    def set_exception(self, exc: Exception) -> None:
        super().set_exception(exc)
        self._end()

    def _end(self) -> None:
        self._is_over = True
        self._count(is_streaming=False)
        self._wake()

    def _count(self, *, is_streaming: bool) -> None:
        """Let the next piece be as long as it is good for, where the transport reads from the socket itself."""
        Pieces.streaming += is_streaming - self._is_streaming
        self._is_streaming = is_streaming
        wire: Any = self._wire
        if hasattr(wire, "max_size"):
            most = _LONG_PIECE_BYTES if Pieces.streaming <= _MOST_LONG else _PIECE_BYTES
            wire.max_size = most if is_streaming else _FIRST_BYTES

    def at_eof(self) -> bool:
        return self._is_over and not self._pieces

    async def take(self, is_held_up: Callable[[], bool]) -> bytes:
        """Return what has come, at least a byte; nothing at the end.

        Raises TimeoutError if nothing comes for `stall_s` during all of which a transfer was held up.
        """
        if not self._pieces and not self._is_over:
            self._is_held_up, self._was_held_up = is_held_up, is_held_up()
            self._patience.start()
            try:
                while not self._pieces and not self._is_over:
                    self._taker = self._loop_.create_future()
                    await self._taker
            finally:
                self._patience.stop()
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._held_bytes = 0
        if not self._is_lent:
            self._resume()
        return data

    def _resume(self) -> None:
        if self._is_paused and self._wire is not None:
            self._is_paused = False
            if not self._wire.is_closing():
                self._wire.resume_reading()

    def lend(self) -> bool:
        """Read nothing more from now on; tell whether all that was read has been taken, and nothing is over."""
        self._is_lent = True
        if not self._is_paused and self._wire is not None:
            self._is_paused = True
            self._wire.pause_reading()
        return not (self._pieces or self._is_over)

    def take_back(self, *, unread: bytes = b"", is_stalled: bool = False) -> None:
        """Read on, where nobody else does any more; what they read and could not use comes first."""
        self._is_lent = False
        if unread:
            self._pieces.appendleft(unread)
            self._held_bytes += len(unread)
            self._wake()
        if is_stalled:
            self._fail()
        else:
            self._resume()

    def take_back_soon(self) -> None:
        """Read on in the next round of the loop, unless it is lent by then: to begin and end that is dear."""
        self._is_lent = False
        if self._is_paused:
            self._loop_.call_soon(self._resume_unless_lent)

    def _resume_unless_lent(self) -> None:
        if not self._is_lent:
            self._resume()

    def close(self) -> None:
        """Wait for nothing any more."""
        self._patience.close()

    def _look(self) -> None:
        before, self._was_held_up = self._was_held_up, self._is_held_up() and not self._is_lent
        if not (before and self._was_held_up):
            self._patience.start()
        else:
            self._fail()

    def _fail(self) -> None:
        if self._taker is not None and not self._taker.done():
            self._taker.set_exception(TimeoutError("The peer sends nothing."))

    def _wake(self) -> None:
        if self._taker is not None and not self._taker.done():
            self._taker.set_result(None)


def _never() -> bool:
    return False


def split_head(data: bytes) -> tuple[bytes, bytes]:
    """Part a request's head from what follows it, if its end is in sight."""
    end = data.find(b"\r\n\r\n")
    return (data, b"") if end < 0 else (data[: end + 4], data[end + 4 :])


@final
class Events:
    """What h11 makes of what came, but for an empty line before a request: some clients end a body with one.

    RFC 9112 (2.2) wants that one ignored, and h11 refuses it. It has to be CRLF to the letter, and a second one is
    refused: whatever another server makes of such bytes, no request begins anywhere else for it.
    """

    def __init__(self, connection: h11.Connection) -> None:
        self._connection = connection
        self.has_skipped = False  # an empty line before the request that was said last, or is to come

    def next(self) -> Any:
        """Return the next event."""
        if self._connection.their_state is not h11.IDLE:
            self.has_skipped = False
        elif not self.has_skipped:
            came, is_over = self._connection.trailing_data
            if came == _CRLF[:1] and not is_over:
                return h11.NEED_DATA  # to h11 half a line is none
            self.has_skipped = came.startswith(_CRLF)
            if self.has_skipped:
                self._connection._receive_buffer.maybe_extract_at_most(len(_CRLF))  # noqa: SLF001 - else it says no
        return self._connection.next_event()


class Sized:
    """A body whose length was announced: h11 keeps the count, and never sees the bytes."""

    has_grown: ClassVar = False  # how large it is was known from the start

    def __init__(self, connection: h11.Connection) -> None:
        self._counter: Any = connection._reader  # noqa: SLF001 - no other way to tell it what we took
        self.taken = 0

    @property
    def left(self) -> int:
        """Bytes that were not taken yet."""
        return int(self._counter._remaining)  # noqa: SLF001

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """Part body bytes from what h11 is to see."""
        body = data[: self.left]
        self.skip(len(body))
        return body, data[len(body) :]

    def skip(self, size: int) -> None:
        """Count bytes that somebody else took."""
        self.taken += size
        self._counter._remaining -= size  # noqa: SLF001

    def is_large(self, ahead: int = 0) -> bool:
        """Tell whether to lend the connection pays for what comes behind so many bytes."""
        return self.left - ahead >= _LEAST_LOAN_BYTES

    @property
    def to_come(self) -> int | Part:
        """What a loan has to know of the bytes that are to come."""
        return self.left

    def was_lent(self, left: int) -> bool:
        """Count what a loan took, which says what it left; tell whether it was the last of the body."""
        self.skip(self.left - left)
        return not left


class Chunked:
    """A chunked body, as long as its chunks are plain: at the first that is not, h11 takes over."""

    def __init__(self) -> None:
        self.taken = 0  # bytes of the body
        self._left = 0  # of the chunk at hand, its closing CRLF included
        self._header = b""  # a chunk's header that came in part

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """Part body bytes from what h11 is to see."""
        found, rest = self.part(memoryview(data))
        return b"".join(found), rest

    def part(self, view: memoryview) -> tuple[list[memoryview], bytes]:
        """Do what `take` does, and copy nothing of the body."""
        if self._header:
            view, self._header = memoryview(self._header + view), b""
        found, at = list[memoryview](), 0
        while at < len(view):
            if self._left:
                at = self._take_chunk(view, at, found)
                if at < 0:
                    self._left = 0
                    return found, _NO_CHUNK
                continue
            header = _PLAIN_CHUNK.match(view, at)
            if header is not None and (size := int(header[1], 16)):
                whole, end = _whole_chunks(view, at, header[0], size)
                if whole:
                    found += whole
                    self.taken += size * len(whole)
                    at = end
                else:
                    self._left, at = size + len(_CRLF), header.end()
            elif header is None and _PART_OF_HEADER.fullmatch(view, at):
                self._header, at = bytes(view[at:]), len(view)
            else:
                break
        return found, bytes(view[at:])

    def is_large(self, ahead: int = 0) -> bool:  # noqa: ARG002 - what is ahead says nothing yet
        """See `Sized`."""
        return self.has_grown

    @property
    def has_grown(self) -> bool:
        """Whether so much came that more may."""
        return self.taken >= _FIRST_CHUNKS_BYTES

    @property
    def to_come(self) -> int | Part:
        """See `Sized`."""
        return self.part

    def was_lent(self, left: int) -> bool:  # noqa: ARG002 - nobody knows what is left
        """See `Sized`: it was counted when it was parted, and of its end h11 tells."""
        return False

    def _take_chunk(self, view: memoryview, at: int, found: list[memoryview]) -> int:
        """Take what is there of a chunk and its CRLF; return where it ends, or -1 if there is no CRLF."""
        stop = min(len(view), at + self._left)
        body = view[at : min(stop, max(at, at + self._left - len(_CRLF)))]
        if not _CRLF[-self._left :].startswith(bytes(view[at + len(body) : stop])):
            return -1
        found.append(body)
        self.taken += len(body)
        self._left -= stop - at
        return stop


def _whole_chunks(view: memoryview, at: int, header: bytes, size: int) -> tuple[list[memoryview], int]:
    """Find the bodies of whole chunks that follow each other and are as long as the first, as most of a sender's are.

    Returns where the last of them ends, too.

    One by one they are 12 µs each; here each byte around them is compared in all of them at once. None where that does
    not pay, or one of the first is not what it seems.
    """
    step = len(header) + size + len(_CRLF)
    count = (len(view) - at) // step
    if count < _LEAST_ALIKE:
        return [], at
    for place, byte in (*enumerate(header), *enumerate(_CRLF, len(header) + size)):
        column = bytes(view[at + place : at + count * step : step])
        count = len(column) - len(column.lstrip(bytes([byte])))
    end = at + count * step
    return [view[start : start + size] for start in range(at + len(header), end, step)], end


Direct = Sized | Chunked


def body_of(connection: h11.Connection, *, is_chunked: bool) -> Direct | None:
    """Tell how to take the body that begins now, if there is one and h11 has seen nothing of it."""
    if connection.their_state is not h11.SEND_BODY or connection.trailing_data[0]:
        return None
    return Chunked() if is_chunked else Sized(connection)
