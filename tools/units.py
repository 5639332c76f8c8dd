"""Sizes, times and shares as people write and read them.

Layer: tools, pure. Knows text and numbers; refuses to know which setting they are for.
"""

from __future__ import annotations

import re

_STEPS = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_FACTORS = {step.lower(): 1 << (10 * power) for power, step in enumerate(_STEPS)} | {
    letter: 1 << (10 * power) for power, letter in enumerate("kmgtpe", start=1)
}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgtpe]?i?)b?\s*", re.ASCII | re.IGNORECASE)

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"\s*(\d{1,9}(?:\.\d+)?)\s*([smhd]?)\s*", re.ASCII | re.IGNORECASE)


def counted(number: int, noun: str) -> str:
    """Write how many there are of what a plain `s` makes several: `1 blob`, `2,303 chunks`."""
    return f"{number:,} {noun}" + "s" * (number != 1)


def parse_size(text: str) -> int:
    """Read `65536`, `64KiB`, `64k` or `1.5 GiB`; letters mean powers of 1024. Raises ValueError."""
    found = _SIZE.fullmatch(text)
    factor = _FACTORS.get(found[2].lower()) if found else None
    if found is None or factor is None:
        raise ValueError(f"{text!r} is not a size, such as 65536, 64KiB or 1.5GiB")
    number = float(found[1]) if "." in found[1] else int(found[1])
    return int(number * factor)


def parse_duration(text: str) -> float:
    """Read `90`, `90s`, `30m`, `12h` or `7d`, in seconds. Raises ValueError."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not a time, such as 0, 90s, 30m, 12h or 7d")
    return float(found[1]) * _SECONDS[found[2].lower()]


def human_duration(seconds: float) -> str:
    """Write a time for eyes, rounded down to its largest unit: `6 days`, `3 hours`, `40 s`."""
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            return counted(int(seconds // length), unit)
    return f"{int(seconds)} s"


def exact_size(size_bytes: int) -> str:
    """Write a size so that parse_size gives it back: `64KiB`, but `65537` as it is."""
    power = 0
    while size_bytes and size_bytes % 1024 == 0 and power < len(_STEPS) - 1:
        size_bytes //= 1024
        power += 1
    return f"{size_bytes}{_STEPS[power]}B" if power else str(size_bytes)


def human_size(size_bytes: int) -> str:
    """Write a size for eyes: four digits at most, `1.23 GiB`."""
    value, power = float(size_bytes), 0
    while value >= 1023.5 and power < len(_STEPS) - 1:  # noqa: PLR2004 - the next step up prints as 1.00
        value /= 1024
        power += 1
    if power == 0:
        return f"{size_bytes} B"
    digits = 2 if value < 10 else 1 if value < 100 else 0  # noqa: PLR2004
    return f"{value:.{digits}f} {_STEPS[power]}B"
