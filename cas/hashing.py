"""Who wants every byte of an upload, in order: the hash that names it, and whatever its caller had fed beside that.

Layer: L8. Many bytes are hashed in threads while the one that brought them goes on. Few are hashed by that one, last of
all: the disk is at work on them meanwhile.
"""

from __future__ import annotations

from concurrent.futures import wait
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from cas.threads import submit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future, ThreadPoolExecutor

    from cas.claims import Running

_ASIDE_BYTES = 64 * 1024  # pieces below this are hashed by their bringer: a thread hop would cost more
_ALONE_BYTES = 1024 * 1024  # and so are an upload's first bytes by a single hash: what is over soon gains little


class Tap(Protocol):
    """Somebody who wants every byte of an upload, in order; hash objects are."""

    def update(self, data: bytes, /) -> object:
        """Take the next bytes."""


class Hashing:
    """The hashes of one upload, at work. For one thread at a time."""

    def __init__(self, pool: ThreadPoolExecutor, taps: Sequence[Tap]) -> None:
        self._pool, self._taps = pool, taps
        self._under_way: list[Future[object]] = []
        self._later: list[Callable[[], object]] = []

    def show(self, pieces: Sequence[bytes | memoryview], at: int, running: Running) -> None:
        """Show bytes to everybody; they must stay as they are until `settle`.

        Args:
            pieces: the bytes, which go on where the last ones ended.
            at: where in the blob they begin.
            running: the hash that names it, which sees them unless it has missed some.

        Raises:
            Closed: the store was closed.
        """
        size = sum(map(len, pieces))
        updates: list[Callable[[Any], object]] = []
        if running.at == at:
            running.at += size
            updates.append(running.state.update)
        if self._taps:
            updates += [tap.update for tap in self._taps]
            pieces = [bytes(piece) for piece in pieces]  # who knows what they do with them
        if size >= _ASIDE_BYTES and (at >= _ALONE_BYTES or len(updates) > 1):
            self._under_way = [submit(self._pool, _feed, update, pieces) for update in updates]
        else:
            self._later += [partial(_feed, update, pieces) for update in updates]

    def settle(self) -> None:
        """See to it that everybody has seen what was shown."""
        later, self._later = self._later, []
        for feed in later:
            feed()
        under_way, self._under_way = self._under_way, []
        for future in under_way:
            future.result()

    def abandon(self) -> None:
        """Wait until nobody looks at anything any more."""
        wait(self._under_way)


def _feed(update: Callable[[Any], object], pieces: Sequence[bytes | memoryview]) -> None:
    for piece in pieces:
        update(piece)
