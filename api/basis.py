"""What an answer was made of: things looked up in the store at one moment, and a way to see that they are still so."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from api.errors import ApiError
from cas import CasError, Reads, Store

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Basis:
    """What an answer was made of, as the store had it at a moment.

    Attributes:
        moment: of the store, at which it was looked up.
        anew: looks again, without waiting for anybody: a moment at which all of it is the same; None if it is not, or
            if that cannot be told now.
    """

    moment: int
    anew: Callable[[], int | None]


def whole(found: T) -> T:
    """Return all that was found: where all of it goes into an answer."""
    return found


def look_up(store: Store, look: Callable[[Reads], T], facts: Callable[[T], object]) -> tuple[T, Basis]:
    """Look things up for an answer.

    Args:
        store: where.
        look: what `Store.read` takes; kept as long as the answer is, so it holds on to little.
        facts: of what was found, all that goes into the answer; kept, too.

    Raises:
        ApiError, CasError: what `look` raises.
    """
    found, moment = store.read(lambda reads: (look(reads), reads.moment))
    return found, _basis(store, look, facts, facts(found), moment)


def look_up_now(store: Store, look: Callable[[Reads], T], facts: Callable[[T], object]) -> tuple[T, Basis] | None:
    """Do what `look_up` does on the event loop; None if that might mean to wait, see `Store.read_now`."""
    seen = store.read_now(lambda reads: (look(reads), reads.moment))
    if seen is None:
        return None
    found, moment = seen
    return found, _basis(store, look, facts, facts(found), moment)


def _basis(store: Store, look: Callable[[Reads], T], facts: Callable[[T], object], known: object, moment: int) -> Basis:
    def anew() -> int | None:
        with suppress(ApiError, CasError):  # told to whoever asks in full, which comes next
            return store.read_now(lambda reads: reads.moment if facts(look(reads)) == known else None)
        return None

    return Basis(moment, anew)
