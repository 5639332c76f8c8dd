"""The keyring that signs tokens: the newest key signs, every key verifies.

    key    token    {"keys": [{"id", "secret", "created"}, …]}    newest first

It is in the store, so all workers read each other's tokens, go on reading them after a restart, and see a rotation
at once. Blocking; no HTTP, no tokens.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, final

from api.basis import Basis, look_up, look_up_now, whole
from api.config import IN_MEMORY_S
from api.content.values import content, record
from cas import Name, Names, Reads, Store

KEYRING: Final = Name("key", "token")
SECRET_BYTES: Final = 32
_ID_BYTES: Final = 4

Random = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Key:
    """One key: what tokens call it, its secret, and when it was made (Unix seconds)."""

    id: str
    secret: bytes
    created: int


@dataclass(frozen=True, slots=True)
class Keyring:
    """All keys, the newest first; never empty."""

    keys: tuple[Key, ...]

    @property
    def newest(self) -> Key:
        """The key that signs."""
        return self.keys[0]

    def find(self, key: str) -> Key | None:
        """Return the key that a token names, unless it was taken off the ring."""
        return next((one for one in self.keys if one.id == key), None)


def read(reads: Reads) -> Keyring:
    """Return the keyring; to be called at each use, since it is one look-up, and `ensure` at the start."""
    ring = _find(reads)
    assert ring is not None, "a process that uses the keyring has seen to it that there is one"
    return ring


@final
class Nearby:
    """The keyring of one worker, which may be looked up on its event loop while that is sure not to wait for a disk."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self._clock = store, clock
        self._seen = -math.inf

    def read(self) -> tuple[Keyring, Basis]:
        """Look it up, in a thread; return also what an answer rests on that it goes into."""
        self._seen = self._clock()
        return look_up(self._store, read, whole)

    def read_now(self) -> tuple[Keyring, Basis] | None:
        """Look it up on the loop; None if that might mean to wait."""
        now = self._clock()
        if now - self._seen > IN_MEMORY_S:
            return None
        self._seen = now
        return look_up_now(self._store, read, whole)


def ensure(store: Store, now: float, random: Random = secrets.token_bytes) -> None:
    """See to it that there is a keyring; the first process to ask makes it."""
    if store.read(_find) is None:
        fresh = _fresh(now, random)

        def edit(names: Names) -> None:
            if _find(names) is None:
                _put(names, Keyring((fresh,)))

        store.change(edit)


def rotate(names: Names, now: float, keep: int, random: Random = secrets.token_bytes) -> Keyring:
    """Put a new key in front, and leave `keep` of the older ones; what others signed is void from now on."""
    ring = _find(names)
    older = ring.keys[:keep] if ring is not None else ()
    turned = Keyring((_fresh(now, random), *older))
    _put(names, turned)
    return turned


def _find(reads: Reads) -> Keyring | None:
    found = reads.get(KEYRING)
    if found is None:
        return None
    keys = content(found)["keys"]
    return Keyring(tuple(Key(key["id"], bytes.fromhex(key["secret"]), key["created"]) for key in keys))


def _fresh(now: float, random: Random) -> Key:
    return Key(random(_ID_BYTES).hex(), random(SECRET_BYTES), int(now))


def _put(names: Names, ring: Keyring) -> None:
    keys = [{"id": key.id, "secret": key.secret.hex(), "created": key.created} for key in ring.keys]
    names.put(KEYRING, record({"keys": keys}))
