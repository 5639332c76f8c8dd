"""JSON as engines spell it: members taken out of an object and put back without rewriting their values. Pure.

What is hashed into an id has to be written as every other registry writes it: no blanks between tokens, five
characters escaped, and everything else as its owner spelled it, numbers and escapes included.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import date, time
from typing import Any, Final

from api import strict

_STRING_OR_BLANKS = re.compile(r'("[^"\\]*(?:\\.[^"\\]*)*")|[ \t\r\n]+', re.DOTALL)
_BLANKS = re.compile(r"[ \t\r\n]*")
_ESCAPED: Final = {ord(each): f"\\u{ord(each):04x}" for each in "<>&\u2028\u2029"}
_LONE = re.compile("[\ud800-\udfff]")
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)", re.ASCII)
_NANO_DIGITS: Final = 9


def members(text: str) -> dict[str, str]:
    """Split an object into its members, each value as it is spelled; of those called the same the last one counts.

    Raises:
        ValueError: this is no JSON object, or it nests too deeply.
    """
    if not isinstance(strict.load(text), dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - of the text, not of the caller
    found: dict[str, str] = {}
    at = _behind(text, _blanks(text, 0))
    while text[at] != "}":
        name, at = _DECODER.raw_decode(text, at)
        start = _behind(text, _blanks(text, at))
        _, end = _DECODER.raw_decode(text, start)
        found[name] = text[start:end]
        at = _blanks(text, end)
        if text[at] == ",":
            at = _behind(text, at)
    return found


def compact(spelled: str) -> str:
    """Take the blanks between tokens away, and escape what could be taken for markup."""
    return _STRING_OR_BLANKS.sub(lambda match: match[1] or "", spelled).translate(_ESCAPED)


def dump(value: Any) -> str:
    """Write any value, as plain UTF-8 where that can be."""
    return _LONE.sub("\ufffd", json.dumps(value, ensure_ascii=False, separators=(",", ":"))).translate(_ESCAPED)


def write(spelled: Mapping[str, str]) -> bytes:
    """Write an object of spelled members in the order given."""
    return f"{{{','.join(f'{dump(name)}:{compact(value)}' for name, value in spelled.items())}}}".encode()


def in_order(spelled: Mapping[str, str]) -> dict[str, str]:
    """Sort members by the bytes of their names."""
    return {name: spelled[name] for name in sorted(spelled, key=lambda each: each.encode("utf-8", "replace"))}


def moment(text: object) -> str | None:
    """Write a time (RFC 3339) with no more digits than it needs; None if it is none."""
    match = _TIME.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return None
    day, clock, fraction, zone = match.groups()
    try:
        date.fromisoformat(day)
        time.fromisoformat(clock)
    except ValueError:
        return None
    digits = (fraction or "")[:_NANO_DIGITS].rstrip("0")
    return f"{day}T{clock}{'.' + digits if digits else ''}{'Z' if zone in {'+00:00', '-00:00'} else zone}"


_DECODER: Final = json.JSONDecoder()  # for what `strict` has let pass


def _blanks(text: str, at: int) -> int:
    match = _BLANKS.match(text, at)
    assert match is not None, "it matches nothing as well"
    return match.end()


def _behind(text: str, at: int) -> int:
    """Step over one sign and the blanks that follow."""
    return _blanks(text, at + 1)
