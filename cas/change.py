"""Names as one change sees them: read, write, and the blobs it keeps. All of it happens, durably, or none.

Layer: L8. Runs on the committer's thread inside the write transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cas.errors import Missing
from cas.names import Name, Record
from cas.records import NameEdit

if TYPE_CHECKING:
    from cas.commit import Draft
    from cas.index import Edit, View
    from cas.staged import Staged


class Names:
    """The names of a store within one change; sees its own edits."""

    def __init__(self, edit: Edit, draft: Draft) -> None:
        self._edit, self._draft = edit, draft

    def get(self, name: Name) -> Record | None:
        """Return what stands under a name, or None."""
        return self._edit.record(name.key())

    def scan(
        self, kind: str, prefix: str = "", *, after: str = "", limit: int | None = None
    ) -> list[tuple[Name, Record]]:
        """Return up to `limit` names of a kind whose path begins with `prefix` and follows `after`, in byte order."""
        return scan(self._edit, kind, prefix, after, limit)

    def put(self, name: Name, record: Record) -> None:
        """Set a name.

        Raises:
            Missing: a blob it should hold is not stored, nor kept by this change.
            InvalidName: the name cannot be stored.
        """
        for digest in record.holds:
            if self._edit.blob(digest) is None:
                raise Missing(f"{name.path} cannot hold {digest}: no such blob is stored; upload it first")
        key, value = name.key(), record.encode()
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


def scan(view: View, kind: str, prefix: str, after: str, limit: int | None) -> list[tuple[Name, Record]]:
    """Return names in byte order; see `Names.scan`."""
    start = Name(kind, prefix).key()
    behind = Name(kind, after).key() if after else b""
    return [(Name.from_key(key), record) for key, record in view.records(start, behind, limit)]
