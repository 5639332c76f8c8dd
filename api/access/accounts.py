"""Accounts wherever they are kept: in the store, or in the operator's password file. Blocking.

An account of the store comes before a line of the file with the same name: it was there first, and has the rights
that the name was given.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import final

from api.access import grants, users
from api.access.errors import KeptElsewhere, NoSuchUser, UserExists
from api.access.htpasswd import PasswordFile
from api.access.passwords import Passwords
from api.access.principal import Principal
from api.access.settings import AccessSettings
from api.access.users import User
from api.content import repositories
from cas import Names, Reads, Store

_STAMP_BYTES = 8


@dataclass(frozen=True, slots=True)
class Account:
    """Somebody who can log in: who that is, and the hash of the password."""

    principal: Principal
    password: str


@final
class Accounts:
    """Finds accounts, and makes and changes those of the store.

    Raises:
        BadPasswordFile: the settings name one that cannot be used.
    """

    def __init__(
        self,
        store: Store,
        settings: AccessSettings,
        clock: Callable[[], float],
        *,
        random: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._store, self._settings, self._clock, self._random = store, settings, clock, random
        self._file = PasswordFile(Path(settings.htpasswd)) if settings.htpasswd is not None else None
        self.passwords = Passwords(settings.max_password_bytes)

    def find(self, reads: Reads, name: str) -> Account | None:
        """Return an account by its name."""
        user = users.find(reads, name)
        if user is not None:
            return Account(Principal(name, user.admin, user.stamp), user.password)
        kept = self._in_file(name)
        if kept is None:
            return None
        return Account(Principal(name, stamp=hashlib.sha256(kept.encode()).hexdigest()[: 2 * _STAMP_BYTES]), kept)

    def in_file(self) -> list[str]:
        """List the names of the password file."""
        return sorted(self._file.hashes()) if self._file is not None else []

    def add(
        self, name: str, password: str, *, email: str | None = None, admin: bool = False, inherit: bool = False
    ) -> None:
        """Make an account of the store.

        Only an operator's word lets it `inherit` what is kept under its name already: repositories of its name space,
        pushed before there were accounts or by somebody who was removed, and grants.

        Raises:
            InvalidUser: nobody can be called that, be reached there, or have this password.
            UserExists: the name is taken, or would inherit something.
        """
        users.check_name(name)
        users.check_email(email)
        self._check_new(password)
        free = partial(self._check_free, name=name, inherit=inherit)
        self._store.read(free)  # before the expensive part
        kept, now = self.passwords.hash(password.encode()), int(self._clock())
        user = User(name, kept, email, admin, created=now, changed=now, stamp=self._stamp())

        def edit(names: Names) -> None:
            free(names)
            users.add(names, user)

        self._store.change(edit)

    def change(self, name: str, *, password: str | None = None, email: str | None = None) -> None:
        """Set the password, the address or both of an account of the store.

        Raises:
            InvalidUser: nobody can have this password, or be reached there.
            NoSuchUser: no such account.
            KeptElsewhere: the account is one of the password file.
        """
        users.check_email(email)
        if password is not None:
            self._check_new(password)
        self.check_kept_here(name)  # before the expensive part
        kept = None if password is None else self.passwords.hash(password.encode())

        def edit(names: Names) -> None:
            if kept is not None:
                users.set_password(names, name, kept, stamp=self._stamp(), now=self._clock())
            if email is not None:
                users.set_email(names, name, email)

        self._store.change(edit)

    def check_kept_here(self, name: str) -> None:
        """See that an account can be changed and removed.

        Raises:
            NoSuchUser: no such account.
            KeptElsewhere: it is one of the password file.
        """
        if self._store.read(lambda reads: users.find(reads, name)) is None:
            raise NoSuchUser(name) if self._in_file(name) is None else KeptElsewhere(name)

    def verify(self, account: Account | None, password: bytes) -> bool:
        """Compare a password with an account's, or with none of any account, in the same time; slow on purpose."""
        cost = self._file.cost() if self._file is not None else None
        return self.passwords.verify(None if account is None else account.password, password, bcrypt_cost=cost)

    def renew(self, name: str, password: bytes) -> None:
        """Hash a password that was just seen to be right as one would today, if that is not how it is kept."""
        user = self._store.read(lambda reads: users.find(reads, name))
        if user is not None and self.passwords.is_stale(user.password):
            kept = self.passwords.hash(password)
            self._store.change(lambda names: users.rehash(names, user, kept))

    def _check_free(self, reads: Reads, *, name: str, inherit: bool) -> None:
        if self.find(reads, name) is not None:
            raise UserExists(name)
        if not inherit and (repositories.any_below(reads, name) or grants.of_user(reads, name)):
            raise UserExists(name)

    def _check_new(self, password: str) -> None:
        self.passwords.check_new(password, self._settings.min_password_chars)

    def _in_file(self, name: str) -> str | None:
        return self._file.hashes().get(name) if self._file is not None else None

    def _stamp(self) -> str:
        return self._random(_STAMP_BYTES).hex()
