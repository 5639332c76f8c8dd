"""docs/api.md lists the routes that there are, with the rights they need."""

from __future__ import annotations

import re
from pathlib import Path

from api.v1.routes import TABLE as V1
from api.v2.routes import TABLE as V2

API = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| ([A-Z]+) \| `([^`]+)` \| ([a-z]+) \| ([^|]*) \| ([^|]*)\|$", API, re.MULTILINE)


def test_every_route_is_documented_as_it_is() -> None:
    """Method, path and right, in the order of the code; and no row but these."""
    v2 = [(method, route.path, need.name.lower()) for route in V2 for method, (_, need) in route.methods.items()]
    v1 = [
        (method, path.replace("{repo:path}", "{repo}"), entry.need.value)
        for path, entries in V1
        for method, entry in entries.items()
    ]
    assert [row[:3] for row in ROWS] == v2 + v1


def test_every_code_in_the_document_is_one_that_is_sent() -> None:
    """Clients match these strings."""
    source = (Path(__file__).parents[2] / "api" / "v2" / "errors.py").read_text(encoding="utf-8")
    named = set(re.findall(r"`([A-Z]{3,}(?:_[A-Z]+)+)`", API))
    assert named <= set(re.findall(r'"([A-Z_]+)"', source))
    assert len(named) > 5
