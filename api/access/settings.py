"""Every limit and choice of accounts and access: unit, default, reason, and what lies past it (I10)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Mode(StrEnum):
    """Who has to say who they are.

    open: nobody; everybody may do everything.
    auth: this server knows accounts and grants.
    token: another index knows them, and hands out tokens that this registry asks it about.
    """

    OPEN = "open"
    AUTH = "auth"
    TOKEN = "token"  # noqa: S105 - a mode


@dataclass(frozen=True, slots=True)
class AccessSettings:
    """Tunables of accounts and access.

    Attributes:
        mode: who has to say who they are.
        signup: whether strangers may make an account by the API; operators always can.
        default_access: who may pull a repository that was just made in `auth` mode: `private` or `public`.
        htpasswd: an Apache password file (bcrypt) of further accounts; None for none.
        index_url: the index that vouches in `token` mode, as `http[s]://host[:port]`.
        token_s: how long a Bearer token is good for. Looked at when a request begins, so a transfer may
            outlast it. Past it: 401, and the client fetches another.
        min_password_chars: least length of a new password. The default is the least that old clients know.
            Short of it: 400.
        max_password_bytes: a password, in UTF-8; no hash needs more. Past it: 400, or a wrong password.
        password_checks: passwords one worker hashes at the same time; each takes 19 MiB and a core for tens of
            milliseconds. Past it: they wait for their turn, and nothing else waits with them.
        user_failures: wrong passwords a minute for one user from one address. Past it: 429.
        address_failures: wrong passwords a minute from one address, whoever they are for. Past it: 429.
        remember_s: how long a password that was right is known again without hashing it anew, because clients
            send it with each of hundreds of requests.
    """

    mode: Mode = Mode.OPEN
    signup: bool = True
    default_access: str = "private"
    htpasswd: str | None = None
    index_url: str | None = None
    token_s: int = 600
    min_password_chars: int = 2
    max_password_bytes: int = 1024
    password_checks: int = 2
    user_failures: int = 10
    address_failures: int = 60
    remember_s: float = 60.0
