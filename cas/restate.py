"""The journal said once more, where some of it was lost: every name and blob as it stands, and what stands no more.

Layer: L8. A rebuild does again what the journal says, so what a lost record deleted would come back with the older one
that had put it: whatever any record left mentions, and is not there, is deleted once more. Only when all of that is
durable, the numbers that were lost are bridged by a record of nothing, so that the links are whole again. Ended before
that, a check goes on naming the gap. Whoever calls holds the maintenance lock.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from cas.audit import journal_links, missing_links
from cas.commit import JOURNAL_SEQ
from cas.moving import change_over, forget
from cas.records import Body, NameChanges, NameEdit, Role, link
from cas.scan import each_record
from cas.tables import PackRow, PackState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cas.commit import Draft
    from cas.index import Edit
    from cas.parts import Parts
    from cas.records import BlobEntry

_IN_RECORD = 1_000  # names recorded together


def restate(parts: Parts) -> None:
    """Make the journal tell what the index does, whatever of it was lost.

    Raises:
        NoSpace, DiskFailed, ReadOnly, Busy: nothing was lost by it; do it again.
    """
    after: bytes = b""
    while keys := parts.committer.run(partial(_names, after=after)):
        after = keys[-1]
    blob: BlobEntry | None = None
    while blobs := parts.committer.run(partial(_blobs, after=blob)):
        blob = blobs[-1]
    mentioned = sorted(_mentioned(parts))
    for first in range(0, len(mentioned), _IN_RECORD):
        parts.committer.run(partial(_deletions, keys=mentioned[first : first + _IN_RECORD]))
    _bridge(parts)


def _names(edit: Edit, draft: Draft, after: bytes) -> list[bytes]:
    rows = edit.records(b"", after, _IN_RECORD)
    draft.edits += [NameEdit(key, record.encode()) for key, record in rows]
    return [key for key, _ in rows]


def _blobs(edit: Edit, draft: Draft, after: BlobEntry | None) -> list[BlobEntry]:
    blobs = edit.blobs_after(None if after is None else after.digest, 64)
    for blob in blobs:
        chain = b""
        for stretch in edit.segments(blob.recipe) if blob.recipe else ():
            chain = link(chain, stretch.refs)
        draft.blobs.append(replace(blob, chain=chain))
    return blobs


def _mentioned(parts: Parts) -> set[bytes]:
    """Return the keys of names that a record left of the journal puts."""
    found: set[bytes] = set()
    for row in parts.index.read(lambda view: view.packs()):
        if row.role is Role.JOURNAL:
            with contextlib.suppress(FileNotFoundError, ValueError):  # none, or an empty one
                for record in each_record(row.pack, parts.layout.pack(row.pack)):
                    edits = () if record.body.names is None else record.body.names.edits
                    found.update(edit.key for edit in edits if edit.record is not None)
    return found


def _deletions(edit: Edit, draft: Draft, keys: Sequence[bytes]) -> None:
    draft.edits += [NameEdit(key, None) for key in keys if edit.record(key) is None]


def _bridge(parts: Parts) -> None:
    """Record, for each stretch of numbers that is gone, that nothing happened in it: what did is said elsewhere."""
    top = parts.index.read(lambda view: view.number(JOURNAL_SEQ))
    missing = list(missing_links(journal_links(parts), top))
    if not missing:
        return
    writer = parts.packs.create(Role.JOURNAL)
    try:
        for below, at in missing:
            writer.commit(Body(names=NameChanges(at, below)))
        parts.packs.finish(writer)
    except BaseException:
        parts.packs.discard(writer)
        forget(parts, [writer.pack])
        raise
    change_over(parts, [], PackRow(writer.pack, PackState.SEALED, Role.JOURNAL, parts.owner, writer.end))
