"""The application: every protocol's routes in one list, over one store.

`build` is the composition root of `api/`. Knows what wraps what; decides nothing about a request.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from api.config import HttpSettings
from api.errors import ApiError, Errors
from api.paths import Paths
from api.threads import Threads
from api.v1 import answers, refusals
from api.v1.call import Registry
from api.v1.routes import routes
from api.v1.settings import V1Settings
from api.v1.tokens import KEY_BYTES, Signer
from cas import Name, Names, Record, Store

# In the store, so that all workers read each other's tokens, and go on reading them after a restart.
KEY: Final = Name("v1.key", "token")
_DEFAULTS: Final = V1Settings()


def build(
    store: Store,
    http: HttpSettings,
    v1: V1Settings = _DEFAULTS,
    *,
    clock: Callable[[], float] = time.time,  # noqa: TID251 - the default of an argument
    new_key: Callable[[int], bytes] = secrets.token_bytes,
) -> ASGIApp:
    """Make the ASGI application of one worker. Its threads end with its lifespan; the store stays open."""
    threads = Threads(http.threads)
    signer = Signer(_token_key(store, new_key), clock, v1.token_s)
    registry = Registry(store, http, v1, clock, threads, signer)

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        yield
        threads.close()

    router = Router(routes(registry), redirect_slashes=False, default=_nowhere, lifespan=lifespan)
    return Errors(Paths(router), answers.refuse)


async def _nowhere(scope: Scope, _receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close"})  # before it was accepted: the server makes this a 403
        return
    raise ApiError(*refusals.NO_SUCH_ROUTE)


def _token_key(store: Store, new_key: Callable[[int], bytes]) -> bytes:
    """Return the store's key; the first process to ask makes it."""
    found = store.get(KEY)
    if found is not None:
        return found.value
    fresh = new_key(KEY_BYTES)

    def edit(names: Names) -> bytes:
        record = names.get(KEY)
        if record is not None:
            return record.value
        names.put(KEY, Record(fresh))
        return fresh

    return store.change(edit)
