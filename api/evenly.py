"""Which worker takes the next connection: the one that is busy with fewest, as far as each can tell.

Workers that share a listening socket are all woken by a newcomer. Left to chance, of four transfers at once one worker
gets three as often as not, and the last of them ends late. Each worker's number stands in memory that all share, and
may be a moment old; so it decides who goes first, and never whether a newcomer is taken. Knows memory, and refuses to
know sockets.
"""

from __future__ import annotations

import mmap
import os
from typing import Final, final

_NUMBER_BYTES: Final = 8
# Who has more than this many times the least lets others go first. Of few connections one more counts; of many it does
# not, and a burst of newcomers would wait for each other.
_MORE, _THAN = 4, 5


def shared_memory(workers: int) -> int:
    """Make memory for so many workers; return its descriptor, which is theirs to inherit and the caller's to close."""
    fd = os.memfd_create("cas-evenly")
    os.ftruncate(fd, workers * _NUMBER_BYTES)
    return fd


@final
class Balance:
    """What each worker is busy with. A worker that has said nothing, or was forgotten, does not count."""

    def __init__(self, fd: int | None = None) -> None:
        """Look at memory that others share; without a descriptor nobody else is there."""
        size = _NUMBER_BYTES if fd is None else os.fstat(fd).st_size
        self._numbers = memoryview(mmap.mmap(-1 if fd is None else fd, size)).cast("q")

    def join(self, place: int) -> Burden:
        """Be the worker in this place, the first being 0; nothing keeps it busy yet."""
        self._numbers[place] = 1
        return Burden(self._numbers, place)

    def forget(self, place: int) -> None:
        """Let the worker in this place not count any more: it is gone."""
        self._numbers[place] = 0


@final
class Burden:
    """How many connections this worker is busy with, and whether that is much beside the others."""

    def __init__(self, numbers: memoryview, place: int) -> None:
        self._numbers, self._place = numbers, place  # 0: nobody is there; else one more than are busy

    def is_light(self) -> bool:
        """Tell whether no other worker should rather take the next one."""
        own = self._numbers[self._place] - 1
        others = [number - 1 for place, number in enumerate(self._numbers) if number and place != self._place]
        return not others or own * _MORE <= min(others) * _THAN

    def leave(self) -> None:
        """Take no more connections: nobody waits for this worker to."""
        self._numbers[self._place] = 0

    def share(self) -> Share:
        """Be busy with one more connection."""
        return Share(self)

    def add(self, number: int) -> None:
        """Be busy with so many more."""
        if self._numbers[self._place]:  # else it left
            self._numbers[self._place] += number


@final
class Share:
    """What one connection adds to a burden: from its beginning on, but for the time in which it is idle."""

    __slots__ = ("_burden", "_counts")

    def __init__(self, burden: Burden) -> None:
        self._burden, self._counts = burden, True
        burden.add(1)

    def take(self) -> None:
        """It is at work."""
        if not self._counts:
            self._counts = True
            self._burden.add(1)

    def drop(self) -> None:
        """It is idle, or over."""
        if self._counts:
            self._counts = False
            self._burden.add(-1)
