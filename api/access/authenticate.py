"""Passwords shown by callers: who that is, at the price of one slow hash a minute and not one a request.

Awaits. What touches the store runs in the application's threads, what hashes in a few threads of its own, so that
nobody who is known already waits behind strangers who guess. Knows Basic and refuses to know every other scheme.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import logging
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, TypeVar, final

from api.access.accounts import Account, Accounts
from api.access.errors import BadCredentials
from api.access.guard import Guard
from api.access.principal import NOBODY, Caller, Principal
from api.access.settings import AccessSettings, Mode
from api.access.users import is_name
from api.threads import Run, Threads
from cas import CasError, Reads, Store

T = TypeVar("T")
log = logging.getLogger(__name__)

MOST_REMEMBERED: Final = 10_000  # accounts; past it the one that logged in longest ago is forgotten
NOT_BASIC: Final = "the Authorization header holds no Basic credentials: Basic, a space, and base64 of user:password"


@final
class Authenticator:
    """Tells who a caller is by what they showed.

    Args:
        store: where accounts are.
        settings: mode and limits.
        clock: seconds since 1970.
        run: runs what touches the store; `Threads.run` of the application.

    Attributes:
        accounts: for whoever makes or changes them; blocking, and what hashes is run by `work`.
        checks: the threads in which passwords are hashed.
    """

    def __init__(self, store: Store, settings: AccessSettings, clock: Callable[[], float], run: Run) -> None:
        self._store, self._settings, self._run = store, settings, run
        self.accounts = Accounts(store, settings, clock)
        self.checks = Threads(settings.password_checks, "password")
        self._guard = Guard(settings, clock)
        self._recent = Recent(settings.remember_s, clock)

    def close(self) -> None:
        """End the threads; comparisons under way are waited for."""
        self.checks.close()

    async def basic(self, header: str | None, address: str) -> Caller:
        """Tell who sent an Authorization header; nobody in particular without one, and in `open` mode.

        Raises:
            BadCredentials: wrong, unknown, or not Basic at all.
            TooManyFailures: wrong, and too often within a minute.
        """
        if header is None or self._settings.mode == Mode.OPEN:
            return NOBODY
        user, password = read_basic(header)
        if not user and not password:  # what clients send who have a place for credentials and none to put there
            return NOBODY
        return await self.password(user, password, address)

    async def password(self, user: str, password: bytes, address: str) -> Caller:
        """Tell who gave a user's name and a password.

        Raises:
            BadCredentials, TooManyFailures: as for `basic`.
        """
        if not is_name(user):
            user = ""  # nobody's name, and in the guard's book they are all one
        known = await self._run(self.recall, user, password)
        if known is not None:
            return known
        async with self._guard.guess(address, user) as was_right:
            # Whoever waited for a turn may have been waiting for another request with the same password.
            caller = await self._run(self.recall, user, password) or await self.checks.run(self._check, user, password)
            if caller is not None:
                was_right()
        if caller is None:
            # What is nobody's name may be a password in the wrong place, and nothing to be written down.
            raise BadCredentials(tried=user if await self._run(self._find, user) is not None else "")
        return caller

    async def work(self, address: str, step: Callable[[], T]) -> T:
        """Run what hashes a password for anything but a login: one step of an address at a time.

        Raises:
            TooManyFailures: too many of this address wait already.
        """
        async with self._guard.turn(address):
            return await self.checks.run(step)

    def recall(self, user: str, password: bytes) -> Caller | None:
        """Return whose password this was within the last minute, if it still is; quick, blocking."""
        account = self._find(user)
        until = None if account is None else self._recent.until(account, password)
        return None if account is None or until is None else Caller(account.principal, until=until)

    def principal(self, reads: Reads, name: str, stamp: str | None = None) -> Principal | None:
        """Return an account's principal as it is now, for a token that names it; blocking.

        None if the account is gone or, told the stamp that the token was made under, is another one's by now or
        got another password since.
        """
        account = self.accounts.find(reads, name)
        if account is None or (stamp is not None and stamp != account.principal.stamp):
            return None
        return account.principal

    def _check(self, user: str, password: bytes) -> Caller | None:
        account = self._find(user)
        if not self.accounts.verify(account, password) or account is None:
            return None
        try:
            self.accounts.renew(user, password)
        except CasError as error:
            log.warning("the password of %s could not be stored in its new form: %s", user, error)
        return Caller(account.principal, until=self._recent.add(account, password))

    def _find(self, user: str) -> Account | None:
        return self._store.read(functools.partial(self.accounts.find, name=user))


@final
class Recent:
    """Passwords that were right lately, as keyed hashes under a key that never leaves the process."""

    def __init__(self, life_s: float, clock: Callable[[], float]) -> None:
        self._life_s, self._clock = life_s, clock
        self._key = secrets.token_bytes(hashlib.blake2b.MAX_KEY_SIZE)
        self._seen: OrderedDict[str, tuple[bytes, float]] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, account: Account, password: bytes) -> float:
        """Remember a password that was right; return until when."""
        name, now = str(account.principal.name), self._clock()
        with self._lock:
            self._seen[name] = (self._digest(account, password), now)
            self._seen.move_to_end(name)
            if len(self._seen) > MOST_REMEMBERED:
                self._seen.popitem(last=False)
        return now + self._life_s

    def until(self, account: Account, password: bytes) -> float | None:
        """Tell until when this is known to be right for this account with this password set; None if not."""
        digest, at = self._seen.get(str(account.principal.name), (b"", 0.0))
        is_recent = 0 <= self._clock() - at < self._life_s
        is_right = is_recent and secrets.compare_digest(digest, self._digest(account, password))
        return at + self._life_s if is_right else None

    def _digest(self, account: Account, password: bytes) -> bytes:
        """Cover the stamp as well, so that a changed account is nobody we know."""
        name, stamp = str(account.principal.name), account.principal.stamp
        text = b"\0".join((name.encode(), stamp.encode(), password))
        return hashlib.blake2b(text, key=self._key, digest_size=32).digest()


def read_basic(header: str) -> tuple[str, bytes]:
    """Read user and password from an Authorization header.

    Raises:
        BadCredentials: there are none.
    """
    scheme, _, encoded = header.strip().partition(" ")
    if scheme.lower() != "basic":
        raise BadCredentials(NOT_BASIC)
    try:
        decoded = base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise BadCredentials(NOT_BASIC) from None
    user, colon, password = decoded.partition(b":")
    if not colon:
        raise BadCredentials(NOT_BASIC)
    return user.decode("utf-8", "replace"), password
