"""One request on its way through a v2 handler, and the registry it was sent to.

Knows how to get at names, headers and bodies. Refuses to know any route, and how anybody is recognised.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import final
from urllib.parse import parse_qsl

from starlette.types import ASGIApp

from api.access.keys import Nearby
from api.access.principal import NOBODY, Action, Caller
from api.access.settings import Mode
from api.basis import Basis
from api.content.repository import Repository
from api.lately import Lately
from api.repeats import Again, Fresh, repeatable
from api.request import Asked, Server
from api.v2.manifest import Manifest
from api.v2.settings import V2Settings
from cas import Digest, Held


class Need(Enum):
    """What somebody needs who uses a route; every route says it. The values are the rights to its repository."""

    NOTHING = "nothing"  # where credentials are looked at by the handler itself: the token service
    LOGIN = "login"  # the ping: whoever has credentials shows that they are good
    CATALOGUE = "catalogue"  # the list of repositories: everybody gets what they may pull
    PULL = frozenset({Action.PULL})
    PUSH = frozenset({Action.PULL, Action.PUSH})
    DELETE = frozenset({Action.DELETE})

    @property
    def actions(self) -> frozenset[Action]:
        """The rights to the path's repository."""
        return self.value if isinstance(self.value, frozenset) else frozenset()


@dataclass(frozen=True, slots=True)
class Registry(Server):
    """Everything a handler may need that outlives a request.

    Attributes:
        keys: signs and reads what clients are given to bring back.
        admit: says who calls, or refuses, before the handler runs and before a byte of the body is read.
        manifests: those asked for lately, whose bytes are at hand, by repository and reference.
        blobs: the same for blobs: the bytes of small ones, and where others lie.
        large: whose turn it is to have a large document parsed: that takes many times its size in memory.
    """

    v2: V2Settings
    keys: Nearby
    admit: Callable[[Call, Need], Awaitable[Caller]]
    manifests: Lately[tuple[Repository, str | Digest], Manifest]
    blobs: Lately[tuple[Repository, Digest], bytes | Held]
    large: asyncio.Semaphore = field(default_factory=partial(asyncio.Semaphore, 1))


@final
@dataclass(frozen=True, slots=True)
class Call(Asked[Registry]):
    """A request and its registry.

    Attributes:
        name: the repository's name as the client spelled it, which is how it is shown; empty on routes without.
        repository: the same as the store means it; only on routes that have one.
        variable: the path's other part: a digest, a reference or an upload's id; not checked.
        caller: who was admitted.
    """

    name: str
    variable: str
    caller: Caller = NOBODY

    @property
    def repository(self) -> Repository:
        """The path's repository, which the dispatcher checked."""
        return Repository.of(self.name)

    @property
    def base(self) -> str:
        """The path of the repository; what every relative Location begins with."""
        return f"/v2/{self.name}"

    def header_lines(self, name: str) -> str | None:
        """Return a request header that is a list, all its lines as one."""
        return ", ".join(self.request.headers.getlist(name)) or None

    def repeatable(
        self, answer: ASGIApp, basis: Basis | None, files: Again | None = None, fresh: Fresh | None = None
    ) -> ASGIApp:
        """Let an answer be given again to whoever asks the same, while what it rests on is the same; see `repeats`.

        Only where nobody is asked who they are: rights are looked at anew each time, and tokens end with time.
        """
        is_open = self.registry.access.mode == Mode.OPEN
        return repeatable(answer, basis, files, fresh) if is_open and basis is not None else answer

    def query(self) -> list[tuple[str, str]]:
        """Return the query's parameters in order; each may occur more than once."""
        return parse_qsl(self.request.scope["query_string"].decode("latin-1"), keep_blank_values=True)

    def parameter(self, name: str) -> str | None:
        """Return a query parameter, the first of that name."""
        return next((value for key, value in self.query() if key == name), None)


Handler = Callable[[Call], Awaitable[ASGIApp]]
Methods = Mapping[str, tuple[Handler, Need]]
