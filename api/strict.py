"""JSON from strangers: read as the standard has it, and no deeper than anybody means. Pure: text in, values out.

How deeply a text nests is counted before it is parsed, so that it depends on no stack; what is stored is read by the
same count, and by `texts` where it has to be read whatever it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import accumulate
from typing import Any, Final, NoReturn

DEEPEST: Final = 100  # lists and objects within each other; what clients push has fewer than ten

_STRING = re.compile(rb'"([^"\\]*+(?:\\.[^"\\]*+)*+)(?:"|\\?\Z)', re.DOTALL)  # one that never ends ends with the text
_STEPS: Final = bytes({ord("["): 2, ord("{"): 2, ord("]"): 0, ord("}"): 0}.get(byte, 1) for byte in range(256))
_FLAT: Final = bytes(byte for byte in range(256) if _STEPS[byte] == 1)


def load(text: bytes | str) -> Any:
    """Read JSON, as bytes in UTF-8.

    Raises:
        ValueError: it is none, or nests too deeply.
    """
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    if nests_deeper(data, DEEPEST):
        raise ValueError(f"it nests more than {DEEPEST} deep")
    return json.loads(data.decode() if text is data else text, parse_constant=_constant)


def nests_deeper(data: bytes, most: int) -> bool:
    """Tell whether lists and objects stand deeper within each other; of what is no JSON the answer is any."""
    if data.count(b"[") + data.count(b"{") <= most:
        return False
    steps = _STRING.sub(b"", data).translate(_STEPS, _FLAT)
    return max(accumulate(steps, lambda deep, step: deep + step - 1, initial=0)) > most


def texts(data: bytes) -> Iterator[str]:
    """Yield every string in a JSON text, names of members as well, however deep; nothing in it is an error."""
    for match in _STRING.finditer(data):
        try:
            text = match[1].decode()
            yield json.loads(f'"{text}"', strict=False) if "\\" in text else text
        except ValueError:
            continue


def _constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")
