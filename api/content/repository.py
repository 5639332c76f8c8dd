"""The name of a repository, as every protocol and the store mean it.

Knows that a name without a slash belongs to the library. Refuses to know grammars: each protocol has its own
and checks before it makes one of these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

LIBRARY: Final = "library"  # the namespace of repositories that were given none


@dataclass(frozen=True, slots=True, order=True)
class Repository:
    """A repository by its full name: `foo` and `library/foo` are one, `library/foo`."""

    namespace: str
    path: str

    @classmethod
    def of(cls, name: str) -> Self:
        """Read a name that was checked, full or short."""
        head, slash, tail = name.partition("/")
        return cls(head, tail) if slash else cls(LIBRARY, head)

    @property
    def short(self) -> str:
        """The name as today's clients show it: without `library/` where that was implied."""
        return self.path if self.namespace == LIBRARY and "/" not in self.path else str(self)

    def __str__(self) -> str:
        """Return the full name."""
        return f"{self.namespace}/{self.path}"
