"""What was moved so far and what had to be left out; and who wants to know while it goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import final

from api.porting.errors import Unusable


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something left out: what it is, and why."""

    what: str
    why: str


@dataclass(slots=True)
class Counts:
    """How much came over.

    Attributes:
        repositories: looked into.
        manifests: stored, or written.
        images: of Registry v1, stored.
        tags: set, or written.
        blobs: whose bytes were read.
        bytes: of these blobs.
        unchanged: manifests, v1 images and written files that were there already.
        skipped: left out; each was named.
    """

    repositories: int = 0
    manifests: int = 0
    images: int = 0
    tags: int = 0
    blobs: int = 0
    bytes: int = 0
    unchanged: int = 0
    skipped: int = 0


@final
@dataclass(slots=True)
class Report:
    """Counts, and two listeners: `left_out` is told each thing as it is left out, `moved` that something went on.

    Attributes:
        done: steps done.
        total: steps in all, as far as is known.
        now: what is worked on.
    """

    left_out: Callable[[Skipped], object] = bool
    moved: Callable[[Report], object] = bool
    counts: Counts = field(default_factory=Counts)
    done: int = 0
    total: int = 0
    now: str = ""

    def begin(self, what: str) -> None:
        """Say what is worked on."""
        self.now = what
        self.moved(self)

    def step(self) -> None:
        """Say that one step is done."""
        self.done += 1
        self.moved(self)

    def block(self, size: int) -> None:
        """Count bytes that were moved."""
        self.counts.bytes += size
        self.moved(self)

    def skip(self, what: str, why: object) -> None:
        """Leave something out, and tell."""
        self.counts.skipped += 1
        self.left_out(Skipped(what, str(why)))


@contextmanager
def reporting(report: Report, what: str) -> Iterator[None]:
    """Leave something out, and tell, if what is done here finds it unusable."""
    try:
        yield
    except Unusable as error:
        report.skip(what, error)
