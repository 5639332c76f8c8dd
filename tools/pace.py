"""A rate that reading keeps to on average, by waiting.

Layer: tools, pure but for the wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

MB: Final = 1_000_000
_LAG_S: Final = 0.05  # shorter waits cost more than they spread
_BURST_S: Final = 1.0  # what was not read in time is not made up for beyond this


class Pace:
    """To be called with every number of bytes read; waits until that many were due."""

    def __init__(
        self,
        bytes_per_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._bytes_per_s, self._clock, self._sleep = bytes_per_s, clock, sleep
        self._due = clock()

    def __call__(self, count: int) -> None:
        now = self._clock()
        self._due = max(self._due, now - _BURST_S) + count / self._bytes_per_s
        if self._due - now >= _LAG_S:
            self._sleep(self._due - now)
