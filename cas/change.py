"""Names as one read sees them, or one change: read, write, and the blobs it keeps. A change happens, durably, or not.

Layer: L7. A change runs inside the write transaction, on the committer's thread or on that of whoever asked for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from cas.errors import Damaged, Missing
from cas.held import find_places
from cas.names import Name, Record
from cas.records import NameEdit

if TYPE_CHECKING:
    from collections.abc import Callable

    from cas.commit import Draft
    from cas.digest import Digest
    from cas.held import Places
    from cas.index import Edit
    from cas.parts import Parts
    from cas.records import BlobEntry
    from cas.staged import Staged
    from cas.view import View

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Blob:
    """A stored blob: its digest, size in bytes, and when it came (Unix seconds)."""

    digest: Digest
    size: int
    created: int


class Reads:
    """Names and blobs as they stood at one moment. Lives inside the callback it was given to."""

    def __init__(self, view: View) -> None:
        """Not for callers: use `Store.read`."""
        self._view = view

    @property
    def moment(self) -> int:
        """Which moment that is: what is found here stays true for as long as `Store.moment` returns the same."""
        return self._view.moment

    def get(self, name: Name) -> Record | None:
        """Return what stands under a name, or None."""
        return self._view.record(name.key())

    def scan(
        self, kind: str, prefix: str = "", *, after: str = "", limit: int | None = None
    ) -> list[tuple[Name, Record]]:
        """Return up to `limit` names of a kind whose path begins with `prefix` and follows `after`, in byte order."""
        found = self._view.records(*_bounds(kind, prefix, after), limit)
        return [(Name.from_key(key), record) for key, record in found]

    def paths(self, kind: str, prefix: str = "", *, after: str = "", limit: int | None = None) -> list[str]:
        """Return the paths alone of what `scan` would return; no record is looked at."""
        return [Name.from_key(key).path for key in self._view.keys(*_bounds(kind, prefix, after), limit)]

    def last(self, kind: str, at_most: str) -> tuple[Name, Record] | None:
        """Return the last name of a kind whose path is `at_most` or comes before it, in byte order."""
        found = self._view.record_up_to(Name(kind, at_most).key(), within=Name(kind, "").key())
        return None if found is None else (Name.from_key(found[0]), found[1])

    def holders(self, kind: str, digest: Digest, limit: int) -> list[str]:
        """Return the paths of up to `limit` names of a kind that hold a blob, in byte order."""
        found = self._view.holders(digest, Name(kind, "").key(), limit)
        return [Name.from_key(key).path for key in found]

    def names_of(self, digest: Digest) -> list[Name]:
        """Return the names of every kind that hold a blob, in byte order."""
        return [Name.from_key(key) for key in self._view.holders(digest)]

    @property
    def has_lost(self) -> bool:
        """Whether there is any blob that was found damaged and not stored again since; such a one is not here."""
        return self._view.count("lost") > 0

    def stat(self, digest: Digest) -> Blob | None:
        """Return what is known of a blob, or None if it is not stored here."""
        entry = find_blob(self._view, digest)
        return None if entry is None else Blob(digest, entry.size, entry.created)

    def content(self, digest: Digest) -> bytes | Places | None:
        """Return what can be told of a blob's bytes in one look.

        That is the bytes themselves of one so small that they lie in the index, and for `Store.hold` the places of one
        that lies in few pieces as it is; None of any other, and of none at all.
        """
        entry = find_blob(self._view, digest)
        if entry is None or entry.inline is not None:
            return None if entry is None else entry.inline
        return find_places(self._view, entry)


class Names(Reads):
    """The names of a store within one change; sees its own edits."""

    def __init__(self, edit: Edit, draft: Draft) -> None:
        """Not for callers: use `Store.change`."""
        super().__init__(edit)
        self._edit, self._draft = edit, draft
        self.kept: list[Staged] = []

    def put(self, name: Name, record: Record) -> None:
        """Set a name.

        Raises:
            Missing: a blob it should hold is not stored, nor kept by this change.
            InvalidName: the name cannot be stored.
        """
        for digest in record.holds:
            if self._edit.blob(digest) is None:
                raise _missing(name, digest)
        self._put(name.key(), record.encode())

    def move(self, name: Name, to: Name, record: Record) -> None:
        """Remove a name and set another one in its stead, which goes on holding what this one held, lost or not.

        No other way leads to a name that holds what is not stored; here it is held already, or known to be lost (I9).

        Raises:
            Missing: a blob it should hold was not held by the one removed, and is neither stored nor lost.
            InvalidName: the name cannot be stored.
        """
        key, value = to.key(), record.encode()
        old = self.get(name)
        held = () if old is None else old.holds
        for digest in record.holds:
            if digest not in held and not self._edit.blob_rows(digest):
                raise _missing(to, digest)
        self.delete(name)
        self._put(key, value)

    def _put(self, key: bytes, value: bytes) -> None:
        self._edit.put_record(key, value)
        self._draft.edits.append(NameEdit(key, value))

    def delete(self, name: Name) -> bool:
        """Remove a name; say whether it was there."""
        key = name.key()
        there = self._edit.delete_record(key)
        if there:
            self._draft.edits.append(NameEdit(key, None))
        return there

    def keep(self, staged: Staged) -> None:
        """Make an uploaded blob readable as part of this change.

        Raises:
            Busy: the blob the upload relied on was collected meanwhile; send it again.
        """
        staged.keep(self._edit, self._draft)
        self.kept.append(staged)


def change(parts: Parts, edit: Callable[[Names], T], *, frees: bool = False) -> T:
    """Run a change and wait until it is durable; see `Store.change`."""
    kept: list[Staged] = []
    lacking = False

    def run(inner: Edit, draft: Draft) -> T:
        nonlocal lacking
        names = Names(inner, draft)
        result = edit(names)
        if draft.grows and not frees:
            parts.check_room(draft.size)
        kept[:] = names.kept
        lacking = bool(kept) and inner.count("lost") > 0
        return result

    result: T = parts.committer.run(run)
    for staged in kept:
        staged.release()
    if lacking:
        parts.heal()
    return result


def find_blob(view: View, digest: Digest) -> BlobEntry | None:
    """Return a blob's entry, or None.

    Raises:
        Damaged: its row is not what was written.
    """
    try:
        return view.blob(digest)
    except Damaged as error:
        raise Damaged(f"blob {digest} is damaged: {error}") from error


def _missing(name: Name, digest: Digest) -> Missing:
    return Missing(f"{name.path} cannot hold {digest}: no such blob is stored; upload it first")


def _bounds(kind: str, prefix: str, after: str) -> tuple[bytes, bytes]:
    return Name(kind, prefix).key(), Name(kind, after).key() if after else b""
