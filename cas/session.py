"""A resumable upload between two requests, as a value.

Layer: L1, pure. What may be done to one is told by `claims`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Self

from cas.digest import Digest

_HEAD = struct.Struct(">BQQQ16s")  # state, bytes filed, recipe, touched (Unix s), chain of the last segment


class UploadState(IntEnum):
    """How a resumable upload stands. On disk: append only."""

    OPEN = 0
    DONE = 1
    CANCELLED = 2


@dataclass(frozen=True, slots=True)
class Session:
    """A resumable upload between two requests.

    Attributes:
        state: whether it may go on.
        end: how many bytes are safe.
        touched: when something was last filed, in Unix seconds.
        recipe: what its segments are filed under. Not the session's own number: that comes back with every retry,
            and by then the recipe may belong to a blob.
        chain: of the recipe's last segment; empty if it has none.
        digest: of all bytes so far, if anybody knows it.
        inline: all bytes so far while they are few; then the recipe has no segment.
    """

    state: UploadState
    end: int
    touched: int
    recipe: int = 0
    chain: bytes = b""
    digest: Digest | None = None
    inline: bytes = b""

    def encode(self) -> bytes:
        """Return the form used in the index, which keeps `inline` apart."""
        head = _HEAD.pack(self.state, self.end, self.touched, self.recipe, self.chain)
        return head if self.digest is None else head + self.digest.pack()

    @classmethod
    def decode(cls, data: bytes, inline: bytes) -> Self:
        """Read what `encode` made."""
        state, end, touched, recipe, chain = _HEAD.unpack_from(data)
        digest = Digest.unpack(data[_HEAD.size :]) if len(data) > _HEAD.size else None
        return cls(UploadState(state), end, touched, recipe, chain if any(chain) else b"", digest, inline)
