"""Putting a dead process's remains in order: open packs, unfinished uploads, journal numbers that never happened.

Layer: L7. Run by every opener and about once a minute by every process, under the root folder's lock (I7).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cas.lease import bury, check_own, survey
from cas.records import Role
from cas.scan import scan_pack
from cas.tables import PackState

if TYPE_CHECKING:
    from cas.commit import Draft
    from cas.index import Edit
    from cas.parts import Parts
    from cas.tables import PackRow
    from cas.view import View


@dataclass(frozen=True, slots=True)
class _Remains:
    packs: list[PackRow]
    recipes: list[int]


def settle(parts: Parts) -> None:
    """Close what dead processes left open and step over what they did not finish.

    Raises:
        NoSpace, DiskFailed, ReadOnly, Busy: it could not be written, or nobody can be told from the dead since leases
            were removed; nothing is lost, try again later.
    """
    check_own(parts.layout, parts.owner)
    alive, dead = survey(parts.layout, parts.owner)
    living = alive | {parts.owner}
    remains = parts.index.read(lambda view: _remains(view, living))
    journals = (row for row in remains.packs if row.role is Role.JOURNAL)
    highest = max((_highest_number(parts, row) for row in journals), default=0)

    def close(edit: Edit, _draft: Draft) -> None:
        parts.committer.reserve(highest)
        _close(edit, remains)

    if remains.packs or remains.recipes or parts.committer.unsettled():
        parts.committer.run(close)
    bury(parts.layout, dead)


def _remains(view: View, living: set[bytes]) -> _Remains:
    packs = [row for row in view.packs() if row.state is PackState.OPEN and row.owner not in living]
    recipes = [recipe for recipe, owner in view.uploads() if owner not in living]
    return _Remains(packs, recipes)


def _highest_number(parts: Parts, row: PackRow) -> int:
    """A power cut may have lost the shared cell but not the journal: look past what was committed."""
    path = parts.layout.pack(row.pack)
    if not path.exists():
        return 0
    records = scan_pack(row.pack, path).records
    return max((record.body.names.seq for record in records if record.body.names is not None), default=0)


def _close(edit: Edit, remains: _Remains) -> None:
    for row in remains.packs:
        edit.put_pack(replace(row, state=PackState.CLOSED))
    for recipe in remains.recipes:
        edit.delete_recipe(recipe)
