"""What an upload on its way has in the index, and who may go on with a resumable one.

Layer: L4. Nobody owns a session, so nobody's death has to be noticed: whoever first files the stretch that begins where
the row ends has gone on with it, and everybody else who began there is superseded, within the index transaction. So
requests on one session never interleave, and what was acknowledged never shrinks.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from cas.errors import Busy, Missing, Superseded
from cas.session import Session, UploadState

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from hashlib import _Hash

    from cas.digest import Digest
    from cas.index import Edit
    from cas.records import BlobEntry, Segment
    from cas.view import View

FOUND_DAMAGED = "bytes that were stored already were found damaged while this arrived; send it again"
_HASHES_KEPT = 1024  # a few hundred bytes each


@dataclass(frozen=True, slots=True)
class Progress:
    """How a resumable upload stands: bytes that are safe, and the digest of all of them where it is known."""

    size: int
    state: UploadState
    digest: Digest | None


@dataclass(frozen=True, slots=True)
class Claim:
    """An upload of one request: its segments are its process's, and go with it."""

    recipe: int
    owner: bytes

    def check(self, view: View, start: int) -> None:
        """Make sure that what was filed before `start` is still there; nobody else can have gone on with it.

        Raises:
            Busy: a part of it was stored before, and was found damaged meanwhile.
        """
        if start and not view.has_upload(self.recipe):
            raise Busy(FOUND_DAMAGED)

    def file(self, edit: Edit, segment: Segment, _digest: Digest | None, _now: int) -> None:
        """Enter, beside a segment, whose it is."""
        self.check(edit, segment.start)
        edit.put_upload(segment.recipe, self.owner)

    def keep(self, edit: Edit, start: int, blob: BlobEntry) -> None:
        """The recipe belongs to a blob now; twice is once."""
        if start and not edit.has_upload(self.recipe):
            kept = edit.sound_blob(blob.digest)
            if kept is None or kept.recipe != self.recipe:
                raise Busy(FOUND_DAMAGED)
        edit.delete_upload(self.recipe)

    def drop(self, edit: Edit) -> None:
        """Take what was filed of an upload that nobody kept out of the index; its owner's death would do it too."""
        if edit.has_upload(self.recipe):
            edit.delete_recipe(self.recipe)


@dataclass(frozen=True, slots=True)
class SessionClaim:
    """One request's part in a resumable upload, which it found as `session`."""

    number: int
    session: Session

    @property
    def recipe(self) -> int:
        """What the session's segments are filed under."""
        return self.session.recipe

    def check(self, view: View, start: int) -> None:
        """Make sure that the session still ends at `start`, or where this request found it if that is farther.

        Raises:
            Superseded: another request went on, finished or cancelled it.
        """
        row = view.session(self.number)
        end = max(start, self.session.end)
        if row is None and not end:
            return
        if row is None or (row.state, row.end, row.recipe) != (UploadState.OPEN, end, self.recipe):
            raise Superseded("another request went on with this upload; ask how far it is and go on from there")

    def file(self, edit: Edit, segment: Segment, digest: Digest | None, now: int) -> None:
        """Go on with the session by one segment."""
        self.check(edit, segment.start)
        end = segment.start + segment.raw
        edit.put_session(self.number, Session(UploadState.OPEN, end, now, self.recipe, segment.chain, digest))

    def file_inline(self, edit: Edit, data: bytes, digest: Digest | None, now: int) -> None:
        """Go on with a session of which all bytes fit into its row."""
        self.check(edit, 0)
        edit.put_session(self.number, Session(UploadState.OPEN, len(data), now, self.recipe, b"", digest, data))

    def tell(self, edit: Edit, end: int, digest: Digest, now: int) -> None:
        """Remember the digest of all `end` bytes."""
        self.check(edit, end)
        row = edit.session(self.number)
        assert row is not None
        edit.put_session(self.number, replace(row, digest=digest, touched=now))

    def keep(self, edit: Edit, start: int, blob: BlobEntry) -> None:
        """Finish the session, whose bytes beyond `start` were not filed yet; twice is once if there are none."""
        done = Session(UploadState.DONE, blob.size, blob.created, self.recipe, digest=blob.digest)
        row = edit.session(self.number)
        again = row is not None and replace(row, touched=done.touched) == done
        if not again or (start < blob.size and blob.inline is None):
            self.check(edit, start)
        edit.put_session(self.number, done)


