"""Packs in which somebody who read saw damage: marked, so that the scrub reads them before all others.

Layer: L6. A mark and no more: the scrub finds out whether it is rot, and deals with it. Nobody waits for the mark, and
however many read what is damaged, each process marks a pack once, until the scrub has dealt with it.
"""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING

from cas.errors import Busy, CasError, NoSpace
from cas.tables import DOUBTED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Future

    from cas.commit import Committer, Draft
    from cas.index import Edit, Index
    from cas.view import View


class Doubts:
    """What this process saw of damage in packs."""

    def __init__(self, committer: Committer, index: Index) -> None:
        self._committer, self._index = committer, index
        self._known: set[int] = set()
        self._noted: set[int] = set()  # of those known, what was marked
        self._owed: set[int] = set()  # of those known, what could not be marked
        self._lock = threading.Lock()
        self.marked: Callable[[], object] = bool  # called when some were

    def note(self, packs: Iterable[int]) -> None:
        """Let packs be marked that are not yet, soon; returns at once and never raises."""
        with self._lock:
            new = frozenset(packs) - self._known
            self._known |= new
        self._mark(new)

    def catch_up(self) -> None:
        """Try again where the disk was full, or somebody held the index, and notice where the scrub was."""
        with self._lock:
            owed, self._owed = frozenset(self._owed), set()
            if self._noted:
                self._noted -= (over := self._noted - self._index.read(_doubted))
                self._known -= over  # what was acquitted may rot one day
        self._mark(owed)

    def _mark(self, packs: frozenset[int]) -> None:
        if packs:
            try:
                job = self._committer.submit(partial(mark, packs=packs))
            except CasError:  # nothing is written any more; whoever reads is told what to do
                return
            job.future.add_done_callback(partial(self._over, packs))

    def _over(self, packs: frozenset[int], written: Future[object]) -> None:
        error = written.exception()
        if error is None:
            with self._lock:
                self._noted |= packs
            self.marked()
        elif isinstance(error, Busy | NoSpace):  # a disk that failed is not asked again for so little
            with self._lock:
                self._owed |= packs


def _doubted(view: View) -> set[int]:
    return {pack for pack, when in view.checked().items() if when == DOUBTED}


def mark(edit: Edit, _draft: Draft | None, packs: Iterable[int]) -> None:
    """Let the scrub read these packs before all others."""
    for pack in packs:
        edit.put_checked(pack, DOUBTED)
