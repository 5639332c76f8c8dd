"""Pins: what somebody who looked it up may rely on, until nobody relies on anything that old.

Layer: L4. A counter in the index, the epoch, and a file whose bytes stand for epochs. Whoever relies on what it looked
up holds the byte of the epoch in which it began; a collection begins a new epoch after each thing that it hides, and
takes the thing away once no byte below is held. The kernel keeps the locks, so the dead hold nothing and a stopped
process holds what it held: no clock, no process id (I7, I8). Knows nothing of what is relied on.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from cas.locks import lock_bytes, open_shared, share_byte, unlock_byte

if TYPE_CHECKING:
    from cas.index import Edit, Index
    from cas.layout import Layout
    from cas.view import View

_EPOCH = "epoch"  # the index's counter


class Pin:
    """Somebody relies on what was in the index at some moment after this was taken. Ends by `release`, or forgotten."""

    __slots__ = ("_pins", "epoch")

    def __init__(self, pins: Pins, epoch: int) -> None:
        self._pins: Pins | None = pins
        self.epoch = epoch

    @property
    def is_outdated(self) -> bool:
        """Whether something was hidden since, and somebody may wait for this to be released."""
        return self._pins is not None and self._pins.epoch != self.epoch

    def release(self) -> None:
        """Rely on it no more. Twice is once."""
        pins, self._pins = self._pins, None
        if pins is not None:
            pins.let_go(self.epoch)

    __del__ = release


class Pins:
    """The pins of one process: one lock for each epoch that anybody here still holds."""

    def __init__(self, index: Index, layout: Layout) -> None:
        self._index, self._path = index, layout.epochs
        self._fd = open_shared(self._path)
        self._held: dict[int, int] = {}
        self._lock = threading.RLock()  # a pin may be forgotten at any moment, on any thread

    @property
    def epoch(self) -> int:
        """The present epoch."""
        return self._index.read(current)

    def take(self) -> Pin:
        """Return a pin; what is looked up from now on stays until it is released."""
        with self._lock:
            while True:
                epoch = self.epoch
                count = self._held.get(epoch, 0)
                self._held[epoch] = count + 1
                # A byte that was held all the while proves that nobody got past it. A new lock may have come too late.
                if count or (share_byte(self._fd, epoch) and self.epoch == epoch):
                    return Pin(self, epoch)
                self.let_go(epoch)

    def let_go(self, epoch: int) -> None:
        """Count one pin less."""
        with self._lock:
            self._held[epoch] -= 1
            if not self._held[epoch]:
                del self._held[epoch]
                if self._fd >= 0:
                    unlock_byte(self._fd, epoch)

    def quiet(self, epoch: int, wait_s: float) -> bool:
        """Wait until nobody, in any process, holds a pin from before an epoch; say whether it came to that."""
        fd = lock_bytes(self._path, 0, epoch, wait_s)
        if fd is None:
            return False
        os.close(fd)
        return True

    def close(self) -> None:
        """Let go of everything."""
        with self._lock:
            fd, self._fd = self._fd, -1
        os.close(fd)


def current(view: View) -> int:
    """Return the epoch."""
    return view.number(_EPOCH)


def advance(edit: Edit) -> int:
    """Begin a new epoch and return it."""
    epoch = current(edit) + 1
    edit.set_number(_EPOCH, epoch)
    return epoch
