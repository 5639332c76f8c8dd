"""Which bytes a `Range` header asks for. Pure: a header and a size in, a half-open range out.

What is not plainly a range of bytes asks for the whole, as RFC 9110 allows a server and as old engines expect. So do
several ranges at once, except for a caller that can answer them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_SPEC = re.compile(r"(\d*)-(\d*)", re.ASCII)
# More digits than any size has: keeps the cost of int() bounded, and is past the end all the same.
_MOST_DIGITS = 19


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes [start, stop) of something; never empty."""

    start: int
    stop: int

    def content_range(self, size: int) -> str:
        """Say the `Content-Range` of an answer that carries this part."""
        return f"bytes {self.start}-{self.stop - 1}/{size}"


@dataclass(frozen=True, slots=True)
class Whole:
    """No range, or none that binds us: answer with everything."""


@dataclass(frozen=True, slots=True)
class Unsatisfiable:
    """A well-formed range that holds none of our bytes: answer 416."""

    def content_range(self, size: int) -> str:
        """Say the `Content-Range` of the refusal."""
        return f"bytes */{size}"


WHOLE: Final = Whole()
UNSATISFIABLE: Final = Unsatisfiable()


def parse_range(header: str | None, size: int) -> Whole | Part | Unsatisfiable:
    """Decide what a request with this `Range` header gets of something of this size."""
    specs = parse_specs(header)
    if specs is None or len(specs) != 1:
        return WHOLE
    return _resolve(*specs[0], size)


def parse_ranges(header: str | None, size: int) -> Whole | tuple[Part, ...] | Unsatisfiable:
    """Decide the same for a caller that serves several ranges at once, in the order in which they were asked for.

    Ranges that hold none of our bytes are left out as long as another does. Those that together are longer than
    the whole ask for the whole: nobody means them, and answering them would multiply what a request costs.
    """
    specs = parse_specs(header)
    if specs is None:
        return WHOLE
    parts = tuple(part for part in (_resolve(*spec, size) for spec in specs) if isinstance(part, Part))
    if len(specs) > 1 and sum(part.stop - part.start for part in parts) > size:
        return WHOLE
    return parts or UNSATISFIABLE


def parse_specs(header: str | None) -> list[tuple[int | None, int | None]] | None:
    """Read a header into (first, last) pairs, a missing side as None; None if it is no such list."""
    unit, equals, text = (header or "").partition("=")
    if not equals or unit.strip().lower() != "bytes":
        return None
    found = [_SPEC.fullmatch(spec.strip()) for spec in text.split(",")]
    pairs = [match.groups() for match in found if match is not None]
    if len(pairs) != len(found) or ("", "") in pairs:
        return None
    return [(_number(first), _number(last)) for first, last in pairs]


def _number(digits: str) -> int | None:
    if not digits:
        return None
    return int(digits) if len(digits.lstrip("0")) <= _MOST_DIGITS else 10**_MOST_DIGITS


def _resolve(first: int | None, last: int | None, size: int) -> Part | Unsatisfiable:
    if first is None:  # the last so many bytes
        start, stop = max(0, size - (last or 0)), size
    else:
        start, stop = first, size if last is None else min(last + 1, size)
    return Part(start, stop) if start < stop else UNSATISFIABLE
