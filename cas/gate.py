"""Who is inside: many at once, or one alone.

Layer: L1. For the threads of one process.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Gate:
    """Many transactions, or one resize: LMDB moves the map under running transactions otherwise."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._inside = 0
        self._resizing = False

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Be inside with others, once nobody is there alone."""
        with self._condition:
            while self._resizing:
                self._condition.wait()
            self._inside += 1
        try:
            yield
        finally:
            self._leave()

    @contextmanager
    def shared_now(self) -> Iterator[bool]:
        """Be inside unless that means to wait; tell whether it came to that."""
        with self._condition:
            inside = not self._resizing
            self._inside += inside
        try:
            yield inside
        finally:
            if inside:
                self._leave()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Be inside alone, once all others have left; nobody enters meanwhile."""
        with self._condition:
            while self._resizing:
                self._condition.wait()
            self._resizing = True
            while self._inside:
                self._condition.wait()
        try:
            yield
        finally:
            with self._condition:
                self._resizing = False
                self._condition.notify_all()

    def _leave(self) -> None:
        with self._condition:
            self._inside -= 1
            if not self._inside:
                self._condition.notify_all()
