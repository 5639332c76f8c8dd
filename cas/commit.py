"""The committer: turns waiting work into few durable commits, and keeps the journal of names.

Layer: L5. The order that keeps I1, I2 and I4: content is synced before it comes here; within one index transaction the
edits are applied, their journal record is appended and synced, then the transaction is committed (synced), then the
waiting callers are released.

The void rule. A crash between the sync of a journal record and the commit leaves a durable record of something
that never
happened. So a number is *reserved* in `locks/journal` before its record is written, numbers are never used twice, and
every record names the committed number before it: what lies in between never happened. Whoever finds a reserved number
beyond the committed one writes an empty record that steps over it (`settle`), before the index can be lost.

Who commits. One thread at a time, in all processes together: under a lock of the kernel. Whoever finds nobody at it
commits its own work itself; to hand that to another thread and be woken would cost more than the work. What comes
meanwhile waits for the committer's own thread, which does it as one group, with all that came while another process was
committing. Where an upload is at its last sync, and so about to come, a group waits for it, a moment at most: a commit
is three flushes of the disk, however many share it.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cas.disk import Cell
from cas.era import begin as begin_era
from cas.errors import Busy, CasError, Closed, DiskFailed, ReadOnly
from cas.records import Body, NameChanges, NameEdit, Role
from cas.tables import PackRow, PackState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cas.config import EngineSettings
    from cas.index import Edit, Index
    from cas.layout import Layout
    from cas.lease import Lease
    from cas.packs import PackPool, PackWriter
    from cas.records import BlobEntry

JOURNAL_SEQ = "journal_seq"  # the index's counter of committed changes
_GROUP_BYTES = 16 << 20  # a record of the journal is made in memory; what exceeds this waits for the next one
_GATHER_S = 0.002  # longest a group waits for who is about to come; a sync takes as long, or longer
_FAILURES_ALLOWED = 1  # disk failures before the store takes no more writes (I1)


@dataclass(slots=True)
class Draft:
    """What one job adds to the journal record of its group."""

    edits: list[NameEdit] = field(default_factory=list)
    blobs: list[BlobEntry] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes it will take, about."""
        names = sum(len(edit.record or b"") for edit in self.edits)
        return names + sum(len(blob.inline or b"") for blob in self.blobs)

    @property
    def grows(self) -> bool:
        """Whether there is more to keep than before; to move a name is not."""
        removed = sum(edit.record is None for edit in self.edits)
        return len(self.blobs) + len(self.edits) - removed > removed


class Job:
    """Work for the committer: `run(edit, draft)` inside the transaction, perhaps more than once."""

    def __init__(self, run: Callable[[Edit, Draft], Any]) -> None:
        self.future: Future[Any] = Future()
        self.draft = Draft()
        self._run = run
        self._result: Any = None
        self._error: Exception | None = None
        self._lock = threading.Lock()
        self._claimed = self._abandoned = False

    def attempt(self, edit: Edit) -> None:
        """Run within the group's transaction; a refusal undoes this job alone."""
        self.draft, self._error = Draft(), None
        if not self._claim():
            return
        try:
            self._result = edit.attempt(lambda inner: self._run(inner, self.draft))
        except Exception as error:  # noqa: BLE001 - whatever the edit raises is its caller's answer
            self.draft, self._error = Draft(), error

    def settle(self) -> None:
        """Release the caller with what the last attempt gave."""
        if self._error is not None:
            self.future.set_exception(self._error)
        else:
            self.future.set_result(self._result)

    def wait(self, timeout_s: float) -> Any:
        """Return the result once it is durable.

        Raises:
            Busy: nobody began within the limit, and now nobody will.
            Exception: what the edit raised, or why the commit failed.
        """
        try:
            return self.future.result(timeout_s)
        except TimeoutError:
            if self.future.done() or self._claimed_already():
                return self.future.result()
        raise Busy(f"another process has held the index for {timeout_s:g} s (is one stopped?); try again")

    def _claim(self) -> bool:
        with self._lock:
            self._claimed = not self._abandoned
            return self._claimed

    def _claimed_already(self) -> bool:
        with self._lock:
            self._abandoned = not self._claimed
            return self._claimed


class _NeedsJournal(BaseException):
    """The group has names to write and no journal pack is open yet; open one outside the transaction and run again."""


