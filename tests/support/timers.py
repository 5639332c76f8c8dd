"""The time and the timers of an event loop, moved by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Timers:
    """What a `Patience` needs of a loop; time stands still until it is told to pass."""

    def __init__(self) -> None:
        self.now, self.made = 0.0, 0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay_s: float, work: Callable[[], None]) -> Any:
        self.made += 1
        timer = (self.now + delay_s, work)
        self.timers.append(timer)
        return Handle(lambda: self.timers.remove(timer))

    def go_to(self, now: float) -> None:
        while due := [timer for timer in self.timers if timer[0] <= now]:
            timer = min(due, key=lambda timer: timer[0])
            self.timers.remove(timer)
            self.now = timer[0]
            timer[1]()
        self.now = now


class Handle:
    """A timer that can be taken back."""

    def __init__(self, cancel: Callable[[], None]) -> None:
        self.cancel = cancel
