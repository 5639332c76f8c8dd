"""Which bytes of an upload a request brings, and which ones are held: `Content-Range` and `Range` of uploads.

Pure. These are not the headers of downloads: no unit, no total, both ends inclusive.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

# Old clients write a unit and a total, as downloads do. A chunk of nothing ends one before its start.
_CONTENT_RANGE: Final = re.compile(r"(?:bytes[ =])?([0-9]{1,18})-(-1|[0-9]{1,18})(?:/(?:[0-9]{1,18}|\*))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes [start, stop) of an upload; perhaps none."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        """How many bytes."""
        return self.stop - self.start


def parse_chunk(content_range: str) -> Chunk | None:
    """Read a `Content-Range`; None if it is none, or ends before it begins."""
    match = _CONTENT_RANGE.fullmatch(content_range.strip())
    if match is None:
        return None
    chunk = Chunk(int(match[1]), int(match[2]) + 1)
    return chunk if chunk.size >= 0 else None


def held(size: int) -> str:
    """Write the `Range` that tells how many bytes are held.

    For none that is `0--1`: whoever adds one to the end, as clients do that resume, must get 0.
    """
    return f"0-{size - 1}"
