"""Tokens: what a client is handed on an index route and sends back on the others.

Knows their text and how they are signed. What a token is good for is decided anew at each use, elsewhere. To clients
a token is opaque; only its shape `signature=…,repository="ns/repo",access=…` is old law. Under `signature` stand the
key's id, the expiry, for whom it was made, under which stamp of that account, and the signature proper.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Final, Literal

from api.access.keys import Key, Keyring
from api.access.principal import Principal
from api.content.repository import Repository
from api.errors import ApiError
from api.v1 import names

Access = Literal["read", "write", "delete"]

# Begins where a word does, and no word is long: a header of one endless word is looked through once.
_FIELD = re.compile(r'(?<!\w)(\w{1,32})[:=][\s"]?([^",]+)', re.ASCII)
_PREFIX = re.compile(r"\s*token\b", re.IGNORECASE)  # clients put the word before a text that may have it already
_EXPIRES = re.compile(r"[0-9a-f]{1,12}", re.ASCII)
_BETWEEN: Final = "~"  # in no key's id, user's name or stamp


@dataclass(frozen=True, slots=True)
class Token:
    """What a token that we signed says.

    Attributes:
        repository: full name of the only one it is for.
        access: `read`, `write` or `delete`.
        expires: Unix seconds.
        subject: the account it was made for; None for an anonymous caller.
        stamp: of that account when the token was made.
    """

    repository: str
    access: str
    expires: int
    subject: str | None = None
    stamp: str = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """A token as a client shows it, before anybody checked it."""

    token: Token
    key: str
    signature: str


def is_token(authorization: str) -> bool:
    """Tell whether an Authorization header is of this kind at all."""
    return _PREFIX.match(authorization) is not None


def is_empty(authorization: str) -> bool:
    """Tell whether there is only the word, which old engines send that were given no token."""
    return authorization.strip().lower() == "token"


def issue(key: Key, repository: Repository, access: Access, who: Principal, expires: int) -> str:
    """Write a token."""
    token = Token(str(repository), access, expires, who.name, who.stamp)
    parts = (key.id, f"{expires:x}", token.subject or "", token.stamp, _sign(key, token))
    return f'signature={_BETWEEN.join(parts)},repository="{token.repository}",access={access}'


def claim(authorization: str) -> Claim | None:
    """Read an Authorization header in any of the shapes that clients make of a token; None if it is none of ours."""
    if not is_token(authorization):
        return None
    fields = dict(_FIELD.findall(authorization))
    parts = fields.get("signature", "").split(_BETWEEN)
    if len(parts) != 5 or not _EXPIRES.fullmatch(parts[1]) or not {"repository", "access"} <= fields.keys():  # noqa: PLR2004
        return None
    key, expires, subject, stamp, signature = parts
    token = Token(fields["repository"], fields["access"], int(expires, 16), subject or None, stamp)
    return Claim(token, key, signature)


def fields(authorization: str) -> tuple[Repository, str] | None:
    """Return the repository and the access that anybody's token names, believing nothing; None if it names none."""
    told = dict(_FIELD.findall(authorization)) if is_token(authorization) else {}
    name = told.get("repository", "")
    if "access" not in told or "/" not in name:
        return None
    try:
        return names.repository(name), told["access"]
    except ApiError:
        return None


def verify(ring: Keyring, shown: Claim) -> Token | None:
    """Return the token if one of our keys signed it, expired or not."""
    key = ring.find(shown.key)
    if key is None or not hmac.compare_digest(shown.signature.encode(), _sign(key, shown.token).encode()):
        return None
    return shown.token


def _sign(key: Key, token: Token) -> str:
    parts = ("v1", f"{token.expires:x}", token.repository, token.access, token.subject or "", token.stamp)
    return hmac.new(key.secret, "\n".join(parts).encode(), hashlib.sha256).hexdigest()
