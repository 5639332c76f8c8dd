"""Hands: which resumable uploads somebody is writing to at this moment, in any process.

Layer: L4. A file whose bytes stand for uploads. Whoever writes to one holds its byte together with others; the kernel
keeps the locks, so the dead hold nothing (I7). Two uploads may share a byte: then one is taken to be busy with the
other, which keeps it a little longer.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from typing import TYPE_CHECKING

from cas.locks import is_byte_locked, open_shared, share_byte, unlock_byte

if TYPE_CHECKING:
    from cas.layout import Layout


class Hands:
    """Those of one process."""

    def __init__(self, layout: Layout) -> None:
        self._fd, self._others = open_shared(layout.hands), open_shared(layout.hands)
        self._held: Counter[int] = Counter()
        self._lock = threading.RLock()  # an upload may be forgotten at any moment, on any thread

    def take(self, number: int) -> None:
        """Begin to write to an upload."""
        byte = _byte(number)
        with self._lock:
            self._held[byte] += 1
            if self._held[byte] == 1 and self._fd >= 0:
                share_byte(self._fd, byte)

    def let_go(self, number: int) -> None:
        """Write to it no more, as far as this request goes."""
        byte = _byte(number)
        with self._lock:
            self._held[byte] -= 1
            if not self._held[byte]:
                del self._held[byte]
                if self._fd >= 0:
                    unlock_byte(self._fd, byte)

    def are_at(self, number: int) -> bool:
        """Tell whether anybody writes to an upload, here or elsewhere: a look, which keeps nobody from beginning."""
        with self._lock:
            return self._fd < 0 or is_byte_locked(self._others, _byte(number))

    def close(self) -> None:
        """Let go of everything."""
        with self._lock:
            fds, self._fd, self._others = (self._fd, self._others), -1, -1
        for fd in fds:
            os.close(fd)


def _byte(number: int) -> int:
    return number >> 2  # offsets in files have a sign
