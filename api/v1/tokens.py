"""Tokens: what a client is handed on an index route and sends back on the others.

Knows their text and how they are signed. Whether one is demanded is not decided here. To clients a token is
opaque; only its shape `signature=…,repository="ns/repo",access=…` is old law.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, final

from api.v1.names import Repository

Access = Literal["read", "write", "delete"]

KEY_BYTES: Final = 32
_FIELD = re.compile(r'(\w+)[:=][\s"]?([^",]+)', re.ASCII)
_PREFIX = re.compile(r"\s*token\b", re.IGNORECASE)  # clients put the word before a text that may have it already


@dataclass(frozen=True, slots=True)
class Token:
    """What a token that we signed grants, and until when (Unix seconds)."""

    repository: str
    access: str
    expires: int


@final
class Signer:
    """Makes and reads tokens under one key; any process with the key reads them."""

    def __init__(self, key: bytes, clock: Callable[[], float], lifetime_s: int) -> None:
        self._key, self._clock, self._lifetime_s = key, clock, lifetime_s

    def issue(self, repository: Repository, access: Access) -> str:
        """Grant an access to a repository."""
        token = Token(str(repository), access, int(self._clock()) + self._lifetime_s)
        return f'signature={token.expires:x}.{self._sign(token)},repository="{token.repository}",access={access}'

    def read(self, authorization: str | None) -> Token | None:
        """Read an Authorization header; None unless it is a token of ours that is still good."""
        if authorization is None or not _PREFIX.match(authorization):
            return None
        fields = dict(_FIELD.findall(authorization))
        expires, _, signature = fields.get("signature", "").partition(".")
        try:
            token = Token(fields["repository"], fields["access"], int(expires, 16))
        except (KeyError, ValueError):
            return None
        good = hmac.compare_digest(signature.encode(), self._sign(token).encode())
        return token if good and self._clock() <= token.expires else None

    def _sign(self, token: Token) -> str:
        text = f"{token.expires:x}\n{token.repository}\n{token.access}"
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()
