"""Every "no" of the v2 protocol: status, code and sentence; and the one shape in which clients read them.

Knows the registered codes. Errors of the engine come here already looked up (`api/errors.py`); what this protocol says
differently about them is said here. Clients match the codes, people read the sentences.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from starlette.responses import Response

from api.errors import RETRY_AFTER_S, ApiError, Refusal

JSON: Final = "application/json"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that can be wrong with a request."""

    status: int
    code: str
    message: str


ONE_LINE: Final = "send one Authorization header, not several"
BLOB_UNKNOWN: Final = Problem(404, "BLOB_UNKNOWN", "this repository has no such blob")
BLOB_UPLOAD_INVALID: Final = Problem(400, "BLOB_UPLOAD_INVALID", "this upload cannot go on; begin a new one")
BLOB_UPLOAD_UNKNOWN: Final = Problem(404, "BLOB_UPLOAD_UNKNOWN", "there is no such upload; begin a new one")
DENIED: Final = Problem(403, "DENIED", "you are not allowed to do this to this repository")
DIGEST_INVALID: Final = Problem(
    400, "DIGEST_INVALID", "not a digest that can be used: write sha256:<64 hex digits> or sha512:<128 hex digits>"
)
DIGEST_MISMATCH: Final = Problem(400, "DIGEST_INVALID", "the content does not have this digest; send it again")
MANIFEST_BLOB_UNKNOWN: Final = Problem(
    400, "MANIFEST_BLOB_UNKNOWN", "the manifest names content that is not in this repository; push that first"
)
MANIFEST_INVALID: Final = Problem(400, "MANIFEST_INVALID", "not a manifest that can be stored")
MANIFEST_UNKNOWN: Final = Problem(404, "MANIFEST_UNKNOWN", "this repository has no such manifest")
NAME_INVALID: Final = Problem(
    400,
    "NAME_INVALID",
    "not a repository name: use at most 255 of a-z 0-9, in parts joined by / whose words are joined by . _ __ or -",
)
NAME_UNKNOWN: Final = Problem(404, "NAME_UNKNOWN", "there is no such repository")
NO_SUCH_ROUTE: Final = Problem(404, "UNSUPPORTED", "there is nothing at this path")
NO_SUCH_METHOD: Final = Problem(405, "UNSUPPORTED", "this path does not know the method")
PAGE_INVALID: Final = Problem(400, "PAGINATION_NUMBER_INVALID", "n must be a whole number, not less than 0")
PRECONDITION_FAILED: Final = Problem(412, "DENIED", "somebody else changed it: the condition of the request is not met")
RANGE_INVALID: Final = Problem(416, "RANGE_INVALID", "these bytes are not what comes next; see the Range header")
RANGE_UNSATISFIABLE: Final = Problem(416, "RANGE_INVALID", "the blob has none of these bytes")
SIZE_INVALID: Final = Problem(400, "SIZE_INVALID", "the body is not as long as its headers say")
TAG_INVALID: Final = Problem(
    400, "TAG_INVALID", "not a tag: use at most 128 of A-Z a-z 0-9 _ . -, the first of them a letter, a digit or _"
)
TOO_MANY_TAGS: Final = Problem(414, "TAG_INVALID", "one request sets too many tags; use several")
UNAUTHORIZED: Final = Problem(401, "UNAUTHORIZED", "say who you are: log in, or get a token")

# For what was refused without a code: by the listener's helpers, by accounts, or by the engine's own table.
_CODES: Final[Mapping[int, str]] = {
    400: "NAME_INVALID",  # what is left are paths that nobody can mean
    401: "UNAUTHORIZED",
    403: "DENIED",
    404: "NAME_UNKNOWN",
    405: "UNSUPPORTED",
    413: "SIZE_INVALID",
    416: "RANGE_INVALID",
    429: "TOOMANYREQUESTS",
    503: "UNAVAILABLE",
}
_UNKNOWN: Final = "UNKNOWN"
_NO_SPACE: Final = 507  # on no client's list of what is worth another try


class Refused(ApiError):
    """A request that gets one of the problems above for an answer; `message` where there is more to say."""

    def __init__(
        self,
        problem: Problem,
        detail: object = None,
        *,
        message: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(problem.status, message or problem.message, headers, code=problem.code, detail=detail)


def render(refusal: Refusal) -> Response:
    """Give a refusal the shape that clients insist on; the server below leaves the body out for HEAD."""
    status, headers = refusal.status, dict(refusal.headers)
    if status == _NO_SPACE:
        status = 503
        headers.setdefault("Retry-After", str(RETRY_AFTER_S))
    error = {"code": refusal.code or _CODES.get(status, _UNKNOWN), "message": refusal.message}
    if refusal.detail is not None:
        error["detail"] = refusal.detail  # type: ignore[assignment]
    return Response(json.dumps({"errors": [error]}).encode(), status, headers, media_type=JSON)
