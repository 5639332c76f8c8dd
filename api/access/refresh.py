"""Refresh tokens: what a client that logged in keeps instead of the password, good until revoked.

    refresh    USER:SHA-256 of the token    {"created": Unix seconds, "stamp": the account's}

To clients they are opaque, and nothing that the store holds can be turned back into one. The stamp ends them with the
password, wherever that is kept. Blocking; no HTTP.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Final

from api.content.values import content, record
from cas import Name, Names, Reads

REFRESH: Final = "refresh"
SECRET_BYTES: Final = 32
MOST: Final = 100  # of one account: a build machine logs in for every job and forgets; the oldest makes room
MAX_CHARS: Final = 256  # what a text can have and still be one of these


def issue(names: Names, user: str, stamp: str, secret: bytes, now: float) -> str:
    """Make a token for an account of fresh random bytes; the oldest of too many ends."""
    token = f"{user}.{base64.urlsafe_b64encode(secret).decode().rstrip('=')}"
    kept = sorted(names.scan(REFRESH, f"{user}:"), key=lambda row: float(content(row[1])["created"]))
    for name, _ in kept[: max(0, len(kept) - MOST + 1)]:
        names.delete(name)
    names.put(_name(user, token), record({"created": now, "stamp": stamp}))
    return token


def owner(reads: Reads, token: str) -> tuple[str, str] | None:
    """Return the account a token was made for, and its stamp then; None if it is none of ours, or revoked."""
    user, dot, _ = token.rpartition(".")
    if not dot or len(token) > MAX_CHARS or not token.isascii() or "\0" in token:
        return None
    found = reads.get(_name(user, token))
    return None if found is None else (user, content(found)["stamp"])


def revoke_all(names: Names, user: str) -> int:
    """End every token of an account; return how many there were."""
    kept = names.scan(REFRESH, f"{user}:")
    for name, _ in kept:
        names.delete(name)
    return len(kept)


def _name(user: str, token: str) -> Name:
    return Name(REFRESH, f"{user}:{hashlib.sha256(token.encode()).hexdigest()}")
