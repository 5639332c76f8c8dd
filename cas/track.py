"""Stored bytes of one pack looked at in the order they lie in, past the page cache, the next ones read meanwhile.

Layer: L4. Only bytes that a record stands on are read: what lies behind them may be taken back and written anew, and
what was read too early would prove something of bytes that are not there any more (I3).
"""

from __future__ import annotations

import ctypes
from collections import deque
from typing import TYPE_CHECKING, Final

from cas.direct import BLOCK

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor
    from mmap import mmap

    from cas.direct import Buffers
    from cas.disk import Disk

STEP_BYTES: Final = 2 << 20
STEPS: Final = 2  # one that is looked at, one that is read meanwhile

_memcmp = ctypes.CDLL(None).memcmp  # of the two comparisons of memory that Python has, one copies and one is slow


class Track:
    """A way through a pack. For one thread at a time; to be closed."""

    def __init__(self, disk: Disk, pool: ThreadPoolExecutor, buffers: Buffers) -> None:
        """Begin nowhere.

        Args:
            disk: what reads.
            pool: threads that read ahead.
            buffers: of `STEP_BYTES`, shared with others; whoever gets none has no track.
        """
        self._disk, self._pool, self._buffers = disk, pool, buffers
        self._direct, self._at, self._stop = -1, 0, 0
        self._steps: deque[_Step] = deque()

    def begin(self, direct: int, start: int, stop: int) -> bool:
        """Go on from `start`; tell whether there is memory for it.

        Args:
            direct: a descriptor of the pack as `Disk.open_direct` returns it, open until `close`.
            start: where what is asked for first begins.
            stop: up to where the pack's bytes stay as they are.
        """
        self.close()
        self._direct, self._at, self._stop = direct, start - start % BLOCK, stop
        return direct >= 0 and self._read_on()

    def reaches(self, start: int, stop: int) -> bool:
        """Whether these bytes are here, or come next."""
        return bool(self._steps) and self._steps[0].start <= start < self._at + STEP_BYTES and stop <= self._stop

    def is_same(self, chunk: memoryview, offset: int) -> bool:
        """Whether the pack has these bytes at a place that is reached; no too if they are not to be had.

        Args:
            chunk: in memory that may be written.
            offset: in the pack, behind or at what was asked for last.
        """
        while len(chunk):
            stored = self._stored(offset)
            part = min(len(chunk), len(stored))
            if not part or not same_memory(stored[:part], chunk[:part]):
                return False
            chunk, offset = chunk[part:], offset + part
        return True

    def close(self) -> None:
        """Wait for what is being read, and give the memory back."""
        while self._steps:
            self._drop()

    def _stored(self, offset: int) -> memoryview:
        """Return what is here from a place on; nothing if that is not to be had."""
        while self._steps and offset >= self._steps[0].start + STEP_BYTES:
            self._drop()
        while len(self._steps) < STEPS and self._read_on():
            pass
        if not self._steps:
            return memoryview(b"")
        step = self._steps[0]
        return memoryview(step.memory)[: step.done.result()][offset - step.start :]

    def _read_on(self) -> bool:
        """Have the next bytes read; tell whether there are any, and memory for them."""
        memory = self._buffers.borrow(STEP_BYTES) if self._at < self._stop else None
        if memory is None:
            return False
        direct, start, most = self._direct, self._at, min(STEP_BYTES, self._stop - self._at)

        def read() -> int:
            with memoryview(memory) as view:
                return min(most, self._disk.read_direct(direct, view[: -(-most // BLOCK) * BLOCK], start))

        try:
            done = self._pool.submit(read)
        except RuntimeError:  # how a pool says that it was shut down
            self._buffers.put_back(memory)
            return False
        self._steps.append(_Step(start, memory, done))
        self._at += STEP_BYTES
        return True

    def _drop(self) -> None:
        step = self._steps.popleft()
        step.done.result()
        self._buffers.put_back(step.memory)


class _Step:
    """Bytes on their way into memory."""

    __slots__ = ("done", "memory", "start")

    def __init__(self, start: int, memory: mmap, done: Future[int]) -> None:
        self.start, self.memory, self.done = start, memory, done


def same_memory(one: memoryview, other: memoryview) -> bool:
    """Compare writable memory of one length by memcmp, while other threads run."""
    address = ctypes.c_char.from_buffer
    return not _memcmp(ctypes.byref(address(one)), ctypes.byref(address(other)), len(one))
