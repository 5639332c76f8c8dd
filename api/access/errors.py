"""What can go wrong with accounts: whose fault it is, what to do, and the status that fits where HTTP asks.

Knows no challenge: which `WWW-Authenticate` goes with a 401 is each protocol's own.
"""

from __future__ import annotations

from api.errors import ApiError


class InvalidUser(ApiError):
    """Nobody can have this name, this password or this address. Theirs to choose anew."""

    def __init__(self, message: str) -> None:
        super().__init__(400, message)


class UserExists(ApiError):
    """The name is taken. Choose another, unless whoever could change it knows a remedy."""

    def __init__(self, user: str, remedy: str = "") -> None:
        super().__init__(400, f"there is an account {user} already{remedy}")


class NoSuchUser(ApiError):
    """There is no such account. The remedy is for whoever could make it."""

    def __init__(self, user: str, remedy: str = "") -> None:
        super().__init__(404, f"there is no account {user}{remedy}")


class InvalidPattern(ApiError):
    """Nothing that a grant could be for."""

    def __init__(self, text: str, *, one: bool = False) -> None:
        wider = "" if one else ", nor all of them below one, as NAMESPACE/*, nor *"
        super().__init__(400, f"{text!r} is no repository, as NAMESPACE/NAME or NAME{wider}")


class KeptElsewhere(ApiError):
    """The account is a line of the operator's password file, which only the operator changes."""

    def __init__(self, user: str, remedy: str = "ask its operator") -> None:
        super().__init__(403, f"the account {user} is kept in the server's password file; {remedy}")


class BadCredentials(ApiError):
    """Wrong user or password, or none that can be read. The same words for both: names are not told to strangers.

    `tried` is the account whose password it was to be, if there is such an account: for the operator alone.
    """

    def __init__(self, message: str = "wrong user name or password", *, tried: str = "") -> None:
        super().__init__(401, message)
        self.tried = tried


class TooManyFailures(ApiError):
    """Wrong too often within a minute. The right password is still taken, at any time."""

    def __init__(self, retry_after_s: int) -> None:
        self.retry_after_s = retry_after_s
        message = f"too many attempts; try again in {retry_after_s} s"
        super().__init__(429, message, {"Retry-After": str(retry_after_s)})


class BadPasswordFile(Exception):
    """The password file cannot be read or understood. The operator's to fix."""
