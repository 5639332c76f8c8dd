"""Who is inside: many at once, or one alone.

Layer: L1. For the threads of one process.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cas.errors import Closed

if TYPE_CHECKING:
    from collections.abc import Iterator


class Gate:
    """Many transactions, or one resize: LMDB moves the map under running transactions otherwise.

    Within `with gate:` one is inside with others. Every look at the index passes here: a few steps, and no generator.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._inside = 0
        self._is_taken = self._is_closed = False

    def __enter__(self) -> None:
        """Be inside with others, once nobody is there alone.

        Raises:
            Closed: nobody enters any more.
        """
        with self._lock:
            while self._is_taken:
                self._changed.wait()
            if self._is_closed:
                raise Closed("this store was closed; open it anew")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        """Leave."""
        self.leave()

    def leave(self) -> None:
        """Leave, having entered by `enter_now`."""
        with self._lock:
            self._inside -= 1
            if self._is_taken and not self._inside:
                self._changed.notify_all()

    def enter_now(self) -> bool:
        """Enter as `with` does, unless that means to wait or cannot be; tell whether it came to that."""
        with self._lock:
            enters = not (self._is_taken or self._is_closed)
            self._inside += enters
        return enters

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Be inside alone, once all others have left; nobody enters meanwhile."""
        with self._lock:
            while self._is_taken:
                self._changed.wait()
            self._is_taken = True
            while self._inside:
                self._changed.wait()
        try:
            yield
        finally:
            with self._lock:
                self._is_taken = False
                self._changed.notify_all()

    def close(self) -> None:
        """Let nobody in any more; to be called by who is alone."""
        self._is_closed = True
