"""asyncio's TLS on one connection, from inside: what it tells nobody, and what it leaves to others for a while.

Knows `asyncio.sslproto`, and that OpenSSL's objects are for one thread at a time. Refuses to know what is sent or read.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from asyncio.sslproto import SSLProtocolState
from contextlib import suppress
from itertools import count
from typing import Any, Final, final

from api.config import KIB

# Encrypted bytes taken from the socket at once: eight records. And how often in one read without anything for it: what
# is only about TLS a peer may send for ever, while others wait for the thread.
_TAKEN_BYTES: Final = 128 * KIB
_IDLE_TAKES: Final = 4
# What may have come of a record that is not whole, so that nothing of it can be had (RFC 8446, 5.2: 2^14 + 256 + 5).
_RECORD_BYTES: Final = 17 * KIB


@final
class Decrypted:
    """What comes on a connection, decrypted by whoever reads it.

    Attributes:
        is_dry: whether everything that came was read, but for a part of a record.
        slack_bytes: how much that part may be.
    """

    slack_bytes = _RECORD_BYTES

    def __init__(self, tls: ssl.SSLObject, incoming: ssl.MemoryBIO) -> None:
        self._tls, self._incoming = tls, incoming
        self._taken = memoryview(bytearray(_TAKEN_BYTES))
        self.is_dry = False

    def read(self, sock: socket.socket, into: memoryview) -> int:
        """Fill memory; return how much of it: less only if no more has come, and nothing at the end.

        Raises:
            BlockingIOError: nothing has come.
            OSError: the peer is gone, or speaks no TLS any more.
        """
        got = 0
        try:
            while got < len(into) and (more := self._read(sock, into[got:])):
                got += more
        except BlockingIOError:
            if not got:
                raise
        return got

    def _read(self, sock: socket.socket, into: memoryview) -> int:
        """Read of one record, which may have to come first; raise as `read` does."""
        for takes in count():
            try:
                return int(self._tls.read(len(into), into))
            except ssl.SSLWantReadError:
                if not self._take(sock, is_late=takes >= _IDLE_TAKES):
                    break
        return 0

    def _take(self, sock: socket.socket, *, is_late: bool) -> bool:
        """Take what came; False if nothing will any more.

        Raises:
            BlockingIOError: nothing has come, or it was enough for now.
        """
        self.is_dry = True
        if is_late:
            raise BlockingIOError
        size = sock.recv_into(self._taken)
        self.is_dry = False
        self._incoming.write(self._taken[:size])
        return size > 0


@final
class Layer:
    """TLS as asyncio does it on one connection.

    Attributes:
        is_lent: whether somebody else reads. Until they are done nothing may be written.
    """

    def __init__(self, transport: asyncio.WriteTransport) -> None:
        self._transport: Any = transport
        self.is_lent = self._is_cut = self._was_reading = False

    @property
    def is_deaf(self) -> bool:
        """Whether the peer left and nobody was told yet: asyncio tells no writer, but the log at each write."""
        if self._transport.is_closing():
            return False
        wire, state = self._wire, self._transport._ssl_protocol._state  # noqa: SLF001
        return wire is None or wire.is_closing() or state is not SSLProtocolState.WRAPPED

    @property
    def _wire(self) -> Any:
        layer = self._transport._ssl_protocol  # noqa: SLF001
        return None if layer is None else layer._transport  # noqa: SLF001

    async def lend(self) -> Decrypted | None:
        """Let somebody else read until `take_back`; None if that cannot be done now. Our own reader has paused."""
        await asyncio.sleep(0)  # it may have been told to go on just before, and would do so a moment later
        if self.is_lent or self._transport.is_closing() or self.is_deaf:
            return None
        layer, wire = self._transport._ssl_protocol, self._wire  # noqa: SLF001
        if layer._get_write_buffer_size() or wire.get_write_buffer_size():  # noqa: SLF001 - it would write meanwhile
            return None
        source = Decrypted(layer._sslobj, layer._incoming)  # noqa: SLF001
        self._was_reading = wire.is_reading()
        wire.pause_reading()
        self.is_lent = True
        return source

    def take_back(self) -> None:
        """Go on where they stopped."""
        self.is_lent = False
        if self._is_cut:
            self.cut()
        elif self._was_reading and (wire := self._wire) is not None:
            wire.resume_reading()

    def cut(self) -> None:
        """End the connection now, or as soon as whoever reads hears of it: they use what would be freed."""
        if self.is_lent:
            self._is_cut = True
            with suppress(OSError):
                self._transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
            return
        # Up to CPython 3.11.2 a transport that is gone already stumbles here over what it let go of.
        with suppress(AttributeError):
            self._transport.abort()
