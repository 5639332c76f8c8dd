"""Routes on which a push and a pull begin and end: what a hub does, done by the registry itself.

Only these hand out tokens: on any other route one would replace the token a client is using.
"""

from __future__ import annotations

from starlette.responses import Response
from starlette.types import ASGIApp

from api.errors import ApiError
from api.v1 import parsing, refusals, repositories
from api.v1.answers import NEVER_CACHE, answer
from api.v1.call import Call
from api.v1.names import Repository
from api.v1.tokens import Access


def _wants_token(call: Call) -> bool:
    return (call.header("x-docker-token") or "").strip().lower() == "true"


def _index_headers(call: Call, repository: Repository, access: Access, *, token: bool) -> dict[str, str]:
    """Tell a client where to go on, and with what."""
    headers = {"X-Docker-Endpoints": call.host}
    if token:
        text = call.registry.signer.issue(repository, access)
        headers |= {"X-Docker-Token": text, "WWW-Authenticate": f"Token {text}"}
    return headers


async def put_repository(call: Call) -> ASGIApp:
    """Row 19: begin a push. Engines before 1.7 stop without a token here, asked for or not."""
    repository = call.repository
    listed = parsing.image_list(await call.body())
    await call.registry.threads.run(repositories.add_images, call.store, repository, listed, call.now)
    return answer("", headers=_index_headers(call, repository, "write", token=True))


async def put_images(call: Call) -> ASGIApp:
    """Row 21: end a push. Only 204 is success to an engine."""
    repository = call.repository
    listed = parsing.image_list(await call.body())
    await call.registry.threads.run(repositories.add_images, call.store, repository, listed, call.now)
    headers = _index_headers(call, repository, "write", token=_wants_token(call))
    return Response(status_code=204, headers={**NEVER_CACHE, **headers})


async def get_images(call: Call) -> ASGIApp:
    """Row 22: begin a pull."""
    repository = call.repository
    listed = await call.registry.threads.run(repositories.list_images, call.store, repository)
    return answer(listed, headers=_index_headers(call, repository, "read", token=_wants_token(call)))


async def delete_repository(call: Call) -> ASGIApp:
    """Rows 16 and 20.

    A client that asks for a token expects three steps, of which the first does it all here; the second comes
    with our delete token, and finds nothing left to do.
    """
    repository = call.repository
    try:
        await call.registry.threads.run(repositories.delete, call.store, repository)
    except ApiError as error:
        if error.status != refusals.REPOSITORY_NOT_FOUND[0] or not _may_have_deleted(call, repository):
            raise
    if _wants_token(call):
        return answer("", 202, _index_headers(call, repository, "delete", token=True))
    return answer()


def _may_have_deleted(call: Call, repository: Repository) -> bool:
    token = call.registry.signer.read(call.header("authorization"))
    return token is not None and token.access == "delete" and token.repository == str(repository)
