"""What a manifest names: every digest that its JSON says anywhere.

More than it needs, perhaps, but never less: what is read here is not removed. Pure.
"""

from __future__ import annotations

import json
import re
from typing import Any

_DIGEST = re.compile(r"[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[a-zA-Z0-9=_-]+", re.ASCII)


def digests(body: bytes) -> set[str]:
    """Return the digests in a manifest that was checked when it was pushed."""
    found: set[str] = set()
    left: list[Any] = [json.loads(body)]
    while left:
        match left.pop():
            case dict() as members:
                left += members.values()
            case list() as items:
                left += items
            case str() as text if _DIGEST.fullmatch(text):
                found.add(text)
            case _:
                pass
    return found
