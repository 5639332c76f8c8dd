"""The application: every protocol's routes over one store, with one set of accounts.

`build` is the composition root of `api/`. Knows what wraps what; decides nothing about a request.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, final

from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from api.access import keys
from api.access.authenticate import Authenticator
from api.access.settings import AccessSettings, Mode
from api.bridge.views import Bridge
from api.config import MIB, HttpSettings
from api.content import removal
from api.errors import ApiError, Errors
from api.lately import Lately
from api.paths import Paths
from api.request import Bodies
from api.threads import Threads
from api.v1 import answers, refusals
from api.v1 import call as v1_call
from api.v1.gate import AccountGate, OpenGate
from api.v1.rights import Gate
from api.v1.routes import routes
from api.v1.settings import V1Settings
from api.v2 import app as v2_app
from api.v2 import auth
from api.v2 import call as v2_call
from api.v2.admitted import Admitted
from api.v2.settings import V2Settings
from cas import Store

if TYPE_CHECKING:
    from api.v1.vouching import VouchedGate

_V1: Final = V1Settings()
_V2: Final = V2Settings()
_ACCESS: Final = AccessSettings()
# What a worker has at hand of manifests, and as much of blobs: those of the images that are pulled by many just now.
_AT_HAND_BYTES: Final = 4 * MIB


def build(
    store: Store,
    http: HttpSettings,
    v1: V1Settings = _V1,
    access: AccessSettings = _ACCESS,
    v2: V2Settings = _V2,
    *,
    clock: Callable[[], float] = time.time,  # noqa: TID251 - the default of an argument
) -> ASGIApp:
    """Make the ASGI application of one worker. Its threads end with its lifespan; the store stays open.

    Raises:
        BadPasswordFile: the settings name one that cannot be used.
        ValueError: `token` mode without an index to ask.
    """
    keys.ensure(store, clock())
    threads = Threads(http.threads)
    authenticator = Authenticator(store, access, clock, threads.run)
    vouched = _vouched(store, v1, access, threads, clock) if access.mode == Mode.TOKEN else None
    gate = vouched or _gate(store, access, authenticator, threads, clock)

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        await threads.run(removal.finish_all, store)
        yield
        bridge.stop()
        if vouched is not None:
            await vouched.close()
        authenticator.close()
        threads.close()

    bridge = Bridge(store, v1, threads.run, clock)
    shared = store, threads, http, access, clock, authenticator, Bodies(http.large_bodies), bridge
    hub = v1_call.Registry(*shared, v1, gate)
    oci = v2_call.Registry(
        *shared,
        v2,
        keys=keys.Nearby(store),
        admit=partial(auth.admit, Admitted(store.moment, clock)),
        manifests=Lately(_AT_HAND_BYTES, store.moment, clock),
        blobs=Lately(_AT_HAND_BYTES, store.moment, clock),
    )
    router = Router(routes(hub), redirect_slashes=False, default=_nowhere, lifespan=lifespan)
    hubs = Errors(Paths(router), answers.refuse)
    if vouched is not None:
        return hubs  # what an index vouches for is v1's alone: today's clients are told that there is no v2 here
    return _Protocols(v1=hubs, v2=v2_app.build(oci))


@final
@dataclass(frozen=True, slots=True)
class _Protocols:
    """Sends each request to the protocol it is for; what is for none, and the lifespan, goes to the oldest."""

    v1: ASGIApp
    v2: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self.v2 if v2_app.serves(scope) else self.v1)(scope, receive, send)


def _vouched(
    store: Store, v1: V1Settings, access: AccessSettings, threads: Threads, clock: Callable[[], float]
) -> VouchedGate:
    if access.index_url is None:
        raise ValueError("`token` mode asks an index about every token: say where it is with index_url")
    from api.v1.vouching import Index, VouchedGate  # noqa: PLC0415 - an HTTP client takes a while to load, and few have an index

    index = Index(access.index_url, threads.run, clock, timeout_s=v1.index_timeout_s, remember_s=v1.vouched_s)
    return VouchedGate(index, store, threads.run)


def _gate(
    store: Store, access: AccessSettings, authenticator: Authenticator, threads: Threads, clock: Callable[[], float]
) -> Gate:
    if access.mode == Mode.OPEN:
        return OpenGate(store, threads.run)
    return AccountGate(store, access, authenticator, threads.run, clock)


async def _nowhere(scope: Scope, _receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close"})  # before it was accepted: the server makes this a 403
        return
    raise ApiError(*refusals.NO_SUCH_ROUTE)
