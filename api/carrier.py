"""What a protocol has to know of the connection that carries it. A declaration: `api/connection.py` is one."""

from __future__ import annotations

from typing import Any, Protocol

from api.config import HttpSettings
from api.counts import Counts
from api.intake import Pieces
from api.loan import Source
from api.observed import Observers
from api.repeats import Repeats


class Carrier(Protocol):
    """What the protocol has to know of the connection that carries it."""

    settings: HttpSettings
    is_tls: bool
    lost: bool
    repeats: Repeats
    pieces: Pieces
    observers: Observers | None
    counts: Counts | None

    @property
    def moved_bytes(self) -> int:
        """What went out so far that no writer saw: of files, and what applications wrote by themselves."""

    @property
    def socket(self) -> Any:
        """What may be known of the transport's own."""

    async def lend(self) -> Source | None:
        """Let threads read from it until `take_back`, by what is returned; None if that cannot be done now."""

    def take_back(self) -> None:
        """Read on where they stopped."""
