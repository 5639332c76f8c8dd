"""The scrub: stored bytes are read through again and again, slowly, and what rotted is set aside.

Layer: L11. One process of all does it, by a lock of the kernel. Nobody waits for it: the maintenance lock is taken only
for a second look at what looked wrong, and to set that aside; and it waits for everybody, since those who pull notice
two at work more than twice as much as one. When a pack was last read through stands in the index, so a scrub that is
ended anywhere goes on where it was.
"""

from __future__ import annotations

import os
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cas.audit import Audit
from cas.check import index
from cas.errors import Busy, CasError, InUse
from cas.finding import Depth, Finding, Scope
from cas.lease import OthersAtWork, maintenance_lock
from cas.locks import try_lock
from cas.recover import lost_blobs
from cas.repair import mend
from cas.stats import last_read
from cas.tables import DOUBTED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cas.digest import Digest
    from cas.layout import Layout
    from cas.parts import Parts
    from cas.tables import PackRow

_BATCH_BYTES: Final = 16 << 30  # read between two walks over all rows of chunks
_HEED_BYTES: Final = 256 << 20  # read between two looks whether something became more urgent
_LOOK_S: Final = 0.5  # between two looks whether others are done
_SAID_S: Final = 86400.0  # what is damaged and not to be mended is read, and said, again after that
_PATIENCE_S: Final = 3600.0  # whoever is at work for longer was stopped, or reads as slowly as we do


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """What was found in some packs, and what became of it.

    Attributes:
        found: everything that was not as promised.
        lost: blobs that are answered as missing from now on, until their bytes are pushed again.
        left: why not everything was mended that was to be; it is tried again.
        aside: damaged packs whose files are in quarantine/ now.
        kept: those whose files are where they were, because something kept them from being set aside.
    """

    found: tuple[Finding, ...]
    lost: tuple[Digest, ...] = ()
    left: str = ""
    aside: tuple[int, ...] = ()
    kept: tuple[int, ...] = ()


def scrub(
    parts: Parts,
    before: float,
    *,
    mends: bool,
    told: Callable[[int], object],
    wait_s: float,
    heal: Callable[[], list[Digest]],
) -> Iterator[Scrubbed]:
    """Read the packs through that are due; see `Store.scrub`."""
    with _alone(parts.layout), closing(OthersAtWork(parts.layout)) as others:
        behind = _Behind(others)
        behind.wait()
        if wrong := tuple(index(parts)):
            yield Scrubbed(wrong)
            return
        work = _Work(parts, before, mends=mends)
        while batch := work.next():
            audit = Audit(parts, Scope(Depth.DATA, told=work.heeding(behind.after(told))), batch)
            try:
                if list(audit.findings()):
                    yield from _dealt_with(parts, audit, wait_s, heal if mends else None)
            except _MoreUrgent:  # what was found wanting so far has no mark, and is found again
                continue
            except (InUse, Busy) as error:
                yield Scrubbed((), left=str(error))
            else:
                audit.note()
            work.done()


class _MoreUrgent(Exception):
    """Somebody who read saw damage, which is more urgent than what is being read."""


class _Work:
    """Which packs to read, looked up anew before each batch: those doubted first, and by themselves."""

    def __init__(self, parts: Parts, before: float, *, mends: bool) -> None:
        self._parts, self._before, self._mends = parts, before, mends
        self._batch: dict[int, float] = {}  # pack → when it was last read
        self._done: dict[int, float] = {}  # those that keep their mark, whatever it is that keeps them from a new one

    def next(self) -> set[int]:
        """Return the next batch; an empty one when all is done."""
        self._batch, size = {}, 0
        for when, row in self._left(self._before):
            if size >= _BATCH_BYTES or (when and not all(self._batch.values())):
                break
            self._batch[row.pack] = when
            size += row.committed
        return set(self._batch)

    def done(self) -> None:
        """The batch was dealt with, or cannot be now."""
        self._done |= self._batch

    def heeding(self, told: Callable[[int], object]) -> Callable[[int], None]:
        """Return what tells, and now and then looks whether something became more urgent than this batch."""
        unseen = 0

        def tell(count: int) -> None:
            nonlocal unseen
            told(count)
            unseen += count
            if unseen >= _HEED_BYTES and all(self._batch.values()):
                unseen = 0
                if self._left(DOUBTED + 1):
                    raise _MoreUrgent

        return tell

    def _left(self, before: float) -> list[tuple[float, PackRow]]:
        found = due(self._parts, before, mends=self._mends)
        return [(when, row) for when, row in found if self._done.get(row.pack) != when]