def find(view: View, number: int, recipe: int) -> SessionClaim:
    """Return a claim on a session as it stands now; one that is new files its segments under `recipe`.

    Raises:
        Missing: it was finished or cancelled.
    """
    row = view.session(number)
    if row is None:
        return SessionClaim(number, Session(UploadState.OPEN, 0, 0, recipe))
    if row.state is not UploadState.OPEN:
        raise Missing(
            f"this upload was {'finished' if row.state is UploadState.DONE else 'cancelled'}; begin a new one"
        )
    return SessionClaim(number, row)


def progress(view: View, number: int) -> Progress | None:
    """Return how a session stands, or None if nothing of it was ever filed."""
    row = view.session(number)
    return None if row is None else Progress(row.end, row.state, row.digest)


def end_on(edit: Edit, chunks: Collection[bytes], now: int) -> None:
    """End every upload under way that has filed one of these chunks, given by their ids: nothing whole comes of it."""
    resumable = {row.recipe: number for number, row in edit.sessions() if row.state is UploadState.OPEN}
    unfinished = (*resumable, *(recipe for recipe, _ in edit.uploads()))
    wanted = frozenset(chunks)
    for recipe in [at for at in unfinished if any(wanted.intersection(some) for _, some, _ in edit.chunk_lists(at))]:
        if recipe in resumable:
            cancel(edit, resumable[recipe], now)
        else:
            edit.delete_recipe(recipe)


def cancel(edit: Edit, number: int, now: int) -> bool:
    """Forget a session's bytes and let nobody go on with it; say whether it could still be cancelled."""
    row = edit.session(number)
    if row is not None and row.state is not UploadState.OPEN:
        return False
    if row is not None:
        edit.delete_recipe(row.recipe)
    edit.put_session(number, Session(UploadState.CANCELLED, 0, now))
    return True


@dataclass(frozen=True, slots=True)
class Unfinished:
    """Resumable uploads that may still go on.

    Attributes:
        count: of them.
        bytes: that they hold, as they came.
        touched: when something was last filed of any, in Unix seconds.
    """

    count: int = 0
    bytes: int = 0
    touched: int = 0


def unfinished(view: View) -> Unfinished:
    """Count what may still go on."""
    rows = [row for _, row in view.sessions() if row.state is UploadState.OPEN]
    return Unfinished(len(rows), sum(row.end for row in rows), max((row.touched for row in rows), default=0))


def is_stale(row: Session, open_before: float, over_before: float) -> bool:
    """Whether nobody can want a session any more."""
    return row.touched < (open_before if row.state is UploadState.OPEN else over_before)


def expire(edit: Edit, numbers: Sequence[int], open_before: float, over_before: float) -> int:
    """Forget those of these sessions that are still stale; return how many."""
    count = 0
    for number in numbers:
        row = edit.session(number)
        if row is not None and is_stale(row, open_before, over_before):
            if row.state is UploadState.OPEN:
                edit.delete_recipe(row.recipe)  # a finished one's belongs to a blob
            edit.delete_session(number)
            count += 1
    return count


@dataclass(slots=True)
class Running:
    """A hash under way: it has seen the first `at` bytes."""

    algorithm: str
    state: _Hash
    at: int = 0


@dataclass(slots=True)
class RunningHashes:
    """Hashes of sessions between their requests, in one process; the oldest are forgotten.

    Known by the recipe: a session's number may come back for other bytes.
    """

    _kept: OrderedDict[int, Running] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, recipe: int, running: Running) -> None:
        """Keep a hash for the session's next request."""
        with self._lock:
            self._kept[recipe] = running
            self._kept.move_to_end(recipe)
            while len(self._kept) > _HASHES_KEPT:
                self._kept.popitem(last=False)

    def take(self, recipe: int, algorithm: str, end: int) -> Running | None:
        """Return the hash of a session's first bytes, if there is one of no more than `end` of them."""
        with self._lock:
            running = self._kept.get(recipe)
        if running is None or running.algorithm != algorithm or running.at > end:
            return None
        return replace(running, state=running.state.copy())
