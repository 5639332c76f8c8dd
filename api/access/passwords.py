"""Passwords as hashes: how they are made and compared. Blocking, and slow on purpose; no names, no store.

New ones are Argon2id; bcrypt is read for the sake of password files. A comparison takes as long for an account that
there is not, so nobody learns by the clock which names exist.
"""

from __future__ import annotations

from typing import Final, final

import argon2
import bcrypt

from api.access.errors import InvalidUser

# What OWASP recommends for Argon2id: 19 MiB, two passes, one lane; some 25 ms of one core.
_PASSES, _MEMORY_KIB, _LANES = 2, 19 * 1024, 1
_NO_ARGON: Final = f"$argon2id$v=19$m={_MEMORY_KIB},t={_PASSES},p={_LANES}${'A' * 22}${'A' * 43}"
_BCRYPT_BYTES: Final = 72  # bcrypt reads no further; the tools that write password files cut there too


@final
class Passwords:
    """Makes and compares hashes.

    Args:
        most_bytes: of a password; a longer one is refused when it is set, and wrong when it is shown.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._argon = argon2.PasswordHasher(time_cost=_PASSES, memory_cost=_MEMORY_KIB, parallelism=_LANES)

    def check_new(self, password: str, least_chars: int) -> None:
        """Check a password to be.

        Raises:
            InvalidUser: too short, too long, or no text.
        """
        if len(password) < least_chars:
            raise InvalidUser(f"a password has at least {least_chars} characters")
        if "\0" in password or not _is_text(password):
            raise InvalidUser("a password is text without NUL")
        if len(password.encode()) > self._most_bytes:
            raise InvalidUser(f"a password has at most {self._most_bytes} bytes")

    def hash(self, password: bytes) -> str:
        """Hash a password to be kept."""
        return self._argon.hash(password)

    def verify(self, kept: str | None, password: bytes, *, bcrypt_cost: int | None = None) -> bool:
        """Compare a password with a kept hash, or with none, in the same time.

        Where there is a password file, and so a cost of its lines, both kinds of hash are computed, whichever kind the
        account has.
        """
        is_bcrypt = kept is not None and is_bcrypt_hash(kept)
        shown = password if len(password) <= self._most_bytes else b""
        good = self._verify_argon(_NO_ARGON if is_bcrypt or kept is None else kept, shown)
        against = kept if is_bcrypt else _no_bcrypt(bcrypt_cost)
        if against is not None:
            found = bcrypt.checkpw(shown[:_BCRYPT_BYTES], against.encode())
            good = found if is_bcrypt else good
        return good and kept is not None and shown is password

    def is_stale(self, kept: str) -> bool:
        """Tell whether a hash should be made anew, with today's parameters."""
        return not is_bcrypt_hash(kept) and self._argon.check_needs_rehash(kept)

    def _verify_argon(self, kept: str, password: bytes) -> bool:
        try:
            return self._argon.verify(kept, password)
        except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
            return False


def is_bcrypt_hash(kept: str) -> bool:
    """Tell a hash of a password file from one of ours."""
    return kept.startswith("$2")


def _no_bcrypt(cost: int | None) -> str | None:
    """Make a hash that no password has, and that takes as long to compare with."""
    return None if cost is None else f"$2b${cost:02d}${'.' * 53}"


def _is_text(password: str) -> bool:
    try:
        password.encode()
    except UnicodeEncodeError:  # a lone surrogate, which JSON can spell
        return False
    return True
