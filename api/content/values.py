"""Values under names: compact JSON objects. Knows their spelling, not their meaning."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from cas import Digest, Record


def record(content: Mapping[str, Any], *, holds: Sequence[Digest] = (), logical_bytes: int = 0) -> Record:
    """Make a record of a JSON object."""
    return Record(json.dumps(content, separators=(",", ":")).encode(), tuple(holds), logical_bytes)


def content(found: Record) -> dict[str, Any]:
    """Read what `record` made."""
    read: dict[str, Any] = json.loads(found.value)
    return read
