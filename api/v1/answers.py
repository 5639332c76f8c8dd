"""The shapes of Registry v1's answers: JSON bodies, error bodies, cache headers.

Knows which headers an answer carries. Refuses to know what is answered.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from email.utils import formatdate
from typing import Final

from starlette.responses import Response

from api.errors import Refusal

JSON: Final = "application/json"
# Whatever can change, and every error: an old proxy between us and the client must not keep it.
NEVER_CACHE: Final = {"Cache-Control": "no-cache", "Pragma": "no-cache", "Expires": "-1"}
_YEAR_S: Final = 31_536_000


def encode(content: object) -> bytes:
    """Write JSON as the old servers did, with a blank after colon and comma."""
    return json.dumps(content).encode()


def answer(
    content: object = True,  # noqa: FBT002  the JSON value `true` is what success without content looks like
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Answer with a JSON value that may change."""
    return Response(encode(content), status, {**NEVER_CACHE, **(headers or {})}, media_type=JSON)


def refuse(refusal: Refusal) -> Response:
    """Answer an error. One key, a string: clients decode this into a map of strings and drop it otherwise."""
    return answer({"error": refusal.message}, refusal.status, refusal.headers)


def cache_forever(now: float, *, by: str) -> dict[str, str]:
    """Return the headers of what never changes once it is complete; by `public` caches or `private` ones."""
    return {
        "Cache-Control": f"{by}, max-age={_YEAR_S}",
        "Expires": formatdate(now + _YEAR_S, usegmt=True),
        "Last-Modified": formatdate(0, usegmt=True),
    }
