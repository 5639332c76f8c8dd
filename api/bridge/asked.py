"""A tag of which somebody wants to see what the other generation's clients would: what both directions share.

Makes it once: of those who ask at the same time, in any process, one does the work while the others wait for it. That
only saves work. What counts is the change that notes the result with the tag, and whoever comes second finds the note.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from typing import Final, TypeVar, final

from api.bridge.layers import Layers
from api.bridge.refused import Refused
from api.bridge.to_v1 import NoImage
from api.content import tags
from api.content.repository import Repository
from api.content.views import NotShown
from api.v1.settings import V1Settings
from cas import Busy, CasError, Missing, Names, Reads, Staged, Store

V = TypeVar("V")

_TRIES: Final = 5  # against whoever pushes the same tag, or the same ids, just now
_WAIT_S: Final = 60.0  # for another process that is at the same tag; past it, the work is done twice


class Overtaken(Exception):
    """Something is otherwise than it was a moment ago: look anew."""


@final
@dataclass(frozen=True, slots=True)
class Asked:
    """The tag, and what is needed to look at it.

    Attributes:
        refused: manifests known to be no image for Registry v1.
        parsing: held by who reads JSON of strangers, which takes many times its size in memory; one at a time in a
            worker, and it is the interpreter's own turn anyway.
    """

    store: Store
    settings: V1Settings
    inside: Layers
    repository: Repository
    tag: str
    now: float
    refused: Refused = field(default_factory=Refused)
    parsing: AbstractContextManager[object] = field(default_factory=nullcontext)

    def settle(
        self,
        shown: Callable[[Reads, tags.Tag], V | None],
        is_damaged: Callable[[Reads, V], bool],
        make: Callable[[tags.Tag, Callable[[Names], V | None]], V],
    ) -> V | None:
        """Return what the tag shows by now, or make it; None if there is no such tag.

        What damage took some of is made anew; where that cannot be, it is shown as it is, for those who have the rest.

        Args:
            shown: what a tag shows already, whole or not.
            is_damaged: whether damage took some of that.
            make: makes that for a tag; within its change it asks, by the function it is given, whether the tag is as
                it was, and whether somebody else was faster.

        Raises:
            Missing: some blob of it was lost.
            Busy: the tag is pushed again and again.
        """

        def sound(reads: Reads, tag: tags.Tag) -> V | None:
            there = shown(reads, tag)
            return None if there is None or is_damaged(reads, there) else there

        try:
            return self._settle(sound, make)
        except (NoImage, NotShown, CasError):
            found = self.store.read(self._find)
            there = None if found is None else self.store.read(lambda reads: shown(reads, found))
            if there is None:
                raise
            return there

    def _settle(
        self, shown: Callable[[Reads, tags.Tag], V | None], make: Callable[[tags.Tag, Callable[[Names], V | None]], V]
    ) -> V | None:
        lost: Missing | None = None
        turn = self.store.turn(f"{self.repository}:{self.tag}", _WAIT_S)
        try:
            for _ in range(_TRIES):
                found = self.store.read(self._find)
                if found is None:
                    return None
                there = self.store.read(lambda reads, found=found: shown(reads, found))  # type: ignore[misc]
                if there is not None:
                    return there

                def again(names: Names, before: tags.Tag = found) -> V | None:
                    now = self._find(names)
                    if now is None or now.target != before.target:
                        raise Overtaken
                    return shown(names, now)

                try:
                    return make(found, again)
                except Overtaken:
                    lost = None
                except Missing as error:  # for good, or removed just now
                    lost = error
        finally:
            turn.end()
        raise lost or Busy(f"{self.repository}:{self.tag} is being pushed over and over; try again in a moment")

    def stage(self, body: bytes, made: ExitStack) -> Staged:
        """Store a small blob, until `made` ends or a change keeps it."""
        upload = made.enter_context(self.store.upload())
        upload.write(body)
        return upload.finish()

    def note(self, names: Names, target: tags.Image | tags.Manifest, view: tags.Image | tags.Manifest) -> None:
        """Remember with the tag what was made."""
        tags.show(names, self.repository, self.tag, target, view)

    def _find(self, reads: Reads) -> tags.Tag | None:
        return tags.find(reads, self.repository, self.tag)
