"""Routes on which a push and a pull begin and end: what a hub does, done by the registry itself.

Only these hand out tokens: on any other route one would replace the token a client is using.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import ASGIApp

from api.access import keys
from api.content.repository import Repository
from api.errors import ApiError
from api.v1 import parsing, refusals, repositories, tokens
from api.v1.answers import JSON, NEVER_CACHE, encode
from api.v1.call import Call
from api.v1.handlers_repositories import shown_tags
from api.v1.tokens import Access

T = TypeVar("T")


def _wants_token(call: Call) -> bool:
    return (call.header("x-docker-token") or "").strip().lower() == "true"


async def _work(call: Call, access: Access | None, step: Callable[[], T]) -> tuple[T, str | None]:
    """Do what a route is for and write a token for it, in one hop."""
    repository, who = call.repository, call.admission.caller.principal
    expires = int(call.now) + call.registry.v1.token_s

    def both() -> tuple[T, str | None]:
        done = step()
        if access is None:
            return done, None
        return done, tokens.issue(call.store.read(keys.read).newest, repository, access, who, expires)

    return await call.registry.threads.run(both)


def _answer(call: Call, status: int, token: str | None, *content: Any) -> Response:
    """Tell a client where to go on, and with what. Old engines do not split a list: a line for each endpoint."""
    headers = dict(NEVER_CACHE)
    if token is not None:
        headers |= {"X-Docker-Token": token, "WWW-Authenticate": f"Token {token}"}
    media_type = JSON if content else None
    response = Response(b"".join(map(encode, content)), status, headers, media_type=media_type)
    for endpoint in call.endpoints:
        response.headers.append("X-Docker-Endpoints", endpoint)
    return response


async def put_repository(call: Call) -> ASGIApp:
    """Row 19: begin a push. Engines before 1.7 stop without a token here, asked for or not."""
    token = await _add_images(call, "write")
    return _answer(call, 200, token, "")


async def put_images(call: Call) -> ASGIApp:
    """Row 21: end a push. Only 204 is success to an engine."""
    token = await _add_images(call, "write" if _wants_token(call) else None)
    return _answer(call, 204, token)


async def _add_images(call: Call, access: Access | None) -> str | None:
    repository, body = call.repository, await call.body()

    def step() -> None:
        listed = parsing.image_list(body)
        repositories.add_images(call.store, repository, listed, call.now, call.registry.first_access)

    _, token = await _work(call, access, step)
    return token


async def get_images(call: Call) -> ASGIApp:
    """Row 22: begin a pull. What tags on manifests are made of is in the list, too, so it is made now."""
    repository = call.repository
    await shown_tags(call, refusals.IMAGES_NOT_FOUND)
    access: Access | None = "read" if _wants_token(call) else None
    listed, token = await _work(call, access, lambda: repositories.list_images(call.store, repository))
    return _answer(call, 200, token, listed)


async def delete_images(call: Call) -> ASGIApp:
    """Row 23: does nothing but hand out a token."""
    _, token = await _work(call, "delete" if _wants_token(call) else None, lambda: None)
    return _answer(call, 204, token)


async def delete_repository(call: Call) -> ASGIApp:
    """Rows 16 and 20.

    A client that asks for a token expects three steps, of which the first does it all here; the second comes
    with our delete token, and finds nothing left to do.
    """
    repository = call.repository
    wants = _wants_token(call)

    def step() -> None:
        try:
            repositories.delete(call.store, repository, call.now)
        except ApiError as error:
            if error.status != refusals.REPOSITORY_NOT_FOUND[0] or not _may_have_deleted(call, repository):
                raise

    _, token = await _work(call, "delete" if wants else None, step)
    return _answer(call, 202, token, "") if wants else _answer(call, 200, None, True)  # noqa: FBT003


def _may_have_deleted(call: Call, repository: Repository) -> bool:
    token = call.admission.token
    in_time = token is not None and call.now <= token.expires
    return in_time and token is not None and token.access == "delete" and token.repository == str(repository)


async def put_auth(call: Call) -> ASGIApp:
    """Row 24: whether a token that pushes or deletes is good; the gate has said so already."""
    repository = call.repository
    await call.registry.threads.run(repositories.check, call.store, repository)
    return _answer(call, 200, None, "OK")


async def get_layer_access(call: Call) -> ASGIApp:
    """Row 25: asked by registries that trust this index."""
    repository, image_id = call.repository, call.image_id
    listed = await call.registry.threads.run(repositories.is_listed, call.store, repository, image_id)
    return _answer(call, 200, None, {"access": listed})
