"""Bytes to a socket that does not block: a step whenever it takes some, and an end once its peer takes nothing more.

Knows sockets and the loop. Refuses to know what is sent.
"""

from __future__ import annotations

import asyncio
import fcntl
import struct
import termios
from collections.abc import Callable
from typing import final


class Stalled(Exception):
    """The peer took nothing for as long as it may. Theirs; nothing is lost by dropping it."""


async def wait_writable(fd: int, stall_s: float) -> None:
    """Wait until a socket takes bytes again; raise Stalled once its peer took none for stall_s."""
    await _Flow(fd, stall_s, lambda: False).wait()


async def flow(fd: int, stall_s: float, step: Callable[[], bool]) -> None:
    """Take a step, and another one whenever the socket takes bytes, until one says that it was the last.

    Raises:
        Stalled: the peer took nothing for stall_s.
    """
    try:
        if not step():
            return
    except BlockingIOError:
        pass
    await _Flow(fd, stall_s, step).wait()


@final
class _Flow:
    """Steps whenever a socket takes bytes. The other connections have their turn in between.

    A step is a call of the loop and no more: a task that waited anew for each would cost more than the steps do.
    """

    def __init__(self, fd: int, stall_s: float, step: Callable[[], bool]) -> None:
        self._loop = asyncio.get_running_loop()
        self._fd, self._stall_s, self._step = fd, stall_s, step
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._left, self._has_moved = unsent_bytes(fd), False

    async def wait(self) -> None:
        """Wait for the last step; raise what a step raises."""
        self._timer = self._loop.call_later(self._stall_s, self._look)
        self._loop.add_writer(self._fd, self._go)
        try:
            await self._over
        finally:
            self._timer.cancel()
            self._loop.remove_writer(self._fd)

    def _go(self) -> None:
        if self._over.done():
            return
        try:
            is_more = self._step()
            self._has_moved = True
            if not is_more:
                self._over.set_result(None)
        except BlockingIOError:
            pass
        except Exception as error:  # noqa: BLE001 - for whoever waits
            self._over.set_exception(error)

    def _look(self) -> None:
        """Fail if the peer took nothing since the last look.

        A socket counts as writable only when a good part of its buffer is free. A slow peer may need longer than
        the limit for that, and is no dead one: what counts is whether the queue shrinks.
        """
        before, self._left = self._left, unsent_bytes(self._fd)
        has_moved, self._has_moved = self._has_moved, False
        if has_moved or self._left < before:
            self._timer = self._loop.call_later(self._stall_s, self._look)
        elif not self._over.done():
            self._over.set_exception(Stalled(f"The peer took nothing for {self._stall_s} s."))


def unsent_bytes(fd: int) -> int:
    """Count the bytes in a socket's send queue that its peer has not acknowledged."""
    (count,) = struct.unpack("i", fcntl.ioctl(fd, termios.TIOCOUTQ, b"\0\0\0\0"))
    return int(count)
