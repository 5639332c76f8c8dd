"""Ranges of files to a TLS connection: what has to be encrypted goes through memory, but through little of it.

Knows files, and how much asyncio's TLS takes well at once. Refuses to know blobs, routes, and how that encrypts.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable
from typing import ClassVar, Final, final

from api.config import KIB
from api.outlet import ShortFile
from api.page_cache import read_far_ahead
from api.threads import Threads
from api.zerocopy import FileData, sent

# Whole records of 16 KiB, and with what is about them less than malloc has the kernel make anew each time (128 KiB).
# What was read, encrypted and sent before lies in the core's own cache then, and half of what a byte costs is gone.
_RECORDS_BYTES: Final = 112 * KIB
# What one connection sends before the others have their turn: half a millisecond.
_TURN_BYTES: Final = 4 * _RECORDS_BYTES
# What a read that must not wait says of what is not in memory, or of filesystems that cannot tell.
_AWAY: Final = (errno.EAGAIN, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)


def _memory() -> memoryview:
    return memoryview(bytearray(_RECORDS_BYTES))


@final
class SealedSender:
    """Moves ranges of files, and pieces of memory, to one TLS connection. One at a time; the caller sees to that.

    Attributes:
        moved_bytes: of files, so far.
    """

    _memory: ClassVar[memoryview] = _memory()  # of all connections: none of them waits with it

    def __init__(
        self,
        write: Callable[[bytes | memoryview], bool],
        drain: Callable[[], Awaitable[None]],
        cold: Threads,
    ) -> None:
        """Make one for a connection.

        Args:
            write: encrypts and sends; tells whether that is all done, so that the memory may be used again.
            drain: waits until more may be written.
            cold: threads that may wait for a disk.
        """
        self._write, self._drain, self._cold = write, drain, cold
        self._at_once = 0  # bytes sent since the other connections had their turn
        self.moved_bytes = 0

    async def send(self, data: FileData) -> None:
        """Send what comes before the range, and the range whole, or raise ShortFile, or what writing raises."""
        at, stop, before = data.offset, data.offset + data.count, data.before
        while at < stop:
            if self._at_once >= _TURN_BYTES:
                await asyncio.sleep(0)
                self._at_once = 0
            try:
                got = await self._send_warm(data.fd, at, stop, before)
            except OSError as error:
                if error.errno not in _AWAY:
                    raise
                got = await self._send_cold(data.fd, at, min(stop, at + _TURN_BYTES), before)
            self._at_once += got
            at, before = at + got, b""

    async def send_bytes(self, data: bytes) -> None:
        """Send all of it, or raise what writing raises."""
        rest = memoryview(data)
        while rest:
            if not self._write(rest[:_RECORDS_BYTES]):
                await self._drain()
            rest = rest[_RECORDS_BYTES:]

    async def _send_warm(self, fd: int, at: int, stop: int, before: bytes) -> int:
        """Send what the page cache has of the next bytes, as much as is done at once."""
        memory = SealedSender._memory
        memory[: len(before)] = before
        got = os.preadv(fd, [memory[len(before) : len(before) + stop - at]], at, os.RWF_NOWAIT)
        self._count(got, stop - at)
        if not self._write(memory[: len(before) + got]):
            SealedSender._memory = _memory()  # of the one before something may still be needed
            await self._drain()
        return got

    async def _send_cold(self, fd: int, at: int, stop: int, before: bytes) -> int:
        """Send from disk, for which a thread waits."""
        sent.cold_calls += 1
        data = await self._cold.run(_read, fd, at, stop)
        self._count(len(data), stop - at)
        await self.send_bytes(before + data)
        return len(data)

    def _count(self, got: int, wanted: int) -> None:
        if not got:
            raise ShortFile(wanted)
        self.moved_bytes += got
        sent.body_bytes += got


def _read(fd: int, at: int, stop: int) -> bytes:
    read_far_ahead(fd)
    return os.pread(fd, stop - at, at)
