"""Keeping a whole registry in order: the garbage among names of every protocol, then what is left of their bytes.

The composition of the rules; decides nothing about any name. Blocking; no HTTP, no schedule: `tools` calls it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Final

from api.access import stale
from api.bridge import garbage as bridge
from api.content import collect, removal, trash
from api.content.collect import Rule, Swept, Terms
from api.content.settings import KeepingSettings
from api.content.trash import Undoable
from api.content.values import content, record
from api.v1 import garbage as v1
from api.v2 import garbage as v2
from cas import CollectReport, CompactReport, Name, Store, Unfinished

# In this order: what can no longer come back needs nothing any more.
RULES: Final[tuple[Rule, ...]] = (trash.RULE, v2.RULE, v1.RULE, bridge.RULE, stale.RULE)
_FOREVER: Final = float("inf")
_LAST: Final = Name("gc.last", "run")


@dataclass(frozen=True, slots=True)
class Collection:
    """What became of the names, of the bytes that they held, and of the packs these lay in.

    Attributes:
        ended: uploads that were ended because nobody went on with them; in a dry run, those that would be.
        unfinished: uploads that keep their bytes, as somebody may go on with them.
        undoable: deletions that keep what they took, as they can be undone.
        given_back: bytes that all packs took before, less what they, and what was set aside of them, take after;
            pushes meanwhile, and that it was written down what was removed, count against it. In a dry run, what the
            packs of data would give back.
    """

    names: Swept
    bytes: CollectReport
    packs: CompactReport
    given_back: int
    ended: int
    unfinished: Unfinished
    undoable: Undoable

    @property
    def left(self) -> list[str]:
        """What was left for the next run, and why."""
        unfinished = [self.bytes.unfinished] if self.bytes.unfinished else []
        return [*self.names.left, *unfinished, *self.packs.left]


def terms(
    settings: KeepingSettings, clock: Callable[[], float], *, grace_s: float | None = None, untagged: bool = False
) -> Terms:
    """Say what is old enough, now that a collection begins; a grace of 0 also ends what could be brought back."""
    now = clock()

    def is_meanwhile(at: float) -> bool:
        return now < at <= clock()  # what is told from the future came before a clock was put back

    if grace_s == 0:
        return Terms(_FOREVER, _FOREVER, untagged, is_meanwhile=is_meanwhile)
    grace_s = settings.gc_grace_s if grace_s is None else grace_s
    return Terms(now - grace_s, now - settings.undelete_s, untagged, is_meanwhile=is_meanwhile)


def sweep(store: Store, wanted: Terms, *, dry_run: bool = False, progress: Callable[[], object] = bool) -> Swept:
    """Remove the names that no longer matter, or say which those are."""
    if not dry_run:
        removal.finish_all(store)
    return collect.sweep(store, RULES, wanted, dry_run=dry_run, progress=progress)


def run(
    store: Store,
    wanted: Terms,
    *,
    uploads_before: float = 0,
    dry_run: bool = False,
    progress: Callable[[], object] = bool,
) -> Collection:
    """Collect everything that nothing needs; `progress` is called between steps and may raise to stop.

    Args:
        store: where.
        wanted: what is old enough.
        uploads_before: end unfinished uploads that were last written to before this time, in Unix seconds.
        dry_run: change nothing; say what would go.
        progress: called between steps.

    Raises:
        InUse: somebody else is at it.
    """
    before, everything = store.stats().pack_bytes, wanted.unused_before == _FOREVER

    def told(_step: str) -> None:
        progress()

    # All of it alone: two at once would take each other's marks for pushes, and each other's work from their reports.
    alone = not dry_run
    with store.maintaining() if alone else nullcontext():
        ended = store.expire_uploads(uploads_before, 0, dry_run=dry_run) if uploads_before else 0
        swept = sweep(store, wanted, dry_run=dry_run, progress=progress)
        freed = store.collect(dry_run=dry_run, without=frozenset(swept.without), alone=alone, progress=progress)
        packs = store.compact(everything=everything, dry_run=dry_run, doomed=freed.doomed, alone=alone, progress=told)
    given_back = packs.data.freed_bytes if dry_run else before - store.stats().pack_bytes - packs.aside_bytes
    return Collection(swept, freed, packs, given_back, ended, store.unfinished(), trash.undoable(store, wanted))


def untagged(store: Store, wanted: Terms) -> int:
    """Count the manifests that stay although they have no tag, since their removal was not asked for."""
    return 0 if wanted.untagged else v2.untagged(store, wanted)


def is_due(store: Store, settings: KeepingSettings, now: float) -> bool:
    """Tell whether the last collection of a schedule, in any process, ended long enough ago."""
    if settings.gc_interval_s == 0:
        return False
    at = last_run(store)
    return at is None or not 0 <= now - at < settings.gc_interval_s


def last_run(store: Store) -> int | None:
    """Tell when the last collection ended, in Unix seconds; None if there was none."""
    found = store.get(_LAST)
    return None if found is None else int(content(found)["at"])


def note_run(store: Store, now: float) -> None:
    """Remember that a collection ended just now."""
    store.change(lambda names: names.put(_LAST, record({"at": int(now)})), frees=True)
