"""Routes of blobs: reading one, a part or several parts of one, and removing one from a repository."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from starlette.responses import Response
from starlette.types import ASGIApp

from api.basis import Basis, look_up
from api.content.repository import Repository
from api.lately import ENTRY_BYTES
from api.ranges import Part, Unsatisfiable, parse_ranges
from api.streaming import BlobResponse, close
from api.v2 import caching, links, names
from api.v2.call import Call
from api.v2.errors import BLOB_UNKNOWN, RANGE_UNSATISFIABLE, Refused
from api.v2.links import Link
from api.v2.multipart import Parts
from cas import Blob, Digest, Held, Places, Reader, Reads, Store

OCTETS: Final = "application/octet-stream"
Content = Blob | bytes | Places | None  # of a blob, as one look tells it


@dataclass(frozen=True, slots=True)
class _Found:
    """A blob as it is answered with.

    Attributes:
        size: its length in bytes.
        source: where its bytes come from; these themselves, where no file is needed: for a HEAD, or a small one.
        basis: what it was looked up by, if that was done at one moment.
    """

    size: int
    source: Reader | Held | bytes
    basis: Basis | None = None


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
    found = _at_hand(call, digest) or await _looked_up(call, digest)
    cached, source = caching.not_modified(call.header("if-none-match"), digest, headers), found.source
    if isinstance(source, bytes):
        answer = cached or Response(source, headers={**headers, "Content-Length": str(found.size)})
        return call.repeatable(answer, found.basis)
    try:
        if cached is None:
            return _answer(call, source, found.basis, _wanted(call, digest), headers)
    except BaseException:
        await close(source, threads)
        raise
    await close(source, threads)
    return call.repeatable(cached, found.basis)


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


def _at_hand(call: Call, digest: Digest) -> _Found | None:
    """Return what somebody asked for lately, if that is still so; nothing here waits.

    Not for HEAD: those who push ask so, and are kept from losing what they rely on (`links.touch`).
    """
    kept, key = call.registry.blobs, (call.repository, digest)
    source = kept.find(key) if call.request.method == "GET" else None
    if source is None or (isinstance(source, bytes) and call.header("range") is not None):
        return None
    held = source if isinstance(source, bytes) else source.again()
    basis = kept.still(key)  # last: what is held stays as it is, and so it is of now
    if held is not None and basis is not None:
        return _Found(len(held) if isinstance(held, bytes) else held.size, held, basis)
    if isinstance(held, Held):
        held.close()
    return None


async def _looked_up(call: Call, digest: Digest) -> _Found:
    found = await call.registry.threads.run(_open, call, digest)
    if found.basis is not None and not isinstance(found.source, Reader):
        size = ENTRY_BYTES + (len(found.source) if isinstance(found.source, bytes) else 0)
        call.registry.blobs.keep((call.repository, digest), found.source, found.basis, size)
    return found


def _open(call: Call, digest: Digest) -> _Found:
    repository, is_head, in_part = call.repository, call.request.method == "HEAD", call.header("range") is not None

    def look(reads: Reads) -> tuple[Link, Content]:
        link = links.find(reads, repository, digest)
        if link is None:
            raise Refused(BLOB_UNKNOWN, {"digest": str(digest)})
        return link, reads.stat(digest) if is_head else reads.content(digest)

    (link, content), basis = look_up(call.store, look, _facts)
    found = _found(call.store, digest, basis, content, in_part=in_part)
    if is_head and links.is_stale(link, call.now):  # pushes ask that way, pulls do not
        links.touch(call.store, repository, digest, call.now)
    return found


def _facts(seen: tuple[Link, Content]) -> object:
    """Return what goes into an answer beside the digest, which says what the bytes are."""
    _, content = seen
    return content if isinstance(content, Places) else type(content)


def _found(store: Store, digest: Digest, basis: Basis, content: Content, *, in_part: bool) -> _Found:
    match content:
        case Blob() if not in_part:
            return _Found(content.size, b"")
        case bytes() if not in_part:
            return _Found(len(content), content, basis)
        case Places() if (held := store.hold(content)) is not None:
            return _Found(held.size, held, basis)
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
    call: Call, source: Reader | Held, basis: Basis | None, wanted: str | None, headers: Mapping[str, str]
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
    return call.repeatable(BlobResponse(source, threads, headers=headers), basis, again)
