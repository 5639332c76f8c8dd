"""Routes of repositories and tags, the registry's side: parse, one step in a thread, render."""

from __future__ import annotations

from asyncio import TaskGroup
from contextlib import suppress
from typing import Final

from starlette.types import ASGIApp

from api.content import tags
from api.errors import ApiError
from api.v1 import agents, homes, parsing, refusals, repositories
from api.v1.answers import answer
from api.v1.call import Call
from api.v1.images import Place
from api.v1.names import new_tag
from cas import Damaged

_MADE_AT_ONCE: Final = 8  # their commits become one


async def get_tags(call: Call) -> ASGIApp:
    """Row 10."""
    return answer(await shown_tags(call))


async def shown_tags(call: Call, refusal: tuple[int, str] = refusals.REPOSITORY_NOT_FOUND) -> dict[str, str]:
    """Map the repository's tags to images; those on manifests are made now, or left out if they cannot be.

    Raises:
        ApiError: 404 if there is no such repository.
    """
    registry = call.registry
    shown = await registry.threads.run(repositories.list_tags, call.store, registry.views, call.repository, refusal)
    left = iter([tag for tag, image_id in shown.items() if image_id is None])

    async def make() -> None:
        for tag in left:
            with suppress(Damaged):  # one bad tag does not hide the others; whoever asks for it is told
                image = await registry.views.image(call.repository, tag)
                shown[tag] = None if image is None else image.id

    try:
        async with TaskGroup() as group:
            for _ in range(_MADE_AT_ONCE):
                group.create_task(make())
    except ExceptionGroup as several:
        raise several.exceptions[0] from None
    return {tag: image_id for tag, image_id in shown.items() if image_id is not None}


async def get_tag(call: Call) -> ASGIApp:
    """Row 11."""
    image = await _image(call)
    if image is None:
        raise ApiError(*refusals.TAG_NOT_FOUND)
    return answer(image.id)


async def _image(call: Call) -> tags.Image | None:
    """Return the image of the path's tag, made now if need be."""
    found = await call.registry.threads.run(repositories.find_tag, call.store, call.repository, call.tag)
    if found is None or found.image is not None:
        return None if found is None else found.image
    return await call.registry.views.image(call.repository, call.tag)


async def put_tag(call: Call) -> ASGIApp:
    """Row 12."""
    repository, tag = call.repository, new_tag(call.tag)
    target = parsing.tag_target(await call.body())
    meta = agents.tag_meta(call.header("user-agent") or "", call.now)

    def step() -> None:
        repositories.put_tag(_place(call, target), repository, tag, target, meta, call.registry.first_access)

    await call.registry.threads.run(step)
    return answer()


def _place(call: Call, image_id: str) -> Place:
    """Tell from where the image is seen that is to be tagged; a password may open more places than one."""
    registry, caller, home = call.registry, call.admission.caller, call.admission.home
    if home is None:
        home = call.store.read(lambda reads: homes.seen_by(reads, registry.access, caller, image_id))
    if home is None:
        raise ApiError(*refusals.IMAGE_NOT_FOUND)
    sees = homes.sight_of(registry.access, caller)
    return Place(call.store, registry.v1, home, call.now, call.admission.expired, sees=sees)


async def delete_tag(call: Call) -> ASGIApp:
    """Row 13: of what is no image to this protocol there is no tag to delete."""
    if await _image(call) is None:
        raise ApiError(*refusals.no_tag(call.tag))
    await call.registry.threads.run(repositories.delete_tag, call.store, call.repository, call.tag, call.now)
    return answer()


async def get_tag_json(call: Call) -> ASGIApp:
    """Row 14."""
    return await _meta(call, call.tag)


async def get_repository_json(call: Call) -> ASGIApp:
    """Row 15: the same, of the tag that is meant when none is named."""
    return await _meta(call, "latest")


async def _meta(call: Call, tag: str) -> ASGIApp:
    meta = await call.registry.threads.run(repositories.tag_meta, call.store, call.repository, tag)
    return answer(agents.UNKNOWN if meta is None else meta)


async def delete_tags(call: Call) -> ASGIApp:
    """Row 16, its second spelling."""
    await call.registry.threads.run(repositories.delete, call.store, call.repository, call.now)
    return answer()


async def get_properties(call: Call) -> ASGIApp:
    """Row 17."""
    registry = call.registry
    access = await registry.threads.run(repositories.get_access, call.store, call.repository, registry.first_access)
    return answer({"access": access})


async def put_properties(call: Call) -> ASGIApp:
    """Row 17."""
    repository, access = call.repository, parsing.access(await call.body())
    await call.registry.threads.run(repositories.put_access, call.store, repository, access, call.now)
    return answer()
