"""Compaction: which packs are worth emptying, closing those that others have open, and what came of it.

Layer: L8, over `moving`, which knows how. Runs beside uploads and readers, one at a time, and is ended at any point
without loss: the next run goes on. A pack is emptied once nothing can be entered into the index any more that lies in
it unseen: it is closed, and whoever had it open before is done (`quiet`). A pack in which something is damaged is left
alone and doubted, since that is the business of the scrub and of fsck.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from cas.commit import JOURNAL_SEQ
from cas.doomed import Doomed
from cas.errors import CasError, NoSpace, Unreadable
from cas.moving import Living, living, move, remove, set_aside
from cas.packbytes import PackBytes
from cas.packs import lock_pack
from cas.pins import advance
from cas.records import Role
from cas.room import Room
from cas.scan import begin, each_record, pack_paths, read_records, torn
from cas.tables import LAST_BYTE, ChunkState, PackState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cas.commit import Draft
    from cas.index import Edit
    from cas.moving import Step
    from cas.parts import Parts
    from cas.tables import PackRow

_SLICE = 5_000  # rows read in one transaction: well below 100 ms
_REFRESHED = 500  # segments written in one transaction
_SMALL_SHARE = 8  # a pack of less than this part of a full one is small
_MANY_SMALL = 8  # small packs that are worth making one of


@dataclass(slots=True)
class PackFigures:
    """What became of the packs of one role. Sizes in bytes, of files.

    Attributes:
        moved_bytes: of packs newly written.
        freed_bytes: what the packs take less than before.
    """

    before: int = 0
    after: int = 0
    moved_bytes: int = 0
    freed_bytes: int = 0


@dataclass(slots=True)
class CompactReport:
    """What was done, or would be.

    Attributes:
        data, journal: of the packs of each role.
        left: packs left alone, each with the reason.
        aside_bytes: of files that the index does not know, which take in quarantine/ what they took before.
        owed_bytes: what was freed and others still had open at the end, at most; free once they let go of it.
    """

    data: PackFigures = field(default_factory=PackFigures)
    journal: PackFigures = field(default_factory=PackFigures)
    left: list[str] = field(default_factory=list)
    aside_bytes: int = 0
    owed_bytes: int = field(default=0, compare=False)  # others write to that disk, too

    def of(self, role: Role) -> PackFigures:
        """Return the figures of one role."""
        return self.data if role is Role.DATA else self.journal

    @property
    def moved_bytes(self) -> int:
        """Bytes newly written."""
        return self.data.moved_bytes + self.journal.moved_bytes

    @property
    def freed_bytes(self) -> int:
        """Bytes that all packs take less than before."""
        return self.data.freed_bytes + self.journal.freed_bytes


@dataclass(slots=True)
class _Counted:
    """What the index knows of a pack's chunks."""

    chunks: int = 0
    stored: int = 0
    bad: int = 0


@dataclass(frozen=True, slots=True)
class _Plan:
    """A pack as it stands, and what of it lives.

    Attributes:
        floor: of the journal's oldest pack, from where on other packs have records; see `move`.
    """

    row: PackRow
    size: int
    living: Living
    floor: int = 0

    @property
    def gain(self) -> int:
        """Bytes that rewriting it alone would free."""
        return self.size - self.living.pack_size


def compact(
    parts: Parts,
    *,
    everything: bool = False,
    dry_run: bool = False,
    doomed: Doomed | None = None,
    wait_s: float = 10.0,
    quiet: Callable[[Parts, float], bool] | None = None,
    step: Step = lambda _: None,
) -> CompactReport:
    """Empty the packs in which much is dead; see `Store.compact`. The caller holds the maintenance lock.

    Args:
        parts: the store.
        everything: also those in which only little is.
        dry_run: say what would be done.
        doomed: what a dry run takes for gone.
        wait_s: how long to wait for that.
        quiet: returns whether everybody who may have bytes unfiled in a pack that is closed by now is done.
        step: told what has just been done.

    Raises:
        NoSpace, DiskFailed, ReadOnly, Busy: it ended in between; whatever was done stays good.
    """
    return _Compaction(parts, everything, dry_run, doomed or Doomed(), step).run(
        lambda: (quiet or is_quiet)(parts, wait_s)
    )


