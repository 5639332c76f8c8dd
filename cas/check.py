"""Checking a store: what the index says held against itself, against the packs, and against the bytes.

Layer: L9. Changes nothing but notes of when packs were read, and which are doubted. Pushes, deletions and collections
go on meanwhile, so whatever is compared with each other is read in one transaction. Only what is in files cannot be: a
pack that looks wrong is looked at once more while nobody may move it.
"""

from __future__ import annotations

import hashlib
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from cas import tallies
from cas.audit import Audit, about
from cas.disk import Disk
from cas.environment import inspect
from cas.errors import Damaged, DiskFailed
from cas.finding import LOST, PUSH, REBUILD, Depth, Finding
from cas.layout import Layout
from cas.lease import OWNER_SIZE, present, visiting
from cas.names import Name
from cas.reader import Reader
from cas.records import Role
from cas.root import check_owner, leave_lock_file
from cas.tables import TABLES
from cas.tallies import gap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from cas.config import EngineSettings
    from cas.digest import Digest
    from cas.finding import Scope
    from cas.parts import Parts
    from cas.records import BlobEntry
    from cas.view import View

    Alone = Callable[[], AbstractContextManager[None]]

_SLICE: Final = 1000


def check(parts: Parts, scope: Scope, alone: Alone = nullcontext, *, doubts: bool = True) -> Iterator[Finding]:
    """Yield what is wrong; if the index itself is, that alone, since all else rests on it.

    Args:
        parts: of the store.
        scope: how much of it to read.
        alone: while it is entered, nobody moves or takes anything; for whom that is so already, nothing.
        doubts: whether the scrub is to deal with the packs found damaged.
    """
    if wrong := list(index(parts)):
        yield from wrong
        return
    yield from _names(parts)
    for look in (tallies.pieces, tallies.uploads, tallies.sums, tallies.hints):
        yield from look(parts)
    yield from _recipes(parts, scope, alone)
    yield from _lost(parts)
    first, found = Audit(parts, scope), list[Finding]()
    if list(first.findings()):  # or somebody moved what lay there: a second look tells, and only that is told
        with alone():
            for finding in Audit(parts, scope, first.suspects).findings():
                found.append(finding)
                yield finding
    damaged = {finding.pack for finding in found if finding.pack is not None}
    # A scrub compares no keys, so it would find no fault with what fails in that alone.
    rotten = {finding.pack for finding in found if finding.pack is not None and finding.check != "keys"}
    first.note(damaged, rotten if doubts else ())


def inspect_index(root: Path, settings: EngineSettings, *, reading: bool = False) -> Finding | None:
    """Look at the pages of a store's index before anything walks or changes them; return what is wrong, if anything is.

    Args:
        root, settings: as for `Store.open`.
        reading: whether the store is to be read only, for which it need not be one's own.

    Raises:
        NotOwner: it is another user's.
        InUse: others have it open, and their locks were removed.
        DiskFailed, NoSpace, Busy: it could not be looked at.
    """
    layout = Layout(root)
    present(layout)
    if reading:
        leave_lock_file(layout)
    else:
        check_owner(layout)
    if not layout.index_data.is_file():  # whoever opens the store says so
        return None
    with visiting(layout, Disk().random(OWNER_SIZE), settings.write_wait_s):
        what = inspect(layout.index, TABLES, max_readers=settings.max_readers)
    return None if what is None else Finding("structure", what, "index", REBUILD)


def index(parts: Parts) -> Iterator[Finding]:
    """Yield what is wrong with the index as such."""
    for look in (tallies.tables, tallies.rows):
        wrong = list(look(parts))
        yield from wrong
        if wrong:
            return


def size(parts: Parts, scope: Scope) -> int:
    """Return how many bytes a check of this scope reads, about."""
    rows = parts.index.read(lambda view: view.packs())
    data = (row.committed for row in rows if row.role is Role.DATA and scope.has_pack(row.pack))
    total = sum(row.committed for row in rows if row.role is Role.JOURNAL)
    total += sum(data) if scope.depth > Depth.QUICK else 0
    last: Digest | None = None
    if scope.depth < Depth.DEEP:
        return total
    while blobs := parts.index.read(lambda view, last=last: view.blobs_after(last, _SLICE)):  # type: ignore[misc]
        last = blobs[-1].digest
        total += sum(blob.size for blob in blobs if scope.has_blob(blob.digest))
    return total


