"""Pieces of an answer in order, with those that must be decoded decoded in threads while others are sent.

Knows threads and the engine's pieces. Refuses to know where they go.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import ClassVar, Final, final

from api.config import KIB, MIB
from api.threads import Begun, Threads
from cas import CasError, FileRange, Packed

# Notes of pieces, made in one hop while those of the hop before are used.
_BATCH_PIECES: Final = 64
_BATCH_BYTES: Final = 512 * KIB
_NOTED_BYTES: Final = 8 * MIB
# Pieces that are decoded, or on their way to be, beside the one that is sent: two threads take turns. With many
# answers at once there are threads enough, and memory counts.
_MOST_AHEAD: Final = 2
_FEW_ANSWERS: Final = 8


@final
class Ahead:
    """The pieces of one answer, made ready while those before them are sent."""

    active: ClassVar[int] = 0  # answers at work in this process, all on its one loop

    def __init__(self, plan: Iterator[FileRange | Packed | bytes], threads: Threads) -> None:
        self._plan, self._threads = plan, threads
        self._waiting: deque[FileRange | bytes | Begun[bytes]] = deque()
        self._begin_next = threads.begin  # of what may be all there is

    async def pieces(self) -> AsyncGenerator[FileRange | bytes, None]:
        """Yield each piece when it is ready; however this ends, no thread is at work for it afterwards.

        Raises:
            CasError: planning or decoding the next piece failed; all pieces before it were yielded.
        """
        failed: CasError | None = None
        Ahead.active += 1
        try:
            try:
                async with aclosing(self._threads.batches(self._plan, _is_full)) as batches:
                    async for batch in batches:
                        for piece in batch:
                            self._begin(piece)
                            while self._is_next_due():
                                yield await _ready(self._waiting[0])
                                self._waiting.popleft()
            except CasError as error:
                failed = error
            while self._waiting:
                yield await _ready(self._waiting[0])
                self._waiting.popleft()
        finally:
            Ahead.active -= 1
            await self._give_up()
        if failed is not None:
            raise failed

    def _begin(self, piece: FileRange | Packed | bytes) -> None:
        self._waiting.append(self._begin_next(_joined, piece) if isinstance(piece, Packed) else piece)
        self._begin_next = self._threads.begin_long

    def _is_next_due(self) -> bool:
        """Tell whether the next piece has to be used before another one is begun, or costs nothing to wait for."""
        most = _MOST_AHEAD if self.active <= _FEW_ANSWERS else 1
        return len(self._waiting) > most or (bool(self._waiting) and not isinstance(self._waiting[0], Begun))

    async def _give_up(self) -> None:
        for each in self._waiting:
            if isinstance(each, Begun):
                await each.give_up()


def _joined(piece: Packed) -> bytes:
    return b"".join(piece.load())


async def _ready(piece: FileRange | bytes | Begun[bytes]) -> FileRange | bytes:
    return await piece.result() if isinstance(piece, Begun) else piece


def _is_full(batch: list[FileRange | Packed | bytes]) -> bool:
    """Tell whether a batch is large enough: bytes are memory; a note is little, but not the row behind it."""
    made = sum(len(piece) for piece in batch if isinstance(piece, bytes))
    noted = sum(piece.count for piece in batch if isinstance(piece, Packed))
    return made >= _BATCH_BYTES or noted >= _NOTED_BYTES or len(batch) >= _BATCH_PIECES
