"""A timer that is started and stopped with every request, for the price of noting the time.

Knows the event loop's clock. To make a timer of the loop anew each time would cost a request more than to parse it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import final


@final
class Patience:
    """Calls back once it has run for `limit_s` without being stopped; then it is stopped.

    Of the loop it keeps one timer, which looks at the time when it goes off and is moved along if it is too early.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, limit_s: float, over: Callable[[], None]) -> None:
        self._loop, self._limit_s, self._over = loop, limit_s, over
        self._since: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_running(self) -> bool:
        """Whether it will call back unless it is stopped."""
        return self._since is not None

    def start(self) -> None:
        """Begin to run, or begin anew."""
        self._since = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(self._limit_s, self._look)

    def stop(self) -> None:
        """Run no more; what is left of the loop's timer costs nothing."""
        self._since = None

    def close(self) -> None:
        """Run no more, and give the loop's timer back."""
        self._since = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if self._since is None:
            return
        left_s = self._since + self._limit_s - self._loop.time()
        if left_s > 0:
            self._timer = self._loop.call_later(left_s, self._look)
        else:
            self._since = None
            self._over()
