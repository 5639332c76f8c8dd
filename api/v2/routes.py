"""The table of the v2 protocol's routes, and the way through it. Read this first.

A path is matched from its right end, since a repository may be called almost anything: `/v2/a/tags/list/tags/list`
lists the tags of `a/tags/list`. Every method says what it needs; nobody gets to a handler, and no body is read, before
that was looked at.
"""

from __future__ import annotations

import re
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Final, final

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from api.v2 import blobs, lists, manifests, names, ping, referrers, token_service
from api.v2 import handlers_uploads as uploads
from api.v2.call import Call, Methods, Need, Registry
from api.v2.errors import NO_SUCH_METHOD, NO_SUCH_ROUTE, Refused

_VARIABLE: Final = re.compile(r"\{[a-z]+\}")


@dataclass(frozen=True, slots=True)
class Route:
    """A path and its methods. HEAD is answered by GET's handler; the server below leaves the body out.

    Attributes:
        path: `{name}` is a repository; another `{part}` is one segment; a slash at the end may be left out.
    """

    path: str
    methods: Methods
    pattern: re.Pattern[str] = field(init=False)

    def __post_init__(self) -> None:
        """Turn the path into a pattern."""
        text = re.escape(self.path).replace(r"\{", "{").replace(r"\}", "}")
        text = _VARIABLE.sub("(?P<variable>[^/]+)", text.replace("{name}", "(?P<name>.*)"))
        object.__setattr__(self, "pattern", re.compile(text + "?" * text.endswith("/")))

    def methods_with_head(self) -> Methods:
        """Return the methods with HEAD where there is GET."""
        return {**self.methods, "HEAD": self.methods["GET"]} if "GET" in self.methods else self.methods


TABLE: Final = (
    Route("/v2/", {"GET": (ping.get, Need.LOGIN)}),
    Route("/v2/token", {"GET": (token_service.get, Need.NOTHING), "POST": (token_service.post, Need.NOTHING)}),
    Route("/v2/_catalog", {"GET": (lists.get_catalogue, Need.CATALOGUE)}),
    Route("/v2/{name}/blobs/uploads/", {"POST": (uploads.post, Need.PUSH)}),
    Route(
        "/v2/{name}/blobs/uploads/{id}",
        {
            "GET": (uploads.get, Need.PUSH),
            "PATCH": (uploads.patch, Need.PUSH),
            "PUT": (uploads.put, Need.PUSH),
            "DELETE": (uploads.delete, Need.PUSH),
        },
    ),
    Route("/v2/{name}/blobs/{digest}", {"GET": (blobs.get, Need.PULL), "DELETE": (blobs.delete, Need.DELETE)}),
    Route(
        "/v2/{name}/manifests/{reference}",
        {
            "GET": (manifests.get, Need.PULL),
            "PUT": (manifests.put, Need.PUSH),
            "DELETE": (manifests.delete, Need.DELETE),
        },
    ),
    Route("/v2/{name}/tags/list", {"GET": (lists.get_tags, Need.PULL)}),
    Route("/v2/{name}/referrers/{digest}", {"GET": (referrers.get, Need.PULL)}),
)


@final
class Dispatcher:
    """From a decoded path to its handler."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request.

        Raises:
            Refused: 404 or 405 for what is not in the table, 400 for what cannot be a repository's name.
            ApiError: whatever admission or the handler says.
        """
        route, name, variable = find(scope["path"])
        methods = route.methods_with_head()
        if scope["method"] not in methods:
            raise Refused(NO_SUCH_METHOD, headers={"Allow": ", ".join(sorted(methods))})
        if name is not None:
            names.repository(name)
        handler, need = methods[scope["method"]]
        async with AsyncExitStack() as held:
            call = Call(self._registry, Request(scope, receive), held, name or "", variable or "")
            answer = await handler(replace(call, caller=await self._registry.admit(call, need)))
        await answer(scope, receive, send)


def find(path: str) -> tuple[Route, str | None, str | None]:
    """Return a path's route, its repository's name as spelled, and its other variable part.

    Raises:
        Refused: 404.
    """
    for route in TABLE:
        match = route.pattern.fullmatch(path)
        if match is not None:
            parts = match.groupdict()
            return route, parts.get("name"), parts.get("variable")
    raise Refused(NO_SUCH_ROUTE)
