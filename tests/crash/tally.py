"""What a campaign did, counted by class."""

from __future__ import annotations

from collections import Counter
from itertools import groupby

ROUNDS, KILL, FAULT, DAMAGE, WORK = "rounds", "kills", "faults", "damaged packs", "works"


class Tally:
    """Counts of things of a few kinds; `str` gives a line for each kind."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()

    def add(self, kind: str, what: str, count: int = 1) -> None:
        """Count something."""
        self._counts[kind, what] += count

    def total(self, kind: str) -> int:
        """Return how many of a kind there were."""
        return sum(count for (its, _), count in self._counts.items() if its == kind)

    def of(self, kind: str, what: str) -> int:
        """Return how many there were of just that."""
        return self._counts[kind, what]

    def __str__(self) -> str:
        lines = []
        for kind, entries in groupby(sorted(self._counts), key=lambda entry: entry[0]):
            told = ", ".join(f"{self._counts[kind, what]:,} {what}" for _, what in entries)
            lines.append(f"{self.total(kind):>7,} {kind}: {told}")
        return "\n".join(lines)