def is_quiet(parts: Parts, wait_s: float) -> bool:
    """Wait until nobody relies on anything from before; say whether it came to that."""
    epoch = parts.committer.run(lambda edit, _: advance(edit))
    return parts.pins.quiet(epoch, wait_s)


class _Compaction:
    """One run."""

    def __init__(self, parts: Parts, everything: bool, dry_run: bool, doomed: Doomed, step: Step) -> None:  # noqa: FBT001
        self._parts, self._everything, self._dry, self._step = parts, everything, dry_run, step
        self._doomed = doomed
        self._top = 0  # the number of the newest change of names when this began
        self._stuck = False  # whether a pack could not be emptied or removed
        self._report = CompactReport()
        self._room = Room(parts)

    def run(self, quiet: Callable[[], bool]) -> CompactReport:
        files = [pack for pack, _ in pack_paths(self._parts.layout)]
        rows, self._top = self._parts.index.read(lambda view: (view.packs(), view.number(JOURNAL_SEQ)))
        for row in rows:
            self._report.of(row.role).before += 1
            self._report.of(row.role).after += 1
        self._set_aside(set(files) - {row.pack for row in rows})
        dying = [row for row in rows if row.state is PackState.DYING]
        chosen = self._choose([row for row in rows if row.state is not PackState.DYING])
        self._step("planned")
        chosen = chosen if self._dry else [plan for plan in chosen if close(self._parts, plan.row)]
        self._step("closed")
        if not self._dry and any(plan.row.role is Role.DATA for plan in chosen) and not quiet():
            self._report.left.append("all packs of data: an upload or a reader that began before goes on; run it again")
            chosen = [plan for plan in chosen if plan.row.role is Role.JOURNAL]
        moved = False
        for role in Role:
            self._empty([_Plan(row, self._size(row.pack), Living()) for row in dying if row.role is role])
        for group in self._groups(chosen):
            moved |= self._empty(group)
        if moved and not self._dry:
            self._refresh_hints()
        self._report.owed_bytes = min(self._room.owed, max(0, self._report.freed_bytes))
        return self._report

    def _set_aside(self, strays: set[int]) -> None:
        """Keep files that the index does not know where they are in nobody's way: a row comes before its file."""
        for pack in sorted(strays):
            self._report.left.append(f"pack {pack:016x} is not in the index; it is kept in quarantine/")
            self._report.aside_bytes += self._size(pack)
            if not self._dry:
                set_aside(self._parts, pack)

    def _choose(self, rows: Sequence[PackRow]) -> list[_Plan]:
        counted = _count(self._parts, self._doomed)
        self._step("counted")
        plans = []
        for row in rows:
            with _held(self._parts, row) as free:
                if free and self._may_gain(row, counted.get(row.pack, _Counted())):
                    plan = self._plan(row, counted.get(row.pack, _Counted()))
                    plans += [plan] if plan is not None else []
        plans = self._without_deletions(plans, sum(row.role is Role.JOURNAL for row in rows))
        chosen = [plan for plan in plans if self._is_worth(plan)]
        small = [plan for plan in plans if self._is_small(plan) and plan.row.state is not PackState.OPEN]
        for role in Role:
            some = [plan for plan in small if plan.row.role is role and plan.living.records]
            if len(some) >= (2 if self._everything else _MANY_SMALL):
                chosen += [plan for plan in some if plan not in chosen]
        return chosen

    def _may_gain(self, row: PackRow, counted: _Counted) -> bool:
        """Whether a look into the pack is worth while."""
        size = self._size(row.pack)
        share = self._parts.settings.compact_share
        small = row.state is not PackState.OPEN and size <= self._small
        return self._everything or row.role is Role.JOURNAL or small or size - counted.stored >= share * size

    def _plan(self, row: PackRow, counted: _Counted) -> _Plan | None:
        try:
            with PackBytes(self._parts.layout.pack(row.pack)) as data:
                return self._look(row, counted, data)
        except FileNotFoundError:  # whoever made it died on the way
            if row.state is PackState.OPEN:
                return None
            if counted.chunks or row.committed:
                return self._leave(row, "its file is missing or empty; run cas fsck")
            return _Plan(row, self._size(row.pack), Living())
        except Unreadable as error:
            return self._leave(row, str(error), is_damaged=False)

    def _look(self, row: PackRow, counted: _Counted, data: PackBytes) -> _Plan | None:
        """Go through the records of a pack one by one: half a gigabyte of names is more than fits into memory."""
        scan = begin(row.pack, data)
        is_torn = torn(scan, read_records(scan, data, proves=False, names=False), row.committed)
        found = living(self._parts, row.pack, read_records(scan, data), self._doomed)
        is_headless = scan.header is None and (counted.chunks or row.committed)
        if counted.bad or scan.complaints or is_headless or is_torn:
            return self._leave(row, "it is damaged; run cas fsck")
        if found.chunks < counted.chunks:
            still = _count(self._parts, self._doomed, only=row.pack).get(row.pack, _Counted())
            if living(self._parts, row.pack, read_records(scan, data), self._doomed).chunks < still.chunks:
                return self._leave(row, "chunks of it are in none of its records; run cas fsck")
        return _Plan(row, len(data), found)

    def _without_deletions(self, plans: list[_Plan], journals: int) -> list[_Plan]:
        """Leave out of the journal's oldest pack those deletions that delete nothing any more."""
        ordered = sorted((plan for plan in plans if plan.row.role is Role.JOURNAL), key=lambda plan: plan.living.first)
        if len(ordered) < journals or not ordered:
            return plans  # what lies in a pack that was left alone is not known
        if ordered[0].living.first == LAST_BYTE:
            return plans  # none has any
        oldest, floor = ordered[0], min([self._top + 1, *(plan.living.first for plan in ordered[1:])])
        pack = oldest.row.pack
        records = each_record(pack, self._parts.layout.pack(pack))
        found = living(self._parts, pack, records, self._doomed, floor)
        if found.size == oldest.living.size:
            return plans
        return [replace(oldest, living=found, floor=floor) if plan is oldest else plan for plan in plans]

    def _leave(self, row: PackRow, why: str, *, is_damaged: bool = True) -> _Plan | None:
        self._report.left.append(f"pack {row.pack:016x}: {why}")
        if is_damaged and not self._dry:
            self._parts.files.doubt([row.pack])
        return None

    @property
    def _small(self) -> int:
        return self._parts.settings.pack_bytes // _SMALL_SHARE

    def _is_small(self, plan: _Plan) -> bool:
        return plan.living.pack_size <= self._small

    def _is_worth(self, plan: _Plan) -> bool:
        if plan.row.state is not PackState.OPEN and (
            not plan.living.records or (self._everything and plan.row.state is PackState.CLOSED)
        ):
            return True
        return plan.gain > 0 if self._everything else plan.gain >= self._parts.settings.compact_share * plan.size

    def _size(self, pack: int) -> int:
        try:
            return self._parts.layout.pack(pack).stat().st_size
        except FileNotFoundError:
            return 0

    def _groups(self, plans: Sequence[_Plan]) -> Iterator[list[_Plan]]:
        """Yield what goes together into one new pack: the packs that are wholly dead first, since they cost nothing."""
        for role in Role:
            dead = [plan for plan in plans if not plan.living.records and plan.row.role is role]
            if dead:
                yield dead
        for role in Role:
            group: list[_Plan] = []
            size = 0
            yield from ([plan] for plan in plans if plan.living.records and plan.row.role is role and plan.floor)
            some = [plan for plan in plans if plan.living.records and plan.row.role is role and not plan.floor]
            for plan in sorted(some, key=lambda plan: plan.living.size):
                most, wanted = self._parts.settings.pack_bytes, size + plan.living.size
                if group and (wanted > most or wanted > self._room.of(wanted)):
                    yield group
                    group, size = [], 0
                group.append(plan)
                size += plan.living.size
            if group:
                yield group

    def _empty(self, group: Sequence[_Plan]) -> bool:
        """Empty these packs into a new one; say whether anything moved."""
        if not group or (self._stuck and group[0].floor):
            return False  # deletions are needed as long as what they deleted may be told by a pack that stayed
        new = sum((plan.living for plan in group), Living()).pack_size
        rows = [plan.row for plan in group]
        old, free = sum(self._size(row.pack) for row in rows), self._room.free
        try:
            if self._dry:
                pass
            elif new > self._room.of(new):
                raise NoSpace(f"what is needed of it takes {new:,} bytes elsewhere first, and {self._room}")
            elif new:
                new = move(self._parts, rows, self._step, group[0].floor)
            else:
                remove(self._parts, rows, self._step)
        except CasError as error:
            self._report.left += [f"pack {row.pack:016x}: {error}" for row in rows]
            self._stuck = True
            return False
        if not self._dry:
            self._room.note(free, old - new)
        figures = self._report.of(rows[0].role)
        figures.after += bool(new) - len(rows)
        figures.moved_bytes += new
        figures.freed_bytes += old - new
        return bool(new)

    def _refresh_hints(self) -> None:
        """Tell every segment where its chunks lie now; a reader who came first asked for each chunk."""
        packs = {row.pack for row in self._parts.index.read(lambda view: view.packs())}
        after, stale = b"", []
        while slice_ := self._parts.index.read(lambda view, after=after: view.hints(after, _SLICE)):  # type: ignore[misc]
            after = slice_[-1][0]
            stale = [key for key, places in slice_ if not places <= packs]
            for first in range(0, len(stale), _REFRESHED):
                self._parts.committer.run(partial(_refresh, keys=stale[first : first + _REFRESHED]))
        self._step("refreshed")


