"""Bytes of one upload in several requests, each of which others can see while it is under way.

Layer: L8.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, TypeVar, final

from cas.claims import find
from cas.receive import Upload

if TYPE_CHECKING:
    from collections.abc import Callable

    from cas.change import Names
    from cas.digest import Digest
    from cas.parts import Parts
    from cas.staged import Staged

T = TypeVar("T")


@final
class Resumed(Upload):
    """One request's part in a resumable upload, which nobody ends for being old meanwhile."""

    def __init__(self, parts: Parts, number: int, algorithm: str) -> None:
        """Not for callers: use `Store.resume`."""
        parts.hands.take(number)  # before it is looked up
        self._let_go = weakref.finalize(self, parts.hands.let_go, number)  # should nobody say that it is over
        self._let_go.atexit = False
        recipe = int.from_bytes(parts.disk.random(8), "big") or 1
        try:
            super().__init__(parts, parts.index.read(lambda view: find(view, number, recipe)), algorithm)
        except BaseException:
            self._let_go()
            raise

    def keep(self, expect: Digest | None, edit: Callable[[Names, Staged], T]) -> T:
        """See `Upload`."""
        try:
            return super().keep(expect, edit)
        finally:
            self._let_go()

    def suspend(self) -> int:
        """See `Upload`."""
        try:
            return super().suspend()
        finally:
            self._let_go()

    def discard(self) -> None:
        """See `Upload`."""
        try:
            super().discard()
        finally:
            self._let_go()
