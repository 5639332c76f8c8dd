"""Routes of manifests: parse, one step in a thread, render."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Final

from starlette.responses import Response
from starlette.types import ASGIApp

from api.basis import Basis, look_up
from api.content.repository import Repository
from api.content.views import NotShown
from api.lately import ENTRY_BYTES
from api.streaming import BlobResponse
from api.v2 import caching, names, push
from api.v2.call import Call
from api.v2.errors import MANIFEST_UNKNOWN, TOO_MANY_TAGS, Refused
from api.v2.manifest import Manifest
from api.v2.push import Conditions, Push
from cas import Digest, Reader, Reads, Store

LARGE_BYTES: Final = 256 << 10  # real manifests are far smaller; those beyond are parsed one at a time


@dataclass(frozen=True, slots=True)
class _Found:
    manifest: Manifest
    basis: Basis | None = None
    reader: Reader | None = None


async def get(call: Call) -> ASGIApp:
    """end-3. `Accept` is a hint that is not needed: what is stored is what is sent."""
    reference, threads = _wanted(call), call.registry.threads
    try:
        found = _at_hand(call, reference) or await _looked_up(call, reference)
    except push.NotMade:
        found = await threads.run(_open, call.store, call.repository, await _made(call, str(reference)))
        found = replace(found, basis=None)  # read later than the tag was, which may be another by then
    manifest = found.manifest
    headers = {
        "Content-Type": manifest.media_type,
        "Docker-Content-Digest": str(manifest.digest),
        "ETag": caching.etag(manifest.digest),
        "Cache-Control": caching.NEVER if isinstance(reference, str) else caching.FOREVER,
    }
    cached = caching.not_modified(call.header_lines("if-none-match"), manifest.digest, headers)
    if found.reader is None:
        return call.repeatable(cached or Response(manifest.body, headers=headers), found.basis)
    if cached is not None:
        await threads.run(found.reader.close)
        return cached
    return BlobResponse(found.reader, threads, headers=headers)


def _at_hand(call: Call, reference: str | Digest) -> _Found | None:
    """Return what somebody asked for lately, if that is still so; nothing here waits."""
    kept, key = call.registry.manifests, (call.repository, reference)
    manifest = kept.find(key)
    basis = None if manifest is None else kept.still(key)
    return None if manifest is None or basis is None else _Found(manifest, basis)


async def _looked_up(call: Call, reference: str | Digest) -> _Found:
    found = await call.registry.threads.run(_open, call.store, call.repository, reference)
    if found.reader is None and found.basis is not None:
        size = len(found.manifest.body) + ENTRY_BYTES
        call.registry.manifests.keep((call.repository, reference), found.manifest, found.basis, size)
    return found


async def _made(call: Call, tag: str) -> Digest:
    """Have a manifest made of the v1 image that a tag points to; return its digest.

    Raises:
        Refused: 404, with the reason why that cannot be.
    """
    try:
        made = await call.registry.views.manifest(call.repository, tag)
    except NotShown as error:
        detail = {"reference": tag, "reason": str(error)}
        message = f"this tag is on an image of Registry v1 that cannot be shown here: {error}"
        raise Refused(MANIFEST_UNKNOWN, detail, message=message) from None
    if made is None:
        raise Refused(MANIFEST_UNKNOWN, {"reference": tag})
    return made.digest


async def put(call: Call) -> ASGIApp:
    """end-7a and end-7b."""
    registry, reference, more = call.registry, names.reference(call.variable), _more_tags(call)
    body = await call.body(registry.v2.max_manifest_bytes)
    pushed = Push(
        repository=call.repository,
        body=body,
        content_type=call.header("content-type"),
        digest=reference if isinstance(reference, Digest) else None,
        tags=(*([reference] if isinstance(reference, str) else []), *more),
        conditions=Conditions(call.header_lines("if-match"), call.header_lines("if-none-match")),
    )
    meta = {"at": int(call.now)}
    async with registry.large if len(body) > LARGE_BYTES else nullcontext():
        manifest = await registry.threads.run(pushed.store, call.store, registry.first_access, meta, call.now)
    answer = Response(status_code=201)
    answer.headers["Location"] = f"{call.base}/manifests/{manifest.digest}"
    answer.headers["Docker-Content-Digest"] = str(manifest.digest)
    if manifest.subject is not None:
        answer.headers["OCI-Subject"] = str(manifest.subject)
    for tag in more:
        answer.headers.append("OCI-Tag", tag)
    return answer


async def delete(call: Call) -> ASGIApp:
    """end-9."""
    await call.registry.threads.run(push.delete, call.store, call.repository, _wanted(call), call.now)
    return Response(status_code=202)


def _wanted(call: Call) -> str | Digest:
    """Return what is asked for; what no manifest can be called is simply not here.

    The conformance suite of the specification's release asks for such a tag, and wants 404.
    """
    text = call.variable
    wanted = names.known_digest(text) if ":" in text else text if names.is_tag(text) else None
    if wanted is None:
        raise Refused(MANIFEST_UNKNOWN, {"reference": text[:300]})
    return wanted


def _more_tags(call: Call) -> tuple[str, ...]:
    tags = dict.fromkeys(names.tag(value) for key, value in call.query() if key == "tag")
    if len(tags) > call.registry.v2.max_push_tags:
        raise Refused(TOO_MANY_TAGS, {"most": call.registry.v2.max_push_tags})
    return tuple(tags)


def _open(store: Store, repository: Repository, reference: str | Digest) -> _Found:
    def look(reads: Reads) -> Manifest:
        return push.find(reads, repository, reference)

    manifest, basis = look_up(store, look, lambda found: (found.digest, found.media_type))
    return _Found(manifest, basis, None if manifest.blob is None else store.reader(manifest.blob))
