"""What was found or made lately, for whoever asks for the same while it is true: bounded, and never waiting.

For one event loop. Knows when something still holds (`api.basis`); refuses to know what it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar, final

from api.basis import Basis
from api.config import IN_MEMORY_S

ENTRY_BYTES: Final = 4096  # what an entry takes beside bytes, at most about: keys, what it rests on, places in files

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(slots=True)
class _Kept(Generic[V]):
    value: V
    size: int
    basis: Basis
    seen: float  # when what it was made of was looked up


@final
class Lately(Generic[K, V]):
    """Values by their keys, as many as there is room for; those kept first go first.

    Args:
        most: what their sizes may come to.
        present: the moment that is now, told without waiting; None if that cannot be.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        most: int,
        present: Callable[[], int | None],
        clock: Callable[[], float] = time.time,  # noqa: TID251 - the default of an argument
    ) -> None:
        self._most, self._present, self._clock = most, present, clock
        self._kept: dict[K, _Kept[V]] = {}
        self._size = 0

    def find(self, key: K) -> V | None:
        """Return what is kept, true or not; `still` tells that, once whatever it takes to use it is held."""
        kept = self._kept.get(key)
        return None if kept is None else kept.value

    def still(self, key: K) -> Basis | None:
        """Return what a kept value rests on, as of now; None if that is no longer so, and then it is forgotten."""
        kept, present = self._kept[key], self._present()
        if present != kept.basis.moment:
            now = self._clock()
            moment = kept.basis.anew() if 0 <= now - kept.seen < IN_MEMORY_S else None
            if moment is None:
                self.forget(key)
                return None
            kept.basis, kept.seen = Basis(moment, kept.basis.anew), now
        return kept.basis

    def keep(self, key: K, value: V, basis: Basis, size: int = 1) -> None:
        """Keep a value in place of an earlier one; a size beyond a sixteenth of all is too much."""
        if size > self._most // 16:
            return
        if key in self._kept:
            self.forget(key)
        self._kept[key] = _Kept(value, size, basis, self._clock())
        self._size += size
        while self._size > self._most:
            self.forget(next(iter(self._kept)))

    def forget(self, key: K) -> None:
        """Keep a value no longer."""
        self._size -= self._kept.pop(key).size
