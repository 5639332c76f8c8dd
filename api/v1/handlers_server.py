"""Routes about the server itself."""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp

from api.access.settings import Mode
from api.v1.answers import answer
from api.v1.call import Call
from cas import CasError, Name, Store

SERVER: Final = "cas registry"
VERSION: Final = "0.9.1"  # the reference whose behaviour this is; engines before 0.11 insist on being told one

_ANYTHING: Final = Name("repo", "library/status")  # looked up to see whether look-ups work


async def get_ping(call: Call) -> ASGIApp:
    """Row 1: touches nothing, so that it is fast and open whatever else is the case.

    Only a standalone registry is sent passwords and no tokens, and only a token says which repository is meant.
    """
    headers = {
        "X-Docker-Registry-Version": VERSION,
        "X-Docker-Registry-Standalone": "true" if call.registry.access.mode == Mode.OPEN else "false",
    }
    return answer({}, headers=headers)


async def get_root(_: Call) -> ASGIApp:
    """Row 18."""
    return answer(SERVER)


async def get_status(call: Call) -> ASGIApp:
    """Row 18: whether the storage answers, and would take a push."""
    failures: dict[str, str] = {}
    try:
        await call.registry.threads.run(_see, call.store)
    except CasError as error:
        failures["storage"] = str(error)
    status = {"services": ["storage"], "failures": failures, "host": call.host}
    return answer(status, 503 if failures else 200)


def _see(store: Store) -> None:
    store.get(_ANYTHING)
    store.check_ready()
