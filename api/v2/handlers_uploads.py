"""Routes of uploads: parse, steps in a thread around the body, render.

Everything that headers alone can tell is refused before a byte of the body is taken, unless all of it is small.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Final, TypeVar, TypeVarTuple

from starlette.responses import Response
from starlette.types import ASGIApp

from api.config import KIB
from api.content.repository import Repository
from api.receiving import BodyTooLarge, ClientGone, receive_into
from api.repeats import Fresh
from api.request import SMALL_BYTES
from api.v2 import chunks, names, sessions
from api.v2.call import Call
from api.v2.chunks import Chunk
from api.v2.errors import (
    BLOB_UPLOAD_INVALID,
    BLOB_UPLOAD_UNKNOWN,
    DIGEST_INVALID,
    RANGE_INVALID,
    SIZE_INVALID,
    Refused,
)
from api.v2.mount import Mount
from api.v2.uploads import Arrival, ClosedBefore, NoSession, OutOfStep, Uploads
from cas import Digest, Superseded

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
_LARGE_BYTES: Final = 256 * KIB  # of a body that is sure to be lent: it is longer than what comes with its head
_NO_ALGORITHM: Final = "this registry knows the digest algorithms sha256 and sha512"
_NO_CHUNK: Final = "the Content-Range of an upload is <first byte>-<last byte>, without a unit or a total"


async def post(call: Call) -> ASGIApp:
    """end-4a, 4b, 4c and 11: open a session, or take a whole blob, or show one that another repository has."""
    mounted, closing = call.parameter("mount"), call.parameter("digest")
    if mounted is not None:
        digest = names.digest(mounted)
        if await _is_mounted(call, digest):
            return _created(call, digest)
    elif closing is not None:
        return await _take_whole(call, names.digest(closing))
    algorithm = call.parameter("digest-algorithm") or sessions.ALGORITHMS[0]
    if algorithm not in sessions.ALGORITHMS:
        raise Refused(DIGEST_INVALID, {"algorithm": algorithm[:100]}, message=_NO_ALGORITHM)
    nearby = call.registry.keys
    found = nearby.read_now()
    ring, basis = found if found is not None else await call.registry.threads.run(nearby.read)
    repository, key, clock = call.repository, ring.newest.secret, call.registry.clock

    def begin() -> str:
        return sessions.begin(repository, algorithm, key, clock())

    session = begin()
    answer = Response(status_code=202, headers=_where(call, session))
    if mounted is not None:
        return answer  # whether it can be mounted is to be looked up each time
    # Engines ask so for each layer, word for word: of an answer by heart the session alone is a new one.
    return call.repeatable(answer, basis, fresh=Fresh(session.encode(), lambda: begin().encode()))


async def patch(call: Call) -> ASGIApp:
    """end-5: go on with a session."""
    chunk = _chunk(call)
    arrival = _uploads(call).resume(call.variable, chunk)
    size = await _receive(call, arrival, chunk, arrival.suspend)
    return Response(status_code=202, headers={**_where(call, call.variable), "Range": chunks.held(size)})


async def put(call: Call) -> ASGIApp:
    """end-6: close a session, perhaps with its last bytes, perhaps with all of them."""
    digest, chunk = names.digest(call.parameter("digest") or ""), _chunk(call)
    small = await _small_body(call)
    if small is not None:
        await _step(call, _uploads(call).close, call.variable, chunk, digest, small)
        return _created(call, digest)
    arrival = _uploads(call).resume(call.variable, chunk, digest)
    with suppress(ClosedBefore):
        await _receive(call, arrival, chunk, partial(arrival.close, digest))
    return _created(call, digest)


async def get(call: Call) -> ASGIApp:
    """end-13: how far a session is."""
    size = await _step(call, _uploads(call).held, call.variable)
    return Response(status_code=204, headers={**_where(call, call.variable), "Range": chunks.held(size)})


async def delete(call: Call) -> ASGIApp:
    """end-14: end a session."""
    await _step(call, _uploads(call).cancel, call.variable)
    return Response(status_code=204)


async def _is_mounted(call: Call, digest: Digest) -> bool:
    source = call.parameter("from") or None
    if source is not None and not names.is_repository(source):
        return False  # nothing can be there; like everything that cannot be mounted, it can be uploaded
    repository = None if source is None else Repository.of(source)
    mount = Mount(digest, repository, call.caller, call.registry.access)
    return await _step(call, mount.into, _uploads(call))


async def _take_whole(call: Call, digest: Digest) -> ASGIApp:
    small = await _small_body(call)
    if small is not None:
        await _step(call, _uploads(call).put, digest, small)
        return _created(call, digest)
    arrival = _uploads(call).whole(digest)
    await _receive(call, arrival, None, partial(arrival.close, digest))
    return _created(call, digest)


async def _small_body(call: Call) -> bytes | None:
    """Take a small body before anything else is done, so that all of it is one step; None of any other.

    Not of a client that wants to hear first whether it may come.

    Raises:
        ClientGone: it broke off.
    """
    size, limit = call.announced_bytes, call.registry.http.max_layer_bytes
    if size is None or size > SMALL_BYTES or limit is not None or call.header("expect") is not None:
        return None
    return await call.body(SMALL_BYTES)


async def _receive(call: Call, arrival: Arrival, chunk: Chunk | None, then: Callable[[], T]) -> T:
    """Stream the body into an upload, then end that with a step. However this fails, it is left as `Arrival` says.

    Raises:
        ClientGone, CancelledError: what came is kept.
        Refused: 416, another request went on with the session meanwhile; 404, it was ended.
        BodyTooLarge: the blob is larger than the limit; nothing more is taken.
        Refused: 400, the body is not as long as the chunk; nothing more is taken.
    """
    run, limit, announced = call.registry.threads.run, call.registry.http.max_layer_bytes, call.announced_bytes
    if limit is not None or (announced or 0) < _LARGE_BYTES or call.lender is None or call.header("expect") is not None:
        await _step(call, arrival.begin)  # else it may begin with the first bytes, which are here already or soon
    room = None if limit is None else max(0, limit - arrival.begin().size)
    most = room if chunk is None else min(chunk.size, chunk.size if room is None else room)

    def end(size: int) -> T:
        if chunk is not None and size != chunk.size:
            raise Refused(SIZE_INVALID)
        return then()

    try:
        with _saying(call):
            return await receive_into(
                call.request.receive,
                arrival.begin,
                limit_bytes=most,
                run=call.registry.threads.for_body(announced),
                announced_bytes=announced,
                lend=call.lender,
                then=end,
            )
    except (ClientGone, asyncio.CancelledError):  # the latter when the server is told to stop
        await run(arrival.save)
        raise
    except Superseded:
        return await _step(call, arrival.give_way)
    except BodyTooLarge:
        await run(arrival.drop)
        if chunk is not None and most == chunk.size:
            raise Refused(SIZE_INVALID) from None
        raise
    except BaseException:
        await run(arrival.drop)
        raise


async def _step(call: Call, step: Callable[[*Ts], T], *args: *Ts) -> T:
    """Run one blocking step; what it says about sessions becomes an answer."""
    with _saying(call):
        return await call.registry.threads.run(step, *args)


@contextmanager
def _saying(call: Call) -> Iterator[None]:
    """Make an answer of what is said about sessions."""
    try:
        yield
    except NoSession:
        raise Refused(BLOB_UPLOAD_UNKNOWN) from None
    except OutOfStep as error:
        headers = {**_where(call, call.variable), "Range": chunks.held(error.held)}
        raise Refused(RANGE_INVALID, message=str(error), headers=headers) from None


def _uploads(call: Call) -> Uploads:
    return Uploads(call.store, call.repository, call.registry.first_access, call.now)


def _chunk(call: Call) -> Chunk | None:
    """Return what the headers say about the body.

    Raises:
        Refused: 400, they contradict each other or say nothing that can be understood.
    """
    text, announced = call.header("content-range"), call.announced_bytes
    if text is None:
        return None
    chunk = chunks.parse_chunk(text)
    if chunk is None:
        raise Refused(BLOB_UPLOAD_INVALID, {"Content-Range": text[:100]}, message=_NO_CHUNK)
    if announced is not None and announced != chunk.size:
        raise Refused(SIZE_INVALID, {"Content-Range": text, "Content-Length": announced})
    return chunk


def _where(call: Call, session: str) -> dict[str, str]:
    """Say where the session goes on: one place for all of its life, and relative, so that no proxy can spoil it."""
    return {"Location": f"{call.base}/blobs/uploads/{session}", "Docker-Upload-UUID": session}


def _created(call: Call, digest: Digest) -> Response:
    headers = {"Location": f"{call.base}/blobs/{digest}", "Docker-Content-Digest": str(digest)}
    return Response(status_code=201, headers=headers)
