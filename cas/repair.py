"""Mending a store: what is damaged is put where nobody reads it, so that a push of the same content heals it.

Layer: L10. A pack with damage is salvaged, its file kept aside; blobs that cannot be whole any more are taken out of
those that are here, their names stay. Nothing is dropped: what a check finds afterwards is what is left to mend.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from cas.check import check, flaw
from cas.claims import cancel
from cas.doubts import mark
from cas.records import Role
from cas.recover import lost_blobs, recover
from cas.restate import restate
from cas.salvage import salvage
from cas.tallies import cut_off

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cas.commit import Draft
    from cas.digest import Digest
    from cas.finding import Finding, Scope
    from cas.index import Edit
    from cas.parts import Parts
    from cas.reader import Reader

_AT_ONCE = 100  # blobs looked through in one transaction


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What was found, and what became of it.

    Attributes:
        found: everything that was not as promised.
        packs: those that were, or are to be, salvaged and set aside.
        lost: blobs that are answered as missing, since now or since before, until the same content is pushed.
        left: what is still not as promised. A blob that was just found to be lost is not among it, unless it was to
            come back from another store.
        recovered: lost blobs that came back, from another store or because their bytes were here again.
    """

    found: tuple[Finding, ...]
    packs: tuple[int, ...]
    lost: tuple[Digest, ...]
    left: tuple[Finding, ...]
    recovered: tuple[Digest, ...] = ()


def repair(
    parts: Parts,
    scope: Scope,
    heal: Callable[[], list[Digest]],
    *,
    dry_run: bool,
    other: Callable[[Digest], Reader] | None = None,
) -> RepairReport:
    """Mend what a check of this scope finds. The caller holds the maintenance lock.

    Args:
        parts: of the store.
        scope: what is looked at.
        heal: brings back what is here twice.
        dry_run: change nothing, and say what would be done.
        other: a reader of another store, from which lost blobs are brought back.

    Raises:
        NoSpace, DiskFailed, ReadOnly, Busy: nothing was lost by it; do it again.
    """
    found = tuple(check(parts, scope, doubts=not dry_run))
    before = {digest for finding in found if finding.check == "lost" for digest in finding.blobs}
    if dry_run:
        return RepairReport(found, _packs(found), tuple(sorted({*_suffering(found), *before})), found)
    mend(parts, found, heal)
    recovered = heal() if before else []  # who pushed what they lack may have died before it was used
    if other is not None:
        recovered += recover(parts, other)
    left = (
        finding
        for finding in check(parts, scope)
        if finding.check != "lost" or other is not None or before.issuperset(finding.blobs)
    )
    return RepairReport(found, _packs(found), tuple(lost_blobs(parts)), tuple(left), tuple(recovered))


def mend(parts: Parts, found: Sequence[Finding], heal: Callable[[], list[Digest]]) -> tuple[Digest, ...]:
    """Set the packs of these findings aside; return the blobs that were lost. The caller holds the maintenance lock.

    Args:
        parts: of the store.
        found: by a look while that lock was held.
        heal: brings back what is here twice.

    Raises:
        NoSpace, DiskFailed, ReadOnly, Busy: nothing was lost by it; do it again.
    """
    packs = _packs(found)
    if packs:
        parts.committer.run(partial(mark, packs=packs))  # ended anywhere, the scrub goes on at once
    roles = {row.pack: row.role for row in parts.index.read(lambda view: view.packs())}
    journal = [pack for pack in packs if roles.get(pack) is Role.JOURNAL]
    for pack in journal:  # first: what is said once more there tells of blobs that are about to be lost, too
        salvage(parts, pack)
    if any(finding.check == "journal" for finding in found):
        restate(parts)
    lost = [digest for pack in packs if pack not in journal for digest in salvage(parts, pack)]
    if any(finding.check == "uploads" for finding in found):
        _end_uploads(parts)
    suffering = _suffering(found)
    for start in range(0, len(suffering), _AT_ONCE):
        lost += parts.committer.run(partial(_lose, digests=suffering[start : start + _AT_ONCE], found=found))
    back = set(heal()) if lost else set()
    return tuple(sorted(set(lost) - back))


def _end_uploads(parts: Parts) -> None:
    """Cancel the resumable uploads of which a part is gone: nothing whole could come of them."""

    def end(edit: Edit, _draft: Draft, number: int) -> None:
        if cut_off(edit, number) is not None:
            cancel(edit, number, int(parts.clock()))

    for number in parts.index.read(lambda view: [each for each, _ in view.sessions()]):
        if parts.index.read(lambda view, number=number: cut_off(view, number)) is not None:  # type: ignore[misc]
            parts.committer.run(partial(end, number=number))


def _packs(found: Sequence[Finding]) -> tuple[int, ...]:
    return tuple(sorted({finding.pack for finding in found if finding.pack is not None}))


def _suffering(found: Sequence[Finding]) -> tuple[Digest, ...]:
    return tuple(sorted({digest for finding in found if finding.is_damage for digest in finding.blobs}))


def _lose(edit: Edit, _draft: Draft, digests: Sequence[Digest], found: Sequence[Finding]) -> list[Digest]:
    untrue = {digest for finding in found if finding.check == "blobs" for digest in finding.blobs}
    lost = [digest for digest in digests if edit.blob(digest) and (digest in untrue or flaw(edit, digest))]
    for digest in lost:
        edit.lose_blob(digest)
    return lost