def _names(parts: Parts) -> Iterator[Finding]:
    after = b""
    while found := parts.index.read(lambda view, after=after: _names_slice(view, after)):  # type: ignore[misc]
        after, findings = found
        yield from findings
    for digest, key in parts.index.read(lambda view: list(view.untrue_holders())):
        text = "it is said to be held by a name that does not hold it, and is never collected"
        yield Finding("names", text, f"blob {digest}", REBUILD, (digest,), (Name.from_key(key),))


def _names_slice(view: View, after: bytes) -> tuple[bytes, list[Finding]] | None:
    rows, findings = view.records(b"", after, _SLICE), []
    for key, record in rows:
        name = Name.from_key(key)
        for digest in record.holds:
            where, them = f"name {name.kind} {name.path}", ((digest,), (name,))
            if not view.holders(digest, key, 1):
                findings.append(Finding("names", f"it is not known to hold blob {digest}", where, REBUILD, *them))
            if not view.blob_rows(digest):
                findings.append(Finding("names", f"it holds blob {digest}, which is not here", where, PUSH, *them))
    return (rows[-1][0], findings) if rows else None


def _recipes(parts: Parts, scope: Scope, alone: Alone) -> Iterator[Finding]:
    last: Digest | None = None
    while blobs := parts.index.read(lambda view, last=last: view.blobs_after(last, _SLICE)):  # type: ignore[misc]
        last = blobs[-1].digest
        for digest in (blob.digest for blob in blobs):
            what = parts.index.read(lambda view, digest=digest: flaw(view, digest))  # type: ignore[misc]
            if what is not None:
                yield about("recipes", what, f"blob {digest}", parts, {digest})
            elif scope.depth is Depth.DEEP and scope.has_blob(digest) and _untrue(parts, digest, scope):
                with alone():  # or it moved while it was read
                    untrue = _untrue(parts, digest, scope)
                if untrue:
                    yield about(*untrue, f"blob {digest}", parts, {digest})


def flaw(view: View, digest: Digest) -> str | None:
    """Return why a blob cannot be read to its end, as far as the index knows; None if it can."""
    blob = view.blob(digest)
    if blob is None or blob.inline is not None:
        return None
    return gap(view, blob.recipe, blob.size)


def _untrue(parts: Parts, digest: Digest, scope: Scope) -> tuple[str, str] | None:
    """Read a blob to its end: which check it fails and why; one deleted meanwhile is nobody's concern."""
    pin = parts.pins.take()
    blob = parts.index.read(lambda view: view.sound_blob(digest))
    if blob is None:
        pin.release()
        return None
    try:
        true = _hash(parts, blob, Reader(parts, blob, pin), scope) == digest.raw
    except Damaged as error:
        return "blobs", str(error)
    except DiskFailed as error:
        return "unreadable", f"it could not be read to its end: {error}"
    return None if true else ("blobs", "its bytes have another digest")


def _hash(parts: Parts, blob: BlobEntry, reader: Reader, scope: Scope) -> bytes:
    running = hashlib.new(blob.digest.algorithm)
    with reader:
        for piece in reader.pieces():
            if isinstance(piece, bytes):
                running.update(piece)
                scope.told(len(piece))
                continue
            for at in range(0, piece.count, 1 << 20):
                count = min(1 << 20, piece.count - at)
                data = parts.disk.read(piece.fd, count, piece.offset + at)
                if len(data) != count:
                    raise Damaged("a pack ends early")
                running.update(data)
                scope.told(len(data))
    return running.digest()


def _lost(parts: Parts) -> Iterator[Finding]:
    last: Digest | None = None
    while blobs := parts.index.read(lambda view, last=last: view.lost_after(last, _SLICE)):  # type: ignore[misc]
        last = blobs[-1].digest
        for blob in blobs:
            if not parts.index.read(lambda view, blob=blob: view.is_held(blob.digest)):  # type: ignore[misc]
                continue  # nobody misses it: the next collection forgets it
            text = "it was found damaged before and is answered as missing"
            yield replace(about("lost", text, f"blob {blob.digest}", parts, {blob.digest}), remedy=LOST)
