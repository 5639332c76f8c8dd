"""Names: everything that is not content (repositories, tags, images, accounts) and what it keeps alive.

Layer: L0. The engine knows that names are ordered, atomic and hold blobs; what a name means is its owner's business.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Self

from cas.digest import LENGTHS, Digest
from cas.errors import InvalidName

MAX_NAME_BYTES = 480  # LMDB keys end at 511 bytes; the rest is room for what the index adds
_KIND = re.compile(r"[a-z0-9.-]{1,32}", re.ASCII)
_HEAD = struct.Struct(">BQ")  # number of holds, logical bytes
_LENGTH_OF_CODE = tuple(LENGTHS.values())
MAX_HOLDS = 255
MAX_LOGICAL_BYTES = 1 << 56  # so that the sum over all names fits its counter


@dataclass(frozen=True, slots=True, order=True)
class Name:
    """A kind (`tag`, `repo` …) and a path within it; names of one kind are ordered by their path's UTF-8 bytes."""

    kind: str
    path: str

    def key(self) -> bytes:
        """Return the key this name has in the index and in the journal.

        Raises:
            InvalidName: bad kind, NUL or lone surrogates in the path, or more than `MAX_NAME_BYTES` bytes.
        """
        if not _KIND.fullmatch(self.kind):
            raise InvalidName(f"{self.kind!r} is not a kind of name: use up to 32 of a-z 0-9 . -")
        try:
            key = f"{self.kind}\0{self.path}".encode()
        except UnicodeEncodeError:
            raise InvalidName(f"the name {self.path[:200]!r} is not valid Unicode text") from None
        if "\0" in self.path or len(key) > MAX_NAME_BYTES:
            raise InvalidName(f"the name {self.path[:200]!r} is longer than {MAX_NAME_BYTES} bytes or contains NUL")
        return key

    @classmethod
    def from_key(cls, key: bytes) -> Self:
        """Read what `key` made."""
        kind, _, path = key.decode().partition("\0")
        return cls(kind, path)


@dataclass(frozen=True, slots=True)
class Record:
    """What stands under a name.

    Attributes:
        value: opaque to the engine.
        holds: blobs this name keeps alive; the roots of garbage collection (at most 255).
        logical_bytes: how much a client pushed under this name; summed in the store's statistics.
    """

    value: bytes
    holds: tuple[Digest, ...] = ()
    logical_bytes: int = 0

    def encode(self) -> bytes:
        """Return the form used in the index and in the journal.

        Raises:
            InvalidName: more than `MAX_HOLDS` holds, or a size that none can be.
        """
        if not 0 <= self.logical_bytes < MAX_LOGICAL_BYTES:
            raise InvalidName(f"a name cannot stand for {self.logical_bytes} bytes")
        if len(self.holds) > MAX_HOLDS:
            raise InvalidName(f"a name can hold {MAX_HOLDS} blobs, not {len(self.holds)}")
        head = _HEAD.pack(len(self.holds), self.logical_bytes)
        return b"".join((head, *(digest.pack() for digest in self.holds), self.value))

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read what `encode` made."""
        count, logical = _HEAD.unpack_from(data)
        at, holds = _HEAD.size, []
        for _ in range(count):
            end = at + 1 + _LENGTH_OF_CODE[data[at]]
            holds.append(Digest.unpack(data[at:end]))
            at = end
        return cls(data[at:], tuple(holds), logical)
