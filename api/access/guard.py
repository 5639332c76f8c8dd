"""Guessing made slow: how often somebody was wrong lately, and who has to queue because of it.

Lives on the event loop of one worker and knows no password. A wrong guess too many is told so, and nothing else: the
right password is always looked at. But an address that was wrong too often has its guesses looked at one at a time,
so that it waits for itself and for nobody else's sake.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, final

from api.access.errors import TooManyFailures
from api.access.settings import AccessSettings
from api.errors import RETRY_AFTER_S

MOST_KEPT: Final = (
    10_000  # addresses, and pairs of one and a user; past it those are forgotten that were wrong longest ago
)
MOST_WAITING: Final = 1024  # guesses of one address; past it they are refused unseen
_MINUTE: Final = 60.0
_V6_BITS: Final = 64  # what one customer gets of IPv6; below it addresses are free


@final
class Failures:
    """Counts failures by key; each count leaks away at the rate that is allowed."""

    def __init__(self, a_minute: int, clock: Callable[[], float]) -> None:
        self._most, self._clock = a_minute, clock
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, key: str) -> float:
        """Return how long until one more is let through; 0 for now."""
        return max(0.0, (self._level(key) + 1 - self._most) * _MINUTE / self._most)

    def add(self, key: str, number: float = 1.0) -> None:
        """Count one more, or take back one."""
        level = min(max(0.0, self._level(key) + number), self._most)
        self._levels[key] = (level, self._clock())
        self._levels.move_to_end(key)
        if len(self._levels) > MOST_KEPT:
            self._levels.popitem(last=False)

    def _level(self, key: str) -> float:
        level, at = self._levels.get(key, (0.0, 0.0))
        passed = max(0.0, self._clock() - at)
        return max(0.0, level - passed * self._most / _MINUTE)


@dataclass(slots=True)
class _Queue:
    """Work of one address that is done one at a time."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0


@final
class Guard:
    """Watches the guesses of all addresses."""

    def __init__(self, settings: AccessSettings, clock: Callable[[], float]) -> None:
        self._users = Failures(settings.user_failures, clock)
        self._addresses = Failures(settings.address_failures, clock)
        self._queues: dict[str, _Queue] = {}

    @asynccontextmanager
    async def guess(self, address: str, user: str) -> AsyncIterator[Callable[[], None]]:
        """Make one guess; the caller calls what it is given once the guess turned out right.

        Raises:
            TooManyFailures: it was wrong, and one too many; or too many guesses of this address wait already.
        """
        where = network(address)
        who = f"{user}@{where}"
        wait_s = max(self._addresses.wait_s(where), self._users.wait_s(who))
        if not wait_s:  # counted before it is known: else a thousand guesses at one moment would all be the first
            self._count(where, who, 1)
        right = False

        def was_right() -> None:
            nonlocal right
            right = True

        if wait_s:
            async with self.turn(address):
                yield was_right
        else:
            yield was_right
        if wait_s and not right:
            raise TooManyFailures(math.ceil(wait_s))
        if right and not wait_s:
            self._count(where, who, -1)

    @asynccontextmanager
    async def turn(self, address: str) -> AsyncIterator[None]:
        """Wait until no other work of this address is being done.

        Raises:
            TooManyFailures: too much of it waits already.
        """
        where = network(address)
        queue = self._queues.setdefault(where, _Queue())
        if queue.waiting >= MOST_WAITING:
            raise TooManyFailures(RETRY_AFTER_S)
        queue.waiting += 1
        try:
            async with queue.lock:
                yield
        finally:
            queue.waiting -= 1
            if not queue.waiting:
                del self._queues[where]

    def _count(self, where: str, who: str, number: int) -> None:
        self._addresses.add(where, number)
        self._users.add(who, number)


def network(address: str) -> str:
    """Return what counts as one place: an IPv4 address, or the network of an IPv6 one."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:  # a Unix socket, or a proxy that hides it
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    mapped = parsed.ipv4_mapped
    return str(mapped) if mapped is not None else str(ipaddress.ip_network((parsed, _V6_BITS), strict=False))
