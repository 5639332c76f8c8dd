"""An answer that threads make ready and write to its connection by themselves, two in turns: one writes, one decodes.

Knows threads and the engine's pieces. Refuses to know sockets: it is given an outlet, and hands the loop what a slow
client did not take.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import ClassVar, Final, Protocol, final

from api.config import KIB, MIB
from api.outlet import Outlet, ShortFile
from api.threads import Threads
from cas import Damaged, FileRange, Packed

Ready = FileRange | Sequence[memoryview]
Piece = Ready | Packed | bytes

# What threads write before the loop looks again, for all answers of the worker together; each gets at least a piece.
# An answer that is alone gives way to nobody, and a round costs it a hop to the loop and the beginning of two threads.
_ROUND_BYTES: Final = 8 * MIB
_LONE_ROUND_BYTES: Final = 64 * MIB
# What a thread takes for one turn, though never less than a piece: where files and frames alternate, most are small.
_TURN_BYTES: Final = 256 * KIB
_TURN_PIECES: Final = 64
# With more answers than this there are threads at work enough; then each has one, and holds half the memory.
_FEW_ANSWERS: Final = 4
# Longer ranges of files are sent by the loop: it knows what is cached, and reads ahead of what is not.
_SHORT_BYTES: Final = 512 * KIB


class Source(Protocol):
    """Where the bytes come from."""

    def ends_early(self, fd: int, missing: int, /) -> Damaged: ...


@final
class Relay:
    """The pieces of one answer on their way from threads to a client."""

    active: ClassVar[int] = 0  # answers on their way in this process, all on its one loop

    def __init__(self, source: Source, plan: Iterator[FileRange | Packed | bytes], threads: Threads) -> None:
        self._source, self._threads = source, threads
        self._plan = plan
        self._ahead: Piece | None = None  # comes before what is left of the plan
        self._taking = threading.Lock()
        self._before = threading.Lock()  # free once all pieces that were taken are written, or put aside
        self._room = 0  # bytes that may be taken in this round
        self._is_over = False  # nothing more is to be taken
        self._rests: list[Ready] = []  # what is to be sent before anything else is written, in order
        self._error: Exception | None = None  # what comes after all that

    async def begin(self) -> Sequence[memoryview] | None:
        """Make the first piece ready, and return it where it is in memory; it is written first all the same.

        Raises:
            CasError: it cannot be trusted, or had.
        """
        first = await self._threads.begin(self._first).result()
        return None if isinstance(first, FileRange) else first

    def _first(self) -> Ready:
        ready = _made_ready(next(self._plan, b""))
        if isinstance(ready, Exception):
            raise ready
        self._ahead = ready
        return ready

    async def write(self, outlet: Outlet) -> None:
        """Write all of it; however this ends, no thread is at work for it afterwards.

        Raises:
            CasError: the next bytes cannot be trusted, or had; all before them were written.
            OSError, Stalled: the client is gone, or takes nothing.
        """
        Relay.active += 1
        try:
            while not self._is_over:
                await self._round(outlet)
                for rest in self._rests:
                    await self._finish(outlet, rest)
                self._rests.clear()
                if self._error is not None:
                    raise self._error
        finally:
            Relay.active -= 1

    async def _round(self, outlet: Outlet) -> None:
        self._room = _LONE_ROUND_BYTES if self.active == 1 else _ROUND_BYTES // self.active
        outlet.renew()
        hands = 2 if outlet.is_quick and self.active <= _FEW_ANSWERS else 1
        begun = [self._threads.begin_long(self._work, outlet) for _ in range(hands)]
        try:
            for each in begun:
                await each.result()
        except BaseException:
            self._is_over = True
            for each in begun:
                await each.give_up()
            raise

    async def _finish(self, outlet: Outlet, rest: Ready) -> None:
        try:
            await outlet.finish(rest)
        except ShortFile as error:
            assert isinstance(rest, FileRange)
            raise self._source.ends_early(rest.fd, error.missing) from error

    def _work(self, outlet: Outlet) -> None:
        """Write pieces, in turns with whoever else does, until the round is over."""
        while self._step(outlet):
            pass

    def _step(self, outlet: Outlet) -> bool:
        """Take the next pieces, make them ready, and write them when it is their turn; False if there are none."""
        with self._taking:
            taken = self._take()
            if not taken:
                return False
            before, self._before = self._before, _taken_lock()
            mine = self._before
        ready = [_made_ready(piece) for piece in taken]
        with before:
            for each in ready:
                self._put(outlet, each)
        mine.release()
        return True

    def _take(self) -> list[Piece | Exception]:
        """Take pieces for one turn: few handings over, and little in memory."""
        taken: list[Piece | Exception] = []
        most = self._room - _TURN_BYTES
        while len(taken) < _TURN_PIECES and self._room > most and (piece := self._next()) is not None:
            taken.append(piece)
        return taken

    def _next(self) -> Piece | Exception | None:
        """Return the next piece, or what is in its place; None if there is none, or this round is over."""
        if self._is_over or self._error is not None or self._room <= 0 or len(self._rests) >= _TURN_PIECES:
            return None
        try:
            piece = self._ahead if self._ahead is not None else next(self._plan, None)
        except Exception as error:  # noqa: BLE001 - for whoever waits
            self._is_over = True
            return error
        # Whatever comes after what was put aside is put aside as well, so it should cost nothing.
        self._ahead = piece if self._rests and not isinstance(piece, FileRange) else None
        if self._ahead is not None:
            return None
        if piece is None:
            self._is_over = True
        else:
            self._room -= _work_bytes(piece)
        return piece

    def _put(self, outlet: Outlet, ready: Ready | Exception) -> None:
        """Write what is ready; put aside what the client does not take, and then whatever comes after it."""
        if self._error is not None:
            return
        if isinstance(ready, Exception):
            self._error = ready
        elif self._rests:
            self._rests.append(ready)
        else:
            try:
                rest = self._written(outlet, ready)
            except Exception as error:  # noqa: BLE001 - for whoever waits
                self._error = error
            else:
                self._rests += rest

    def _written(self, outlet: Outlet, ready: Ready) -> list[Ready]:
        """Write, and return what is left."""
        if not isinstance(ready, FileRange):
            rest = outlet.write(ready)
            return [rest] if rest else []
        if ready.count > _SHORT_BYTES:
            return [ready]
        try:
            place = outlet.write_file(ready)
        except ShortFile as error:
            raise self._source.ends_early(ready.fd, error.missing) from error
        return [place] if place.count else []


def _made_ready(piece: Piece | Exception) -> Ready | Exception:
    if isinstance(piece, bytes):
        return [memoryview(piece)]
    if not isinstance(piece, Packed):
        return piece
    try:
        return piece.load()
    except Exception as error:  # noqa: BLE001 - for whoever waits
        return error


def _work_bytes(piece: Piece) -> int:
    """Return how many bytes of a piece keep a thread busy."""
    if isinstance(piece, FileRange):
        return piece.count if piece.count <= _SHORT_BYTES else 0
    if isinstance(piece, Packed):
        return piece.count
    return len(piece) if isinstance(piece, bytes) else sum(map(len, piece))


def _taken_lock() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock
