"""The name of a blob: an algorithm and the hash of its bytes.

Layer: L0. A digest text becomes a `Digest` at the border and is never parsed again.
Grammar: OCI image-spec, "Digests"; we know the two registered algorithms that clients use.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cas.errors import InvalidDigest

if TYPE_CHECKING:
    from hashlib import _Hash

LENGTHS = {
    "sha256": 32,
    "sha512": 64,
}  # bytes; also the order of the codes below, which are on disk: append only
_CODES = {name: code for code, name in enumerate(LENGTHS)}
_NAMES = tuple(LENGTHS)
_TEXT = re.compile(r"([a-z0-9]+(?:[+._-][a-z0-9]+)*):([0-9a-f]+)", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """An algorithm's name and the raw hash, e.g. `Digest("sha256", 32 bytes)`."""

    algorithm: str
    raw: bytes

    def __post_init__(self) -> None:
        """Refuse what could never be a digest.

        Raises:
            InvalidDigest: unknown algorithm, or a hash of the wrong length.
        """
        if LENGTHS.get(self.algorithm) != len(self.raw):
            raise InvalidDigest(f"{str(self)[:200]} is no digest we know: use sha256 or sha512 in full length")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `algorithm:lower-case-hex`.

        Raises:
            InvalidDigest: anything else, upper-case hex included.
        """
        match = _TEXT.fullmatch(text)
        if match is None or len(match[2]) % 2:
            raise InvalidDigest(f"{text[:200]!r} is not a digest: write algorithm:hex, e.g. sha256:<64 hex digits>")
        return cls(match[1], bytes.fromhex(match[2]))

    @classmethod
    def of(cls, data: bytes) -> Self:
        """Hash `data` with SHA-256."""
        return cls("sha256", hashlib.sha256(data).digest())

    @property
    def hex(self) -> str:
        """The hash as lower-case hex."""
        return self.raw.hex()

    def pack(self) -> bytes:
        """Return the form used on disk: one code byte, then the raw hash."""
        return bytes((_CODES[self.algorithm],)) + self.raw

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Read what `pack` made.

        Raises:
            InvalidDigest: a code or length no version of ours wrote.
        """
        if not data or data[0] >= len(_NAMES):
            raise InvalidDigest(f"digest code {data[:1].hex() or 'missing'} is unknown to this version")
        return cls(_NAMES[data[0]], bytes(data[1:]))

    def hasher(self) -> _Hash:
        """Return a fresh hash object of this digest's algorithm."""
        return hashlib.new(self.algorithm)

    def __str__(self) -> str:
        """Return the text form, `algorithm:hex`."""
        return f"{self.algorithm}:{self.hex}"