def close(parts: Parts, row: PackRow) -> bool:
    """See to it that nobody appends to a pack any more; False if somebody is about it."""
    if row.state is not PackState.OPEN:
        return True

    def work(edit: Edit, _draft: Draft) -> None:
        known = edit.pack(row.pack)
        if known is not None and known.state is PackState.OPEN:
            edit.put_pack(replace(known, state=PackState.CLOSED))

    with _held(parts, row) as free:
        if free:
            parts.committer.run(work)
        return free


@contextlib.contextmanager
def _held(parts: Parts, row: PackRow) -> Iterator[bool]:
    """Keep a data pack that somebody has open from being lent meanwhile; say whether it is free."""
    if row.state is not PackState.OPEN or row.role is Role.JOURNAL:
        yield True
        return
    fd = lock_pack(parts.layout, row.pack)
    try:
        yield fd is not None
    finally:
        if fd is not None:
            os.close(fd)


def _refresh(edit: Edit, _draft: Draft, keys: Sequence[bytes]) -> None:
    for key in keys:
        edit.refresh_hints(key)


def _count(parts: Parts, doomed: Doomed, only: int | None = None) -> dict[int, _Counted]:
    """Return what the index knows of each pack's chunks, or of one pack's, but for what is doomed."""
    counted: dict[int, _Counted] = {}
    after = b""
    while rows := parts.index.read(lambda view, after=after: view.stored_chunks(after, _SLICE)):  # type: ignore[misc]
        after = rows[-1][0]
        for chunk, row in rows:
            if only in (None, row.extent.pack) and not doomed.has(chunk):
                known = counted.setdefault(row.extent.pack, _Counted())
                known.chunks += 1
                known.stored += row.extent.stored
                known.bad += row.state is ChunkState.BAD
    return counted
