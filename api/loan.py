"""A connection lent to its application, whose threads read a body from the socket straight to where it is wanted (I5).

On the ordinary way each piece of a body wakes the loop, is copied twice, and is handed from task to task before a
thread sees it. Here the loop only learns that a whole block has come, and one thread does the rest. Knows sockets;
refuses to know framing: `api/http1.py` says how long a body is, or gives what parts it from the chunks it comes in. A
thread waits for bytes a few milliseconds at most; a client that is slower is waited for by the loop.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import select
import socket
import struct
import termios
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, final

EXTENSION: Final = "cas.request.loan"

# How long a thread waits for more of a body: a client that sends 256 KiB in this time has 400 Mbit/s.
_PATIENCE_MS: Final = 5
# How often the loop looks what is there of a chunked body: it may be the end, however little it is.
_GLANCE_S: Final = 0.02
_ENDLESS: Final = 1 << 62

# Parts bytes of a body from what is not to be read as one; `Chunked.part` is one.
Part = Callable[[memoryview], tuple[list[memoryview], bytes]]


class Lender(Protocol):
    """What an application finds in its scope where connections are lent."""

    async def __call__(self, received: int, /) -> Loan | None:
        """Lend what is left of the body after so many bytes; None if more waits to be received, or it cannot be."""


class Source(Protocol):
    """What a body is read from.

    Attributes:
        is_dry: whether everything that came was read, but for what the socket has, and less than `slack_bytes`.
    """

    is_dry: bool
    slack_bytes: int

    def read(self, sock: socket.socket, into: memoryview, /) -> int:
        """Fill memory as `recv_into` does."""


@final
class Plain:
    """The socket itself."""

    is_dry = True
    slack_bytes = 0

    def read(self, sock: socket.socket, into: memoryview) -> int:
        return sock.recv_into(into)


@final
class Loan:
    """What is left of one body, to be read from its socket. To be closed; nobody else reads meanwhile."""

    def __init__(
        self,
        sock: Any,
        left: int | Part,
        stall_s: float,
        ended: Callable[[Loan], Awaitable[None]],
        source: Source | None = None,
    ) -> None:
        """Borrow a socket.

        Args:
            sock: what asyncio lets us have of its own.
            left: bytes of the body that are still to come; or, where nobody knows, what finds them in what comes.
            stall_s: how long its client may send nothing.
            ended: told when it is over; `left`, `unread` and `is_stalled` then say how.
            source: reads what comes on the socket, if not that itself.
        """
        self._source: Source = source or Plain()
        # A duplicate: the loop lets nobody else watch its transport's descriptor, and a thread that is still
        # reading when the transport closes must not find the number given to another connection.
        self._sock = socket.socket(sock.family, sock.type, sock.proto, os.dup(sock.fileno()))
        self._poll = select.poll()
        self._poll.register(self._sock, select.POLLIN)
        self._stall_s, self._ended = stall_s, ended
        self._loop = asyncio.get_running_loop()
        self._part = None if isinstance(left, int) else left
        self.left = left if isinstance(left, int) else _ENDLESS
        self.unread = b""  # what came and is no part of the body, or may be none; then it is over
        self._is_quick = True  # at the last read, and nothing is known yet before the first
        self.is_over = False  # nothing more can be read by us
        self.is_stalled = False

    def read(self, into: memoryview) -> int:
        """Fill memory with the next bytes, in a thread; less than all of it once the client is slow, or gone."""
        got, most = 0, min(len(into), self.left)
        while got < most and not self.is_over:
            try:
                more = self._receive(into[got:most])
            except BlockingIOError:
                if self._is_late(most - got):
                    break
                continue
            except OSError:
                more, self.is_over = 0, True  # the transport will find out why
            got += more
        self._is_quick = got == most
        self.left -= got
        return got

    def _receive(self, into: memoryview) -> int:
        """Receive into memory; return how many bytes of the body that were."""
        got = self._source.read(self._sock, into)
        self.is_over = not got
        if self._part is None:
            return got
        found, self.unread = self._part(into[:got])
        self.is_over |= bool(self.unread)
        at = 0
        for body in found:  # to the front, over what is about the chunks
            into[at : at + len(body)] = body
            at += len(body)
        return at

    def _is_late(self, wanted: int) -> bool:
        """Wait a little for so many bytes; tell whether they did not come."""
        self._wake_at(wanted if self._part is None else 1)
        return not self._poll.poll(_PATIENCE_MS)

    def _wake_at(self, wanted: int) -> None:
        """Have the kernel wake us for so many bytes only, or for the end; it makes its buffer large enough."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, max(wanted - self._source.slack_bytes, 1))

    @property
    def is_ready(self) -> bool:
        """Whether bytes are here to be read."""
        return self.is_over or self._has_more()

    async def wait(self, wanted: int) -> None:
        """Wait on the loop until so many bytes are here, or the last ones, or the end, or nothing came for too long.

        Of a client that was quick, anything will do: a thread may wait a little for the rest.
        """
        if self._is_quick and self._has_more():
            return
        ready: asyncio.Future[None] = self._loop.create_future()
        self._wake_at(min(wanted, self.left))
        self._look(ready, -1)
        self._loop.add_reader(self._sock, _settle, ready)
        if self._part is not None:
            self._glance(ready)
        try:
            await ready
        finally:
            self._loop.remove_reader(self._sock)
            self._timer.cancel()

    def _glance(self, ready: asyncio.Future[None]) -> None:
        """Make do with less than was wanted."""
        if ready.done():
            return  # and perhaps closed
        if self._has_more():
            _settle(ready)
        else:
            self._loop.call_later(_GLANCE_S, self._glance, ready)

    def _look(self, ready: asyncio.Future[None], before: int) -> None:
        """A slow client is no dead one: what counts is whether there is more than there was."""
        here = self._unread_bytes()
        if here == before:
            self.is_over = self.is_stalled = True
            _settle(ready)
        self._timer = self._loop.call_later(self._stall_s, self._look, ready, here)

    def _has_more(self) -> bool:
        return not self._source.is_dry or bool(self._unread_bytes())

    def _unread_bytes(self) -> int:
        (count,) = struct.unpack("i", fcntl.ioctl(self._sock, termios.FIONREAD, b"\0\0\0\0"))
        return int(count)

    async def close(self) -> None:
        """Give the connection back."""
        self._wake_at(1)
        self._sock.close()
        await self._ended(self)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
