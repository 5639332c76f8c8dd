"""The one door for bytes: an upload is hashed, cut, deduplicated and written while it arrives (I3, I5).

Layer: L8. One pass: memory per upload is the chunker's window and one run's tables. A resumable upload is suspended and
resumed, by any process; only the state of its hash cannot be stored, so what a process has not hashed itself is read
back when the digest is asked for, unless somebody who knew it left it in the session's row.
"""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Self, TypeVar

from cas.change import change
from cas.claims import Claim, Running, SessionClaim
from cas.digest import Digest
from cas.errors import CasError, Closed, Damaged, Mismatch
from cas.inflow import Inflow
from cas.records import BlobEntry
from cas.runs import Runs
from cas.staged import Collected, Staged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType

    from cas.change import Names
    from cas.commit import Draft
    from cas.hashing import Tap
    from cas.index import Edit
    from cas.parts import Parts
    from cas.pins import Pin
    from cas.turns import Turn

T = TypeVar("T")


class Upload:
    """One blob on its way in. Blocking; for one thread at a time. Leaving its `with` block unfinished discards it."""

    def __init__(
        self, parts: Parts, claim: Claim | SessionClaim, algorithm: str = "sha256", taps: Sequence[Tap] = ()
    ) -> None:
        """Not for callers: use `Store.upload` or `Store.resume`."""
        self._parts, self._claim = parts, claim
        self._over = False
        running = Running(algorithm, hashlib.new(algorithm))
        if not isinstance(claim, SessionClaim):
            self._runs = Runs(parts, claim)
            self._inflow = Inflow(parts, self._runs, running, taps)
            return
        session = claim.session
        if session.inline:
            self._runs = Runs(parts, claim)
        else:
            self._runs = Runs(parts, claim, session.end, session.chain)
            running = parts.hashes.take(claim.recipe, algorithm, session.end) or running
        self._inflow = Inflow(parts, self._runs, running, taps, session.end)
        if session.inline:
            self._inflow.take([session.inline])

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Discard what is unfinished, and what is finished too if an error leads out of the block."""
        if error is not None or not self._over:
            self.discard()

    @property
    def size(self) -> int:
        """Bytes taken so far; of an upload that was resumed, those of earlier requests included."""
        return self._inflow.size

    def announce(self, size: int) -> None:
        """Say that so many bytes are to come; of a large blob none are put into the page cache then."""
        self._runs.is_large = self.size + size > 2 * self._parts.settings.direct_bytes

    def write(self, *data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes, in one piece or several; about a MiB a call is best.

        Raises:
            NoSpace, DiskFailed, ReadOnly: the upload is discarded; nothing of it is visible.
            Superseded: another request went on with this resumable upload; nothing of this one enters it.
            Closed: the upload was finished, suspended or discarded before.
        """
        with self._whole():
            self._inflow.take([bytes(piece) for piece in data])

    def draw(self, read: Callable[[memoryview], int], left: int, most: int) -> int:
        """Take the next bytes from `read`, which puts them where they are wanted; return how many.

        Args:
            read: fills memory from its front and tells how far, 0 where nothing is to be had.
            left: how many bytes the blob still has.
            most: how many of them to ask for at once; some MiB a call are best, and more than four are not taken.

        Raises:
            NoSpace, DiskFailed, ReadOnly, Busy, Superseded, Closed: as for `write`.
            Exception: what `read` raised; the upload is discarded.
        """
        with self._whole():
            return self._inflow.draw(read, left, most)

    def rest(self) -> None:
        """Hold no collection up; to be called from time to time while no bytes come. Quick if there is none.

        Raises:
            NoSpace, DiskFailed, ReadOnly, Busy, Superseded, Closed: as for `write`.
        """
        with self._whole():
            self._inflow.rest()

    def finish(self, expect: Digest | None = None) -> Staged:
        """Prove the digest and make the bytes durable; visible only once a change keeps the result.

        Args:
            expect: what the bytes must hash to. One of another algorithm than the upload was begun with is taken
                too, at the cost of reading all bytes once more; then this is what the blob is named by.

        Raises:
            Mismatch: the bytes do not hash to `expect`; the upload is discarded.
            Damaged: bytes of earlier requests cannot be read back; cancel the upload and begin a new one.
            NoSpace, DiskFailed, ReadOnly, Busy, Superseded, Closed: as for `write`.
        """
        with self._whole():
            self._inflow.end()
            staged = self._stage(self._prove(expect), may_rely=False)
        self._release()
        return staged

    def keep(self, expect: Digest | None, edit: Callable[[Names, Staged], T]) -> T:
        """Finish, and keep the blob in one change with whatever `edit` does; return what it returned (I1).

        Of several uploads of the same content at the same time one goes first; the others wait for it, compare
        themselves with what it stored, and leave no second copy.

        Raises:
            Mismatch, Damaged: as for `finish`.
            NoSpace, DiskFailed, ReadOnly, Busy, Superseded, Closed: as for `write`.
            Exception: what `edit` raised to refuse; the upload is discarded.
        """
        self._check_open()
        turn: Turn | None = None
        staged: Staged | None = None
        try:
            self._inflow.end()
            digest = self._prove(expect)
            self._runs.settle()  # which commits: nobody is to wait for us meanwhile
            turn = self._runs.turn(digest)
            with self._parts.committer.expecting():
                staged = self._stage(digest, may_rely=True)
                self._release()
                if not staged.wrote:
                    turn.end()
                try:
                    return self._change(staged, edit)
                except Collected:
                    staged = self._record(staged.blob, staged.pin, wrote=False)
                    self._release()
                    return self._change(staged, edit)
        except BaseException:
            if staged is not None:
                staged.release()  # what was raised holds on to it, and a collection or repair would wait for that
            self.discard()
            raise
        finally:
            if turn is not None:
                turn.end()

    def _change(self, staged: Staged, edit: Callable[[Names, Staged], T]) -> T:
        def run(names: Names) -> T:
            names.keep(staged)
            return edit(names, staged)

        return change(self._parts, run)

    def suspend(self) -> int:
        """Make all bytes so far durable, end this object and return their number; `Store.resume` goes on from there.

        Only for what `Store.resume` gave.

        Raises:
            NoSpace, DiskFailed, ReadOnly, Busy, Superseded, Closed: as for `write`; what was safe before still is.
        """
        assert isinstance(self._claim, SessionClaim), "an upload of one request cannot be suspended"
        with self._whole():
            self._inflow.settle()
            if self.size > self._inflow.safe:
                self._park(self._claim)
        self._parts.hashes.put(self._claim.recipe, self._inflow.running)
        self._release()
        return self.size

    def discard(self) -> None:
        """Drop everything; give the space of unfiled bytes back. What a change kept meanwhile stays.

        Of a resumable upload what was filed stays too, and waits for the next request.
        """
        if not self._over:
            self._over = True
            self._inflow.abandon()
            self._runs.abandon()
            self._release()
            self._save_hash()
        if self._runs.filed and isinstance(self._claim, Claim):
            self._runs.filed = False
            with contextlib.suppress(CasError):
                drop = self._claim.drop
                self._parts.committer.submit(lambda edit, _: drop(edit))

    def _save_hash(self) -> None:
        claim = self._claim
        if isinstance(claim, SessionClaim) and self._inflow.running.at <= self._inflow.safe:
            self._parts.hashes.put(claim.recipe, self._inflow.running)

    def _check_open(self) -> None:
        if self._over:
            raise Closed("this upload is over; begin a new one")

    @contextlib.contextmanager
    def _whole(self) -> Iterator[None]:
        """Take all or nothing: who went on with half would have a wrong recipe proven by a right hash."""
        self._check_open()
        try:
            yield
        except BaseException:
            self.discard()
            raise

    def _prove(self, expect: Digest | None) -> Digest:
        """Return the digest of all bytes.

        Raises:
            Mismatch: it is not the one expected.
        """
        digest = self._digest(expect)
        if expect is not None and expect != digest:
            raise Mismatch(f"the bytes hash to {digest}, not to {expect}; send the right bytes or digest")
        return digest

    def _digest(self, expect: Digest | None) -> Digest:
        algorithm = self._inflow.running.algorithm if expect is None else expect.algorithm
        if isinstance(self._claim, SessionClaim) and self.size == self._claim.session.end:
            known = self._claim.session.digest
            if known is not None and known.algorithm == algorithm:
                return known
        if algorithm != self._inflow.running.algorithm:
            self._inflow.running = Running(algorithm, hashlib.new(algorithm))
        if self._inflow.running.at < self.size:
            self._catch_up(expect)
        return Digest(algorithm, self._inflow.running.state.digest())

    def _catch_up(self, expect: Digest | None) -> None:
        """Hash what this process did not hash when it came, or not with this algorithm."""
        running = self._inflow.running
        if self._inflow.is_small:
            running.state.update(self._inflow.few[running.at :])
        else:
            self._inflow.cut_rest()
            try:
                for data in self._runs.read(running.at, expect or Digest.of(b"")):
                    running.state.update(data)
            except Damaged:
                raise Damaged("what arrived of this upload cannot be read back; cancel it and begin anew") from None
        running.at = self.size

    def _stage(self, digest: Digest, *, may_rely: bool) -> Staged:
        """Make the bytes durable, or find that they are; who may rely on that can still do so when it proved wrong."""
        owner, claim, runs = self._parts.owner, self._claim, self._runs
        blob = BlobEntry(digest, self.size, int(self._parts.clock()))
        if self._inflow.is_small:
            return Staged(replace(blob, inline=bytes(self._inflow.few)), owner, claim)
        self._inflow.cut_rest()
        runs.settle()
        runs.look_again()
        blob = replace(blob, recipe=claim.recipe)
        old = self._parts.index.read(lambda view: view.sound_blob(digest))
        is_here = old is not None and not runs.has_new and runs.are_recipe_of(old)
        pin = runs.hand_over_pin()
        if is_here and may_rely:
            return Staged(blob, owner, claim, runs.start, relies=True, pin=pin)  # every byte is here, and proven
        # Else, if it is here, it stands on other chunks, which may be damaged; on ours it is whole (I9).
        return self._record(blob, pin, wrote=old is not None and not is_here)

    def _record(self, blob: BlobEntry, pin: Pin | None, *, wrote: bool) -> Staged:
        """Make the recipe durable that this upload brought."""
        runs, start = self._runs, self._runs.start
        filing = runs.last()
        blob = replace(blob, chain=runs.chain)
        return Staged(blob, self._parts.owner, self._claim, start, filing, runs.wrote or wrote, pin=pin)

    def _park(self, claim: SessionClaim) -> None:
        """File what the session does not have yet."""
        now, end = int(self._parts.clock()), self.size
        known = self._inflow.running.at == end
        digest = Digest(self._inflow.running.algorithm, self._inflow.running.state.digest()) if known else None
        if self._inflow.is_small:
            data = bytes(self._inflow.few)
            self._parts.check_room(len(data))
            self._parts.committer.run(lambda edit, _: claim.file_inline(edit, data, digest, now))
            return
        self._inflow.cut_rest()
        turn = self._runs.turn()
        try:
            self._runs.look_again()
            filing = self._runs.last()

            def file(edit: Edit, _draft: Draft) -> None:
                if filing is not None:
                    claim.file(edit, filing.segment, digest, now)
                    filing.put(edit, self._parts.owner)
                elif digest is not None:
                    claim.tell(edit, end, digest, now)

            self._parts.committer.run(file)
            if filing is not None:
                filing.release()
        finally:
            turn.end()

    def _release(self) -> None:
        self._over = True
        self._inflow.release()
        self._runs.release()


def begin(parts: Parts, algorithm: str, taps: Sequence[Tap]) -> Upload:
    """Begin an upload of one request."""
    recipe = int.from_bytes(parts.disk.random(8), "big") or 1
    return Upload(parts, Claim(recipe, parts.owner), algorithm, taps)