class Committer:
    """Queue, thread and journal of one process.

    What concerns the journal and the index is for the thread that is committing; `_wake` guards the rest.
    """

    def __init__(self, index: Index, layout: Layout, settings: EngineSettings, lease: Lease) -> None:
        self._index, self._layout, self._settings, self.lease = index, layout, settings, lease
        self._cell = Cell(layout.journal_cell)
        self._packs: PackPool | None = None
        self._journal: PackWriter | None = None
        self._waiting: deque[Job] = deque()
        self._mutex = threading.Lock()  # by itself: Python cannot be interrupted between its taking and its `with`
        self._wake = threading.Condition(self._mutex)
        self._committing: int | None = None  # the thread that is
        self._closing = self._is_broken = self._has_era = False
        self.steps_over = True  # numbers that were reserved and never counted: at once, not by the next change
        self._coming = set[int]()  # threads about to have work
        self._failures = 0
        self._thread = threading.Thread(target=self._loop, name="cas-committer", daemon=True)

    def start(self, packs: PackPool) -> None:
        """Begin to work; journal packs come from `packs`."""
        self._packs = packs
        self._thread.start()

    @property
    def read_only(self) -> bool:
        """Whether the disk failed too often to be written to again."""
        return self._failures > _FAILURES_ALLOWED

    def note_failure(self) -> None:
        """Count a failure of the disk."""
        self._failures += 1

    def submit(self, run: Callable[[Edit, Draft], Any]) -> Job:
        """Queue work; wait for it with `Job.wait`.

        Raises:
            ReadOnly, Closed: no work is taken any more.
            DiskFailed: nor is it while others cannot see this process, or see another store in this one's place.
        """
        job = Job(run)
        with self._mutex:
            self.check()
            self._queue(job)
        return job

    def run(self, run: Callable[[Edit, Draft], Any]) -> Any:
        """Do work durably and return its result; within a commit, as part of the index alone and at once.

        Raises:
            ReadOnly, Closed, DiskFailed: as for `submit`.
            Busy, Exception: as for `Job.wait`.
        """
        me = threading.get_ident()
        if self._committing == me:
            return self._index.write(lambda edit: run(edit, Draft()))
        job = Job(run)
        try:
            if self._begin_or_queue(job, me):
                self._work([job])
        finally:
            if self._committing == me:
                self._make_way()
        return job.wait(self._settings.write_wait_s)

    def _begin_or_queue(self, job: Job, me: int) -> bool:
        """Be the one who commits, if nobody is and nobody waits; else queue the job. Tell which."""
        with self._mutex:
            self.check()
            self._came(me)
            # Only without waiting: a thread that waits for the index cannot give up, the one that waits for a job can.
            if self._waiting or self._committing or self._coming or not self._cell.lock_now():
                self._queue(job)
                return False
            self._committing = me
            return True

    @contextlib.contextmanager
    def expecting(self) -> Iterator[None]:
        """Say that this thread is about to have work: in here, as soon as the disk has taken what it stands on."""
        me = threading.get_ident()
        with self._mutex:
            self._coming.add(me)
        try:
            yield
        finally:
            with self._mutex:
                self._came(me)

    def _came(self, me: int) -> None:
        """Wait no longer for a thread."""
        self._coming.discard(me)
        if self._waiting and self._committing is None:
            self._wake.notify()

    def check(self) -> None:
        """See that work is taken; raise as `submit` does."""
        if self.read_only:
            raise ReadOnly("the disk failed twice, so the store takes no more writes; check the disk, then restart")
        if self._closing:
            raise Closed("this store was closed; open it anew")
        self.lease.check()

    def _queue(self, job: Job) -> None:
        self._waiting.append(job)
        if self._committing is None:
            self._wake.notify()

    def _make_way(self) -> None:
        """Let others commit."""
        self._cell.unlock()
        with self._mutex:
            self._committing = None
            self._wake.notify()

    def reserve(self, seq: int) -> None:
        """Take notice of a journal number found in a dead process's pack, so that it is stepped over.

        Only within a transaction: outside, it could take back what another process reserves at the same moment.
        """
        if seq > self._cell.read():
            self._cell.write(seq)

    def unsettled(self) -> bool:
        """Whether a journal number was reserved that never became a commit, and is to be stepped over."""
        return self.steps_over and self._cell.read() > self._index.read(lambda view: view.number(JOURNAL_SEQ))

    def close(self) -> None:
        """Finish what waits, then stop and give the journal pack back."""
        with self._mutex:
            self._closing = True
            self._wake.notify()
        self._thread.join()
        self._cell.close()

    def _loop(self) -> None:
        is_over = False
        while not is_over:
            self._begin()
            self._cell.lock()
            jobs = self._take()
            if jobs:
                with contextlib.suppress(BaseException):  # everybody was told
                    self._work(jobs)
            elif not self._is_broken:
                self._drop_journal()  # from here its sealing can still be entered into the index
            is_over = self._is_broken or not jobs
            self._make_way()

    def _begin(self) -> None:
        """Wait for work, for whoever is committing and for who is about to come; be the one who commits."""
        with self._mutex:
            while self._committing or not (self._waiting or self._closing):
                self._wake.wait()
            group = self._coming.copy()
            self._wake.wait_for(lambda: self._closing or group.isdisjoint(self._coming), _GATHER_S)
            self._committing = threading.get_ident()

    def _take(self) -> list[Job]:
        """Take what waits by now; nothing if there will be no more work."""
        with self._mutex:
            count = min(len(self._waiting), self._settings.group_changes)
            return [self._waiting.popleft() for _ in range(count)]

    def _work(self, jobs: Sequence[Job]) -> None:
        """Commit, and tell everybody what came of it."""
        failures = self._failures
        try:
            self._commit(jobs)
        except CasError as error:
            if isinstance(error, DiskFailed) and self._failures == failures:
                self.note_failure()  # the index's disk failed: packs count their own failures
            self._fail(jobs, error)
        except Exception as error:  # noqa: BLE001 - a bug of ours must reach the waiting callers, not end the thread
            self._fail(jobs, DiskFailed(f"the commit failed unexpectedly ({error!r}); try again"))
        except BaseException as error:  # whoever commits is being ended, so nobody may go on waiting
            self._abandon(jobs, error)
            raise

    def _commit(self, jobs: Sequence[Job]) -> None:
        while True:
            try:
                done = self._index.write(lambda edit: self._transact(edit, jobs))
                break
            except _NeedsJournal:
                assert self._packs is not None
                journal, self._journal = self._journal, None
                if journal is not None:
                    journal.close()
                self._journal = self._packs.take(Role.JOURNAL)
        for job in jobs[:done]:
            job.settle()
        with self._mutex:
            self._waiting.extendleft(reversed(jobs[done:]))
        if self._journal is not None and self._journal.end >= self._settings.pack_bytes:
            self._drop_journal()

    def _transact(self, edit: Edit, jobs: Sequence[Job]) -> int:
        """Do as many of the jobs as one record holds, in order; return how many."""
        done, size = 0, 0
        while done < len(jobs) and size < _GROUP_BYTES:
            jobs[done].attempt(edit)
            size += jobs[done].draft.size
            done += 1
        jobs = jobs[:done]
        edits = tuple(change for job in jobs for change in job.draft.edits)
        blobs = [blob for job in jobs for blob in job.draft.blobs]
        committed = edit.number(JOURNAL_SEQ)
        reserved = max(self._cell.read(), committed)
        if edits or blobs or (self.steps_over and reserved > committed):
            begun = () if self._has_era else begin_era(edit, self._layout, self.lease.owner, reserved + 1)
            self._has_era = not begun  # once it is committed
            self._write_journal(edit, Body(blobs=blobs, names=NameChanges(reserved + 1, committed, begun + edits)))
        return done

    def _write_journal(self, edit: Edit, body: Body) -> None:
        row = None if self._journal is None else edit.pack(self._journal.pack)
        if self._journal is None or row is None or row.state is not PackState.OPEN:
            raise _NeedsJournal  # there is none, or maintenance closed it in our place
        assert body.names is not None
        self._cell.write(body.names.seq)
        end = self._journal.commit(body)
        self._journal.sync()
        edit.set_number(JOURNAL_SEQ, body.names.seq)
        edit.put_pack(PackRow(self._journal.pack, PackState.OPEN, Role.JOURNAL, self.lease.owner, end))

    def _fail(self, jobs: Sequence[Job], error: CasError) -> None:
        try:
            if self._journal is not None:
                self._journal.roll_back(self._journal.synced)
                if self._journal.poisoned:
                    self._drop_journal()
        finally:
            _tell(jobs, error)
        with contextlib.suppress(CasError):  # else the next group, or the next opener, steps over the lost number
            self._commit(())

    def _abandon(self, jobs: Sequence[Job], error: BaseException) -> None:
        with self._mutex:
            self._closing = self._is_broken = True
            left, self._waiting = (*jobs, *self._waiting), deque()
        _tell(left, error)

    def forget_unlinked(self) -> None:
        """Close the journal if it was removed after it had been closed in our place: only then is its space free."""
        journal = self._journal
        with contextlib.suppress(OSError):  # the thread may be closing it just now
            if journal is not None and journal.is_unlinked:
                self.run(lambda _edit, _draft: self._close_unlinked())

    def _close_unlinked(self) -> None:
        if self._journal is not None and self._journal.is_unlinked:
            self._journal.close()
            self._journal = None

    def _drop_journal(self) -> None:
        journal, self._journal = self._journal, None
        if journal is not None and self._packs is not None:
            self._packs.give_back(journal)


def _tell(jobs: Sequence[Job], error: BaseException) -> None:
    """Tell callers who do not know yet what came of their work that it failed."""
    for job in jobs:
        if not job.future.done():
            job.future.set_exception(error)
