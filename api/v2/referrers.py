"""The route of referrers: what in a repository is about a digest, be that here or not."""

from __future__ import annotations

import json
from functools import partial
from typing import Final
from urllib.parse import urlencode

from starlette.responses import Response
from starlette.types import ASGIApp

from api.content.repository import Repository
from api.v2 import names, referrer
from api.v2.call import Call
from api.v2.document import OCI_INDEX
from cas import Digest, Reads

_HEAD: Final = f'{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":['.encode()
_TAIL: Final = b"]}"


async def get(call: Call) -> ASGIApp:
    """end-12: never 404, which would mean that this registry keeps no such lists."""
    subject, wanted, last = names.known_digest(call.variable), call.parameter("artifactType"), call.parameter("last")
    after = names.digest(last) if last else None
    found: list[bytes] = []
    follows: Digest | None = None
    if subject is not None:
        found, follows = await call.registry.threads.run(_page, call, subject, wanted, after)
    answer = Response(_HEAD + b",".join(found) + _TAIL, media_type=OCI_INDEX)
    if wanted:
        answer.headers["OCI-Filters-Applied"] = "artifactType"
    if follows is not None:
        query = urlencode({**({"artifactType": wanted} if wanted else {}), "last": str(follows)})
        answer.headers["Link"] = f'<{call.base}/referrers/{subject}?{query}>; rel="next"'
    return answer


def _page(call: Call, subject: Digest, wanted: str | None, after: Digest | None) -> tuple[list[bytes], Digest | None]:
    limit = call.registry.v2.referrers_page_bytes
    look = partial(_collect, repository=call.repository, subject=subject, after=after, wanted=wanted, limit=limit)
    return call.store.read(look)


def _collect(
    reads: Reads, repository: Repository, subject: Digest, after: Digest | None, wanted: str | None, limit: int
) -> tuple[list[bytes], Digest | None]:
    """Return a page's descriptors, at least one if there is any, and after which one the next page begins."""
    found: list[bytes] = []
    size, last = 0, None
    for digest, descriptor in referrer.walk(reads, repository, subject, after):
        if wanted and json.loads(descriptor).get("artifactType") != wanted:
            continue
        size += len(descriptor) + 1
        if found and size > limit:
            return found, last
        found.append(descriptor)
        last = digest
    return found, None
