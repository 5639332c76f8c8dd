"""Routes of blobs: reading one, a part or several parts of one, and removing one from a repository."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from starlette.responses import Response
from starlette.types import ASGIApp

from api.content.repository import Repository
from api.ranges import Part, Unsatisfiable, parse_ranges
from api.streaming import BlobResponse, close
from api.v2 import caching, links, names
from api.v2.call import Call
from api.v2.errors import BLOB_UNKNOWN, RANGE_UNSATISFIABLE, Refused
from api.v2.links import Link
from api.v2.multipart import Parts
from cas import Blob, Digest, Held, Places, Reader, Reads, Store

OCTETS: Final = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class _Found:
    """A blob as it is answered with.

    Attributes:
        size: its length in bytes.
        source: where its bytes come from; these themselves, where no file is needed: for a HEAD, or a small one.
        moment: at which all of this was looked up, if it was one.
    """

    size: int
    source: Reader | Held | bytes
    moment: int | None = None


async def get(call: Call) -> ASGIApp:
    """end-2."""
    digest, threads = _digest(call), call.registry.threads
    headers = {
        "Content-Type": OCTETS,
        "Docker-Content-Digest": str(digest),
        "Accept-Ranges": "bytes",
        "ETag": caching.etag(digest),
        "Cache-Control": caching.FOREVER,
    }
    found = await threads.run(_open, call, digest)
    cached, source = caching.not_modified(call.header("if-none-match"), digest, headers), found.source
    if isinstance(source, bytes):
        answer = cached or Response(source, headers={**headers, "Content-Length": str(found.size)})
        return call.repeatable(answer, found.moment)
    try:
        if cached is None:
            return _answer(call, source, found.moment, _wanted(call, digest), headers)
    except BaseException:
        await close(source, threads)
        raise
    await close(source, threads)
    return call.repeatable(cached, found.moment)


async def delete(call: Call) -> ASGIApp:
    """end-10: the link of this repository; whatever else shows the blob goes on doing so."""
    digest, repository = _digest(call), call.repository
    if not await call.registry.threads.run(_unlink, call.store, repository, digest):
        raise Refused(BLOB_UNKNOWN, {"digest": str(digest)})
    return Response(status_code=202)


def _digest(call: Call) -> Digest:
    digest = names.known_digest(call.variable)
    if digest is None:
        raise Refused(BLOB_UNKNOWN, {"digest": call.variable[:300]})
    return digest


def _open(call: Call, digest: Digest) -> _Found:
    is_head, in_part = call.request.method == "HEAD", call.header("range") is not None

    def look(reads: Reads) -> tuple[Link, int, Blob | bytes | Places | None]:
        link = links.find(reads, call.repository, digest)
        if link is None:
            raise Refused(BLOB_UNKNOWN, {"digest": str(digest)})
        return link, reads.moment, reads.stat(digest) if is_head else reads.content(digest)

    link, moment, content = call.store.read(look)
    found = _found(call.store, digest, moment, content, in_part=in_part)
    if is_head and links.is_stale(link, call.now):  # pushes ask that way, pulls do not
        links.touch(call.store, call.repository, digest, call.now)
    return found


def _found(
    store: Store, digest: Digest, moment: int, content: Blob | bytes | Places | None, *, in_part: bool
) -> _Found:
    match content:
        case Blob() if not in_part:
            return _Found(content.size, b"")
        case bytes() if not in_part:
            return _Found(len(content), content, moment)
        case Places() if (held := store.hold(content)) is not None:
            return _Found(held.size, held, moment)
    reader = store.reader(digest)
    return _Found(reader.size, reader)


def _unlink(store: Store, repository: Repository, digest: Digest) -> bool:
    if store.read(lambda reads: links.find(reads, repository, digest)) is None:
        return False  # without waiting for a commit
    return store.change(lambda changing: links.delete(changing, repository, digest))


def _wanted(call: Call, digest: Digest) -> str | None:
    """Return the `Range` header, unless the client has a part of something else (`If-Range`)."""
    condition = call.header("if-range")
    return call.header("range") if condition in (None, caching.etag(digest)) else None


def _answer(
    call: Call, source: Reader | Held, moment: int | None, wanted: str | None, headers: Mapping[str, str]
) -> ASGIApp:
    threads, size = call.registry.threads, source.size
    match parse_ranges(wanted, size):
        case Unsatisfiable() as nothing:
            raise Refused(
                RANGE_UNSATISFIABLE,
                {"size": size},
                headers={"Content-Range": nothing.content_range(size), "Accept-Ranges": "bytes"},
            )
        case (Part() as part,):
            headers = {**headers, "Content-Range": part.content_range(size)}
            return BlobResponse(source, threads, status=206, headers=headers, start=part.start, stop=part.stop)
        case tuple() as several if (parts := Parts(source, several, OCTETS)).is_worth_it:
            return BlobResponse(parts, threads, status=206, headers={**headers, "Content-Type": parts.content_type})
    again = source.again if isinstance(source, Held) else None
    return call.repeatable(BlobResponse(source, threads, headers=headers), moment, again)
