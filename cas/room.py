"""Room for what is copied before its pack can go, while others hold on for a moment to what went before.

Layer: L7. A removed file's bytes are free once everybody who has it open lets go of it: processes with a store look
every second whether there is something to let go of (`Store.let_go`), and whoever reads it reads it to its end. So
where there is not room enough, it is waited for, with a bound. Removes nothing itself.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from cas.parts import Parts

_INDEX_SHARE = 4  # this part of what is kept free is for the index, which grows while chunks move
_LETS_GO_S = 10.0  # others need one or two, if they get the processor
_LOOK_S = 0.05


@final
class Room:
    """The room of one run that removes packs. Not safe for two threads."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._due = 0  # bytes free once others let go of everything that was removed
        self._until = 0.0  # waited for until then; after that only what comes by itself counts

    @property
    def free(self) -> int:
        """Bytes free on the packs' filesystem."""
        return self._parts.disk.free_bytes(self._parts.layout.packs)[0]

    @property
    def owed(self) -> int:
        """Bytes that were removed and are not free yet; of those that others wrote meanwhile, too."""
        return max(0, self._due - self.free)

    def __str__(self) -> str:
        """Say how much there is, and what else will be."""
        free, kept = self.free, self._kept
        said = f"{free:,} are free"
        if kept:
            said += f", the last {kept:,} of them for the index alone"
        if owed := self.owed:
            said += f"; up to {owed:,} more will be once others let go of what was removed: run it again then"
        return said

    def note(self, free: int, freed: int) -> None:
        """Take notice that something was removed.

        Args:
            free: bytes that were free before.
            freed: what the files take less since.
        """
        self._due = max(self._due, free) + freed
        self._until = time.monotonic() + _LETS_GO_S

    def of(self, wanted: int) -> int:
        """Return how many bytes can be copied now: on a full disk more with each pack that was emptied.

        Where fewer than `wanted` can, and others have not let go yet of what was removed, they are waited for.
        """
        while (room := self._now()) < wanted and self.owed and time.monotonic() < self._until:
            time.sleep(_LOOK_S)
        return room

    def _now(self) -> int:
        return max(0, self.free - self._kept)

    @property
    def _kept(self) -> int:
        whole = self._parts.disk.free_bytes(self._parts.layout.packs)[1]
        return self._parts.settings.reserve(whole) // _INDEX_SHARE
