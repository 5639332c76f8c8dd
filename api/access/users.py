"""Accounts in the store: their records and their names' grammar.

    user    NAME    {"password": PHC string, "email": text | null, "admin": bool, "created": Unix seconds,
                     "changed": Unix seconds, "stamp": text}

A stamp is drawn anew with every password, so what was issued under an older one can be told. Passwords come
hashed. Blocking; no HTTP.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from typing import Final

from api.access import grants, refresh
from api.access.errors import InvalidUser, NoSuchUser, UserExists
from api.content.values import content, record
from cas import Name, Names, Reads

USER: Final = "user"
LEAST_CHARS, MOST_CHARS = 2, 64
MOST_EMAIL_CHARS: Final = 254  # what an SMTP path can hold
# A user is a name space, so this is what every protocol takes for the first part of a repository's name.
_NAME = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*", re.ASCII)
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")
# Name spaces that belong to nobody, and words that would be misread in a log or an address.
RESERVED: Final = frozenset({"anonymous", "library", "nobody", "token", "v1", "v2"})


@dataclass(frozen=True, slots=True)
class User:
    """An account of the store.

    Attributes:
        name: also of the name space that is theirs.
        password: as a PHC string.
        email: where they said they can be reached.
        admin: whether everything is allowed to them.
        created: Unix seconds.
        changed: when the password was set; Unix seconds.
        stamp: drawn anew with every password.
    """

    name: str
    password: str
    email: str | None
    admin: bool
    created: int
    changed: int
    stamp: str


def check_name(name: str) -> None:
    """Check the name of an account to be.

    Raises:
        InvalidUser: nobody can be called that.
    """
    if not (LEAST_CHARS <= len(name) <= MOST_CHARS and _NAME.fullmatch(name)):
        raise InvalidUser(
            f"a user name is {LEAST_CHARS} to {MOST_CHARS} of a-z and 0-9, with single . or _, or __, or - between them"
        )
    if name in RESERVED:
        raise InvalidUser(f"the user name {name} is reserved; choose another")


def check_email(email: str | None) -> None:
    """Check an address; None is for whoever gave none.

    Raises:
        InvalidUser: nobody can be reached there.
    """
    if email is None:
        return
    if len(email) > MOST_EMAIL_CHARS or not email.isprintable() or not _EMAIL.fullmatch(email):
        raise InvalidUser("an e-mail address looks like name@host")


def is_name(name: str) -> bool:
    """Tell whether an account could be called that."""
    return LEAST_CHARS <= len(name) <= MOST_CHARS and name not in RESERVED and _NAME.fullmatch(name) is not None


def find(reads: Reads, name: str) -> User | None:
    """Return an account of the store; None also for what nobody can be called."""
    if not is_name(name):
        return None
    found = reads.get(Name(USER, name))
    return None if found is None else User(name, **content(found))


def list_all(reads: Reads) -> list[User]:
    """Return every account of the store, by name."""
    return [User(name.path, **content(found)) for name, found in reads.scan(USER)]


def add(names: Names, user: User) -> None:
    """Make an account.

    Raises:
        InvalidUser: nobody can be called that, or be reached there.
        UserExists: the name is taken.
    """
    check_name(user.name)
    check_email(user.email)
    if find(names, user.name) is not None:
        raise UserExists(user.name)
    _put(names, user)


def set_password(names: Names, name: str, password: str, *, stamp: str, now: float) -> None:
    """Set a password. Whatever was issued under the old one is over.

    Raises:
        NoSuchUser: no such account.
    """
    _put(names, replace(_existing(names, name), password=password, changed=int(now), stamp=stamp))
    refresh.revoke_all(names, name)


def set_email(names: Names, name: str, email: str) -> None:
    """Set the address.

    Raises:
        NoSuchUser: no such account.
        InvalidUser: nobody can be reached there.
    """
    check_email(email)
    _put(names, replace(_existing(names, name), email=email))


def set_admin(names: Names, name: str, *, admin: bool) -> None:
    """Say whether everything is allowed to an account.

    Raises:
        NoSuchUser: no such account.
    """
    _put(names, replace(_existing(names, name), admin=admin))


def any_admin(reads: Reads) -> bool:
    """Tell whether there is an account to which everything is allowed."""
    return any(user.admin for user in list_all(reads))


def rehash(names: Names, old: User, password: str) -> None:
    """Keep the same password in a newer form, unless it was changed meanwhile."""
    user = find(names, old.name)
    if user is not None and user.password == old.password:
        _put(names, replace(user, password=password))


def remove(names: Names, name: str) -> None:
    """Remove an account, what it was granted and every token it could have renewed. Its repositories stay.

    Raises:
        NoSuchUser: no such account.
    """
    _existing(names, name)
    names.delete(Name(USER, name))
    for pattern in grants.of_user(names, name):
        grants.delete(names, name, pattern)
    refresh.revoke_all(names, name)


def _existing(names: Names, name: str) -> User:
    user = find(names, name)
    if user is None:
        raise NoSuchUser(name)
    return user


def _put(names: Names, user: User) -> None:
    value = asdict(user)
    del value["name"]
    names.put(Name(USER, user.name), record(value))
