"""Ids of upload sessions, which carry all that is known of a session while no byte of it has come.

    format:u8 algorithm:u8 opened:u40 number:u64 signature:16, in URL-safe base64

To open a session writes nothing, and any process with the keys reads the ids of all others, also after a restart. The
signature covers the repository, so that an id opens nothing in another one. Pure; knows no store and no HTTP.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from api.content.repository import Repository

ALGORITHMS: Final = ("sha256", "sha512")  # by their code in an id: append only
LIFE_S: Final = 7 * 24 * 3600  # as long as today's registries keep theirs; the engine keeps the bytes as long
NUMBER_BYTES: Final = 8
_FORMAT: Final = 1
_BODY_BYTES: Final = 1 + 1 + 5 + NUMBER_BYTES
_SIGNATURE_BYTES: Final = 15
_TEXT_CHARS: Final = (_BODY_BYTES + _SIGNATURE_BYTES) // 3 * 4
_PURPOSE: Final = b"cas v2 upload session\0"  # the same keys sign tokens, none of which begins like this


@dataclass(frozen=True, slots=True)
class Session:
    """One upload that may take several requests.

    Attributes:
        number: what the engine knows the upload by.
        opened: when, in Unix seconds.
        algorithm: which digest its opener means to close it with; only a hint what to compute while bytes arrive.
    """

    number: int
    opened: int
    algorithm: str = ALGORITHMS[0]


def begin(
    repository: Repository, algorithm: str, key: bytes, now: float, random: Callable[[int], bytes] = secrets.token_bytes
) -> str:
    """Begin a session and return its id. Nothing is written, nor looked up: an abandoned one costs nothing."""
    number = int.from_bytes(random(NUMBER_BYTES), "big")
    return write(Session(number, int(now), algorithm), repository, key)


def write(session: Session, repository: Repository, key: bytes) -> str:
    """Make the id of a session."""
    code = ALGORITHMS.index(session.algorithm)
    body = bytes((_FORMAT, code)) + session.opened.to_bytes(5, "big") + session.number.to_bytes(NUMBER_BYTES, "big")
    return base64.urlsafe_b64encode(body + _sign(body, repository, key)).decode()


def read(text: str, repository: Repository, keys: Iterable[bytes], now: float) -> Session | None:
    """Read an id; None unless one of the keys signed it for this repository, not too long ago."""
    if len(text) != _TEXT_CHARS:
        return None
    try:
        data = base64.b64decode(text, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    body, signature = data[:_BODY_BYTES], data[_BODY_BYTES:]
    if not any(hmac.compare_digest(signature, _sign(body, repository, key)) for key in keys):
        return None
    session = Session(int.from_bytes(body[7:], "big"), int.from_bytes(body[2:7], "big"), ALGORITHMS[body[1]])
    return session if now - session.opened <= LIFE_S else None


def _sign(body: bytes, repository: Repository, key: bytes) -> bytes:
    text = _PURPOSE + body + str(repository).encode()
    return hmac.new(key, text, hashlib.sha256).digest()[:_SIGNATURE_BYTES]
