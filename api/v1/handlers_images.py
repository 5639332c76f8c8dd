"""Routes of images: parse, one step in a thread, render."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Final

from starlette.responses import Response
from starlette.types import ASGIApp

from api.access.settings import Mode
from api.content.repository import Repository
from api.errors import ApiError
from api.ranges import Part, Unsatisfiable, parse_range
from api.receiving import receive_into
from api.streaming import BlobResponse
from api.v1 import agents, homes, images, parsing, refusals, views
from api.v1.answers import JSON, NEVER_CACHE, answer, cache_forever, encode
from api.v1.call import Call
from api.v1.rights import Vouch
from cas import Digest

_PRIVATE: Final = "/v1/private_images/"  # an old spelling of the same routes, whose answers were not cached
OCTETS: Final = "application/octet-stream"


def _cache(call: Call) -> dict[str, str]:
    private = call.request.scope["path"].startswith(_PRIVATE)
    by = "public" if call.registry.access.mode == Mode.OPEN else "private"
    return dict(NEVER_CACHE) if private else cache_forever(call.now, by=by)


def _not_modified(call: Call) -> Response | None:
    """Answer a conditional request for what never changes; only once it is known to be there."""
    if call.header("if-modified-since") is None:
        return None
    return Response(status_code=304, headers=_cache(call))


def _immutable(call: Call, body: bytes, headers: dict[str, str] | None = None) -> Response:
    return Response(body, 200, {**_cache(call), **(headers or {})}, media_type=JSON)


async def get_json(call: Call) -> ASGIApp:
    """Rows 4 and 9."""
    view = await call.registry.threads.run(views.read_json, call.store, call.home, call.image_id)
    headers = {"X-Docker-Size": str(view.layer_bytes), "X-Docker-Checksum-Payload": view.checksum}
    return _not_modified(call) or _immutable(call, view.body, headers)


async def put_json(call: Call) -> ASGIApp:
    """Row 5."""
    image_id, announced = call.image_id, call.header("x-docker-checksum") or ""
    body = await call.body()
    if call.admission.vouch is not None:
        await _ask_index(call, call.admission.vouch, body)
    await call.registry.threads.run(_put_json, call, image_id, body, announced.strip())
    return answer()


def _put_json(call: Call, image_id: str, body: bytes, announced: str) -> None:
    parent, caller = parsing.image_json(body, image_id), call.admission.caller
    store, access, who = call.store, call.registry.access, caller.principal
    if who.name is not None and call.admission.token is not None and call.admission.expired is None:
        homes.lend(store, access, who, Repository.of(call.home), image_id, Digest.of(body), call.now)
    elif parent is not None and call.home == homes.of_account(who):
        homes.borrow(store, access, caller, parent, call.now)
    images.put_json(call.place, image_id, body, announced)


async def _ask_index(call: Call, index: Vouch, body: bytes) -> None:
    """See that the index that vouched for the token also knows the image and its parent.

    Raises:
        ApiError: 400.
    """
    parent = await call.registry.threads.run(parsing.image_json, body, call.image_id)
    if not await index.lists(call.image_id):
        raise ApiError(*refusals.NOT_LISTED)
    if parent is not None and not await index.opens(parent):
        raise ApiError(*refusals.FORBIDDEN_PARENT)


async def get_layer(call: Call) -> ASGIApp:
    """Rows 2 and 9."""
    threads = call.registry.threads
    reader = await threads.run(views.open_layer, call.store, call.home, call.image_id)
    headers = {"Content-Type": OCTETS, "Accept-Ranges": "bytes", **_cache(call)}
    cached = _not_modified(call)
    wanted = parse_range(call.header("range"), reader.size)
    if cached is not None or isinstance(wanted, Unsatisfiable):
        await threads.run(reader.close)
    if cached is not None:
        return cached
    match wanted:
        case Unsatisfiable():
            # Old engines take exactly this, an empty 416, as the clean end of a resumed download.
            headers |= {**NEVER_CACHE, "Content-Range": wanted.content_range(reader.size)}
            return Response(status_code=416, headers=headers)
        case Part(start, stop):
            headers["Content-Range"] = wanted.content_range(reader.size)
            return BlobResponse(reader, threads, status=206, headers=headers, start=start, stop=stop)
        case _:
            return BlobResponse(reader, threads, headers=headers)


async def put_layer(call: Call) -> ASGIApp:
    """Row 3: the body goes to the engine while it arrives; nothing is answered before all of it is there."""
    registry, image_id = call.registry, call.image_id
    limit = registry.http.max_layer_bytes
    run = registry.threads.run
    layer = await run(images.LayerUpload, call.place, image_id)
    try:
        await receive_into(
            call.request.receive,
            lambda: layer.upload,
            limit_bytes=limit,
            run=registry.threads.for_body(call.announced_bytes),
            announced_bytes=call.announced_bytes,
            lend=call.lender,
            then=lambda _: None,
        )
        async with AsyncExitStack() as stack:
            if layer.needs_unpacking:
                await stack.enter_async_context(registry.unpackers)
            await run(layer.commit, call.now)
    except BaseException:
        await run(layer.discard)
        raise
    return answer()


async def put_checksum(call: Call) -> ASGIApp:
    """Row 6."""
    registry, image_id = call.registry, call.image_id
    payload = call.header("x-docker-checksum-payload")
    if not agents.hashes_what_it_sends(call.header("user-agent") or ""):
        payload = None
    claim = images.Claim(payload, call.header("x-docker-checksum"))
    async with AsyncExitStack() as stack:
        if claim.needs_unpacking:
            await stack.enter_async_context(registry.unpackers)
        await registry.threads.run(images.put_checksum, call.place, image_id, claim)
    return answer()


async def get_ancestry(call: Call) -> ASGIApp:
    """Row 7."""
    registry = call.registry
    ids = await registry.threads.run(views.ancestry, registry.store, registry.v1, call.home, call.image_id)
    return _not_modified(call) or _immutable(call, encode(ids))


async def get_files(call: Call) -> ASGIApp:
    """Rows 8 and 9."""
    registry, home, image_id = call.registry, call.home, call.image_id
    await registry.threads.run(views.check, registry.store, home, image_id)
    cached = _not_modified(call)
    if cached is not None:
        return cached
    async with registry.unpackers:
        body = await registry.threads.run(views.files, registry.store, registry.v1, home, image_id)
    return _immutable(call, body)


async def get_diff(call: Call) -> ASGIApp:
    """Row 8: differences were made by a separate worker, which this server does not have."""
    await call.registry.threads.run(views.check, call.store, call.home, call.image_id)
    raise ApiError(*refusals.NO_DIFFS)
