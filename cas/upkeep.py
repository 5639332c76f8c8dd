"""The half of the facade that keeps a store in order: measuring, collecting, checking, mending and copying it.

Layer: L12. Verbs alone; each is a module of its own.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from cas.backup import backup
from cas.check import check, size
from cas.collect import CollectReport, collect
from cas.commit import JOURNAL_SEQ
from cas.compact import CompactReport, compact
from cas.diary import packs_reach
from cas.finding import Depth, Finding, Scope
from cas.lease import at_work, maintenance_lock
from cas.repair import RepairReport, repair
from cas.scrub import Scrubbed, due, is_under_way, scrub
from cas.stats import Stats, stats
from cas.usage import Usage, usage

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from pathlib import Path

    from cas.digest import Digest
    from cas.doomed import Doomed
    from cas.doubts import Doubts
    from cas.heal import Healing
    from cas.mirror import CopyReport
    from cas.names import Name
    from cas.parts import Parts
    from cas.reader import Reader


class Upkeep:
    """What whoever keeps a store asks of it; a `Store` is one."""

    _parts: Parts
    _healing: Healing
    _doubts: Doubts

    def stats(self) -> Stats:
        """Return what the store holds and what that takes on the disk."""
        return stats(self._parts)

    def usage(self, holders: Mapping[Digest, Collection[int]], count: int) -> Usage:
        """Measure whose bytes are whose; see `Usage`.

        Args:
            holders: for each blob, who holds it (see `Holder`); what is not in it is held by others.
            count: how many owners there are.
        """
        return usage(self._parts, holders, count)

    def compact(
        self,
        *,
        everything: bool = False,
        dry_run: bool = False,
        doomed: Doomed | None = None,
        wait_s: float = 10.0,
        alone: bool = False,
        progress: Callable[[str], None] = lambda _: None,
    ) -> CompactReport:
        """Give the space of what was collected back: packs in which much is dead are rewritten without it.

        Others go on pushing and reading meanwhile. Ended at any point, nothing is lost, and the next call goes on.

        Args:
            everything: rewrite also those in which little is dead, and seal what was left without a footer.
            dry_run: change nothing, and say exactly what would be done.
            doomed: what a dry run of `collect` would have taken before.
            wait_s: how long to wait for uploads and readers from before; if they go on, packs of data stay for now.
            alone: the caller is `maintaining` already.
            progress: told each step.

        Raises:
            InUse: another maintenance run is at it.
        """
        with self._alone(already=alone):
            return compact(
                self._parts, everything=everything, dry_run=dry_run, doomed=doomed, wait_s=wait_s, step=progress
            )

    def collect(
        self,
        *,
        dry_run: bool = False,
        without: Collection[Name] = (),
        wait_s: float = 60.0,
        alone: bool = False,
        progress: Callable[[], object] = bool,
    ) -> CollectReport:
        """Take away blobs that no name holds, and what only they needed; others go on pushing and pulling meanwhile.

        Args:
            dry_run: change nothing, and say what would go.
            without: names that a dry run takes for gone.
            wait_s: how long to wait for whoever may still rely on what is to go; then the next run takes it.
            alone: the caller is `maintaining` already.
            progress: called between steps; it may raise to stop, and the next run goes on.

        Raises:
            InUse: somebody else is at it.
        """
        gone = {name.key() for name in without}
        with self._alone(already=alone):
            return collect(self._parts, dry_run=dry_run, without=gone, wait_s=wait_s, progress=progress)

    @contextmanager
    def maintaining(self) -> Iterator[None]:
        """Be the only one, among all processes, who takes something away: names, and then their bytes.

        Raises:
            InUse: somebody else is at it; so are `repair`, `backup`, and `collect` and `compact` that are not told.
        """
        with self._alone():
            yield

    @contextmanager
    def _alone(self, *, already: bool = False, wait_s: float = 0.0) -> Iterator[None]:
        if already:
            yield
            return
        with at_work(self._parts.layout), maintenance_lock(self._parts.layout, wait_s):
            yield

    def check(self, scope: Depth | Scope = Depth.QUICK, *, wait_s: float = 600.0) -> Iterator[Finding]:
        """Yield what is not as promised; others go on pushing, deleting, pulling and collecting meanwhile.

        Nothing is changed but the notes of when each pack was last read through, and which are damaged: the next scrub
        deals with these.

        Args:
            scope: how much to read.
            wait_s: how long a collection or backup under way is waited for, once something looks wrong: what it
                moved may have been looked for where it was.

        Raises:
            InUse: it did not end in that time.
        """
        with at_work(self._parts.layout):
            yield from check(self._parts, _scope(scope), partial(maintenance_lock, self._parts.layout, wait_s))

    def check_size(self, scope: Depth | Scope) -> int:
        """Return how many bytes such a check reads, about."""
        return size(self._parts, _scope(scope))

    def heal(self) -> list[Digest]:
        """Bring back those lost blobs whose bytes are here by now, each proven by its digest; return which.

        After every push it happens by itself.

        Raises:
            NoSpace, DiskFailed, ReadOnly, Busy: nothing was lost by it; do it again.
        """
        return self._healing.run()

    def repair(
        self,
        scope: Depth | Scope = Depth.DATA,
        *,
        dry_run: bool = False,
        other: Callable[[Digest], Reader] | None = None,
        wait_s: float = 600.0,
    ) -> RepairReport:
        """Mend what a check finds: set damaged packs aside, and answer what was lost with them as missing.

        Args:
            scope: how much to look at.
            dry_run: change nothing, and say what would be done.
            other: `Store.reader` of another store, a backup say, from which lost blobs are brought back.
            wait_s: how long a collection, a backup or whoever else mends is waited for.

        Raises:
            InUse: it did not end in that time.
            NoSpace, DiskFailed, ReadOnly, Busy: nothing was lost by it; do it again.
        """
        with self._alone(wait_s=wait_s):
            return repair(self._parts, _scope(scope), self._healing.run, dry_run=dry_run, other=other)

    def scrub(
        self, before: float, *, mends: bool = True, told: Callable[[int], object] = bool, wait_s: float = 600.0
    ) -> Iterator[Scrubbed]:
        """Read through all packs that were not for long, one after the other; yield what is found, as it is.

        Those in which somebody who read saw damage are due at once and come first, also while it is under way.
        Everybody goes on meanwhile; while others check, collect, mend or copy, it waits, for an hour at most. Ended
        anywhere, the next one goes on.

        Args:
            before: packs that were last read through, or else written, before this time (Unix seconds).
            mends: set damaged packs aside, as `repair` does; else they stay doubted, and are told anew after a day.
            told: called with a number of bytes after they were read; it may wait, or raise to stop.
            wait_s: how long a collection or backup is waited for once something looks wrong.

        Raises:
            InUse: another process is at it.
            NoSpace, DiskFailed, ReadOnly: nothing was lost by it; do it again.
        """
        return scrub(self._parts, before, mends=mends, told=told, wait_s=wait_s, heal=self._healing.run)

    def is_scrub_due(self, before: float, *, mends: bool = True) -> bool:
        """Whether some pack was last read through, or else written, before a time, and no process is at it.

        So is one in which somebody who read saw damage, or that is missing, whenever that was; where nothing is mended,
        a day after that was said.
        """
        return bool(due(self._parts, before, mends=mends)) and not is_under_way(self._parts.layout)

    def check_ready(self) -> None:
        """See that a push of a run's length would be taken now, as far as that can be told without one.

        Raises:
            NoSpace, DiskFailed, ReadOnly, Closed: it would not. On a full disk something shorter still may.
        """
        self._parts.committer.check()
        self._parts.check_room(self._parts.settings.run_bytes)

    def free_bytes(self) -> tuple[int, int]:
        """Return how many bytes are free for packs, and for the index; these may be the same ones.

        Raises:
            DiskFailed: a folder of the store was moved away.
        """
        disk, layout = self._parts.disk, self._parts.layout
        return disk.free_bytes(layout.packs)[0], disk.free_bytes(layout.index)[0]

    def when_doubted(self, call: Callable[[], object]) -> None:
        """Have this called, on any thread, when a reader of this process saw damage, so that a scrub is due."""
        self._doubts.marked = call

    def is_backup(self) -> bool:
        """Whether this is a copy of a store that took no change of its own since; who only reads leaves it so."""
        change = self._parts.index.read(lambda view: view.number(JOURNAL_SEQ))
        return packs_reach(self._parts.layout, change) is not None

    def backup(self, folder: Path, progress: Callable[[int, int], None] = lambda _done, _total: None) -> CopyReport:
        """Make a copy of the store as of this moment, or bring one up to date; it can be opened, or restored.

        Others go on pushing and deleting meanwhile. Ended at any point, the folder holds a whole copy, the old or the
        new one, and the next call goes on.

        Args:
            folder: outside of the store; empty, new, or holding an earlier backup of this store.
            progress: told bytes done and bytes in all, from time to time.

        Raises:
            Occupied: the folder holds something else.
            InUse: a collection is under way here, or a process uses the folder.
            NoSpace, DiskFailed: an earlier copy there is as it was.
        """
        with at_work(self._parts.layout):
            return backup(self._parts, folder, progress)


def _scope(wanted: Depth | Scope) -> Scope:
    return wanted if isinstance(wanted, Scope) else Scope(wanted)
