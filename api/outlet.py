"""A connection lent to its application, whose threads write a body to the socket as soon as they have it (I5).

On the ordinary way each piece of a body is handed from a thread to the loop, and from task to task, before the kernel
sees it. Here the thread that made a piece writes it, and the loop only waits where the socket is full: a thread waits
a few milliseconds at most, and not at all once the client turned out to be slow. Knows sockets; refuses to know what is
written, and how bodies are framed. The way in is `api/loan.py`.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, final

from hypercorn.events import Event
from hypercorn.protocol.events import Event as StreamEvent

from api.config import MIB
from api.flow import flow
from cas import REPAIR, FileRange

EXTENSION: Final = "cas.response.loan"

# How long threads wait for room in all, for each so many bytes, before they leave it to the loop: whoever takes them at
# 13 Gbit/s beside what it took to make them is quick, and few clients are to hold few threads.
_PATIENCE_S: Final = 0.005
_PATIENT_BYTES: Final = 8 * MIB
# Buffers of one call; the kernel takes 1,024 (IOV_MAX).
_MOST_BUFFERS: Final = 1000

Body = Callable[["Outlet"], Awaitable[None]]
"""Writes a body of the length that was announced; an application's."""


class ShortFile(Exception):
    """A file ends so many bytes before what was promised of it. Ours to mend; the answer must not look complete."""

    def __init__(self, missing: int) -> None:
        super().__init__(f"a stored file ends {missing} bytes early; {REPAIR}")
        self.missing = missing


def missing_bytes(place: FileRange) -> int:
    """Tell how many bytes of a range its file lacks, as seen by whoever could not send all of it."""
    return max(place.offset + place.count - os.fstat(place.fd).st_size, 0)


@dataclass(frozen=True)
class LentBody(StreamEvent):
    """A body, or a part of one, that its application writes by itself."""

    count: int
    write: Body


@dataclass(frozen=True)
class LentData(Event):
    """The same on its way to the connection, and what comes before."""

    count: int
    write: Body
    before: bytes = b""


@final
class Outlet:
    """One connection, until its body is written. Whoever writes does so alone: the caller sees to that.

    Attributes:
        is_quick: whether the client takes what comes nearly as fast as it comes.
        memory_bytes: written so far from memory.
        file_bytes: written so far by `sendfile`, in so many `file_calls`; what the loop sent of files counts elsewhere.
    """

    def __init__(self, out: socket.socket, stall_s: float, send_file: Callable[[FileRange], Awaitable[None]]) -> None:
        """Not for applications: they are given one.

        Args:
            out: a duplicate of the connection's own, which does not block; closed by whoever made it.
            stall_s: how long the client may take nothing.
            send_file: sends a range of a file on the loop, whole.
        """
        self._out, self._stall_s, self._send_file = out, stall_s, send_file
        self._poll = select.poll()
        self._poll.register(out, select.POLLOUT)
        self._patience_s = _PATIENCE_S
        self.is_quick = True
        self.memory_bytes = self.file_bytes = self.file_calls = 0

    def write(self, data: Sequence[memoryview]) -> Sequence[memoryview]:
        """Write memory, in a thread; return what the client did not take in time.

        Raises:
            OSError: it is gone.
        """
        while data:
            try:
                data = self._send(data)
            except BlockingIOError:
                if self._is_late():
                    break
        return data

    def write_file(self, place: FileRange) -> FileRange:
        """Write a range of a file, in a thread; return what the client did not take in time.

        Raises:
            ShortFile: the file ends before.
            OSError: the client is gone, or the disk refused.
        """
        while place.count:
            try:
                moved = os.sendfile(self._out.fileno(), place.fd, place.offset, place.count)
            except BlockingIOError:
                if self._is_late():
                    break
                continue
            if not moved:
                raise ShortFile(place.count)
            self.file_bytes += moved
            self.file_calls += 1
            self._took(moved)
            place = FileRange(place.fd, place.offset + moved, place.count - moved)
        return place

    async def finish(self, rest: Sequence[memoryview] | FileRange) -> None:
        """Write all that is left, on the loop, whenever the client takes something.

        Raises:
            ShortFile: see `write_file`.
            OSError, Stalled: the client is gone, or takes nothing.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        if isinstance(rest, FileRange):
            await self._send_file(rest)
        else:
            await self._send_all(rest)
        self.is_quick = loop.time() - began < _PATIENCE_S

    async def _send_all(self, data: Sequence[memoryview]) -> None:
        def step() -> bool:
            nonlocal data
            data = self._send(data)
            return bool(data)

        await flow(self._out.fileno(), self._stall_s, step)

    def _send(self, data: Sequence[memoryview]) -> Sequence[memoryview]:
        """Write what the socket takes now; return the rest."""
        taken = self._out.sendmsg(data[:_MOST_BUFFERS])
        self.memory_bytes += taken
        self._took(taken)
        for number, piece in enumerate(data):
            if taken < len(piece):
                return [piece[taken:], *data[number + 1 :]]
            taken -= len(piece)
        return ()

    def renew(self) -> None:
        """Let threads wait for room again, if the client was quick."""
        self._patience_s = _PATIENCE_S

    def _took(self, count: int) -> None:
        self._patience_s = min(_PATIENCE_S, self._patience_s + count * _PATIENCE_S / _PATIENT_BYTES)

    def _is_late(self) -> bool:
        """Wait a little for room, if that may help; tell whether there is none."""
        began = time.monotonic()
        has_room = self.is_quick and bool(self._poll.poll(1000 * self._patience_s))
        self._patience_s -= time.monotonic() - began
        self.is_quick = has_room and self._patience_s > 0
        return not has_room
