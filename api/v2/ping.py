"""The ping: this is a registry of the v2 protocol, and the caller's credentials are good."""

from __future__ import annotations

from starlette.responses import Response
from starlette.types import ASGIApp

from api.v2.call import Call
from api.v2.errors import JSON


async def get(_call: Call) -> ASGIApp:
    """end-1; whoever must say who they are was refused before."""
    return Response(b"{}", media_type=JSON)
