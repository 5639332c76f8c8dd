"""Who is asking: values only."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final


class Action(StrEnum):
    """What can be done to a repository. Whoever may push may also pull: every client reads while it pushes."""

    PULL = "pull"
    PUSH = "push"
    DELETE = "delete"


ALL: Final = frozenset(Action)
NONE: Final[frozenset[Action]] = frozenset()


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody with an account, or nobody in particular.

    Attributes:
        name: of the account; None for an anonymous caller.
        admin: whether everything is allowed.
        stamp: changes with the account's password, and when the name gets to somebody else. A token carries
            the one it was made under, and is good for no other.
    """

    name: str | None
    admin: bool = False
    stamp: str = field(default="", compare=False)


ANONYMOUS: Final = Principal(None)


@dataclass(frozen=True, slots=True)
class Caller:
    """A principal, and what the credentials they showed are good for.

    Attributes:
        principal: whose rights count, as they are now.
        scope: pairs of a repository's full name and an action that a token is limited to; None is no limit.
        lists: whether they are also good for lists of repositories.
        until: for how long they are known to be good, in Unix seconds.
    """

    principal: Principal
    scope: frozenset[tuple[str, Action]] | None = None
    lists: bool = True
    until: float = field(default=math.inf, compare=False)

    def limit(self, repository: str, rights: frozenset[Action]) -> frozenset[Action]:
        """Leave those rights to a repository that the credentials are good for."""
        if self.scope is None:
            return rights
        return frozenset(action for action in rights if (repository, action) in self.scope)


NOBODY: Final = Caller(ANONYMOUS)
