"""Who was let in lately, and still is: a client shows the same for every layer, and seldom has anything changed since.

A verdict holds while all that it was made of does (`api.basis`), and no longer than what was shown is good for. It is
found by a keyed hash of that, so no password is kept. Never waits; for one event loop.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, final

from api.access.principal import Caller
from api.basis import Basis
from api.config import MIB
from api.content.repository import Repository
from api.lately import ENTRY_BYTES, Lately
from api.v2.call import Need

MOST_BYTES: Final = 8 * MIB  # about two thousand verdicts: a client has one for each repository that it asks for
MOST_SHOWN_CHARS: Final = 2048  # real ones have a quarter; a token for a hundred repositories says much to be kept
_BYTES_A_CHAR: Final = 4  # what is kept of a token by its length, about


@dataclass(frozen=True, slots=True)
class Wanted:
    """What somebody wants to be let in to.

    Attributes:
        need: what the route asks for.
        repository: the path's; None where nobody's right to one is asked for.
        source: another one, which a blob is to be mounted from.
    """

    need: Need
    repository: Repository | None = None
    source: Repository | None = None


@final
class Admitted:
    """Verdicts that let somebody in, the latest ones.

    Args:
        present: the moment that is now, told without waiting; None if that cannot be.
        clock: seconds since 1970.
    """

    def __init__(self, present: Callable[[], int | None], clock: Callable[[], float]) -> None:
        self._clock = clock
        self._key = secrets.token_bytes(hashlib.blake2b.MAX_KEY_SIZE)
        self._kept = Lately[tuple[bytes, Wanted], tuple[Caller, float]](MOST_BYTES, present, clock)

    def find(self, shown: str | None, wanted: Wanted) -> Caller | None:
        """Return who it was that showed this and was let in to that, if they would be now."""
        asked = self._asked(shown, wanted)
        verdict = self._kept.find(asked)
        if verdict is None:
            return None
        caller, since = verdict
        if since <= self._clock() < caller.until:
            return caller if self._kept.still(asked) is not None else None
        self._kept.forget(asked)
        return None

    def keep(self, shown: str | None, wanted: Wanted, caller: Caller, basis: Basis) -> None:
        """Keep a verdict, in place of an earlier one; not where much was shown."""
        chars = len(shown or "")
        if chars <= MOST_SHOWN_CHARS:
            size = ENTRY_BYTES + _BYTES_A_CHAR * chars
            self._kept.keep(self._asked(shown, wanted), (caller, self._clock()), basis, size)

    def _asked(self, shown: str | None, wanted: Wanted) -> tuple[bytes, Wanted]:
        text = b"" if shown is None else b"=" + shown.encode()
        return hashlib.blake2b(text, key=self._key, digest_size=32).digest(), wanted
