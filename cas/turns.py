"""Taking turns: of uploads that are about to store the same content, one goes first and the others find it stored.

Layer: L3. A lock of the kernel, across threads and processes, so nobody's death has to be noticed; waiting for it is
bounded, because it only saves space: two that go at once store the content twice and both are right. Other work that
need be done only once is waited for in the same way.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from typing import TYPE_CHECKING

from cas.locks import lock_byte

if TYPE_CHECKING:
    from cas.layout import Layout

_WAIT_S = 5.0


class Turn:
    """Somebody's turn with some content; to be ended by any thread, several times if need be."""

    def __init__(self, layout: Layout, *contents: bytes, wait_s: float = _WAIT_S) -> None:
        """Wait for it; when it does not come, go on without.

        Args:
            layout: where the locks lie.
            contents: at least 7 bytes that stand for the content, spread evenly, perhaps several such, of which others
                may know only the last; none if there is nothing to store.
            wait_s: patience, for all of them together.
        """
        end = time.monotonic() + wait_s
        locks = (
            lock_byte(layout.turns, int.from_bytes(content[:7], "big"), end - time.monotonic()) for content in contents
        )
        self._fds = [fd for fd in locks if fd is not None]
        self._lock = threading.Lock()

    def end(self) -> None:
        """Let the next one go."""
        with self._lock:
            fds, self._fds = self._fds, []
        for fd in fds:
            os.close(fd)


def turn(layout: Layout, work: str, wait_s: float) -> Turn:
    """Wait for a turn with work that need be done only once, named by its owner; see `Turn`."""
    return Turn(layout, hashlib.sha256(work.encode()).digest(), wait_s=wait_s)