class _Behind:
    """Waits while others are at work; how long at most is counted anew once they were seen to be done."""

    def __init__(self, others: OthersAtWork) -> None:
        self._others, self._left_s = others, _PATIENCE_S

    def wait(self) -> None:
        while self._others:
            if self._left_s <= 0:
                return
            time.sleep(_LOOK_S)
            self._left_s -= _LOOK_S
        self._left_s = _PATIENCE_S

    def after(self, told: Callable[[int], object]) -> Callable[[int], None]:
        """Return what tells, and then waits."""

        def tell(count: int) -> None:
            told(count)
            self.wait()

        return tell


def _dealt_with(
    parts: Parts, audit: Audit, wait_s: float, heal: Callable[[], list[Digest]] | None
) -> Iterator[Scrubbed]:
    """Look once more while nobody moves anything, and set aside what is damaged then."""
    with maintenance_lock(parts.layout, wait_s):
        found = tuple(Audit(parts, Scope(Depth.DATA), audit.suspects).findings())
        if not found:
            return
        if heal is None:
            yield Scrubbed(found)
            audit.leave({finding.pack for finding in found if finding.pack is not None})
            return
        before, files = set(lost_blobs(parts)), _files(parts, found)
        try:
            lost = mend(parts, found, heal)
        except CasError:  # known at least, with what came of it by then; who scrubs is told why no more was done
            yield _came_of(parts, found, tuple(sorted(set(lost_blobs(parts)) - before)), files)
            raise
        yield _came_of(parts, found, lost, files)


def _came_of(parts: Parts, found: tuple[Finding, ...], lost: tuple[Digest, ...], before: set[int]) -> Scrubbed:
    kept = before & _files(parts, found)
    return Scrubbed(found, lost, aside=tuple(sorted(before - kept)), kept=tuple(sorted(kept)))


def _files(parts: Parts, found: tuple[Finding, ...]) -> set[int]:
    """Return the damaged packs of which there is a file."""
    packs = {finding.pack for finding in found if finding.pack is not None}
    return {pack for pack in packs if os.path.lexists(parts.layout.pack(pack))}


def due(parts: Parts, before: float, *, mends: bool) -> list[tuple[float, PackRow]]:
    """Return the packs that were last read through, or else written, before a time, and when that was.

    Those of longest ago come first, and before these those that are doubted. So is what is known to be damaged, but
    where nothing is mended: there it is once a day, or to read it would never end.
    """
    since, now = last_read(parts), parts.clock()
    if not mends:
        told = parts.index.read(lambda view: view.told())
        since |= {pack: when for pack, when in told.items() if pack in since and now - _SAID_S < when < now + _SAID_S}
    rows = parts.index.read(lambda view: {row.pack: row for row in view.packs()})
    wanted = sorted((when, pack) for pack, when in since.items() if when < before and pack in rows)
    return [(when, rows[pack]) for when, pack in wanted]


def is_under_way(layout: Layout) -> bool:
    """Whether some process is at it."""
    fd = try_lock(layout.scrub, create=True)
    if fd is not None:
        os.close(fd)
    return fd is None


@contextmanager
def _alone(layout: Layout) -> Iterator[None]:
    fd = try_lock(layout.scrub, create=True)
    if fd is None:
        raise InUse(f"another process is reading {layout.root} through; let it")
    try:
        yield
    finally:
        os.close(fd)
