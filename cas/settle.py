"""Putting a dead process's remains in order: open packs, unfinished uploads, journal numbers that never happened.

Layer: L7. Run by every opener and about once a minute by every process, under the root folder's lock (I7).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from cas.commit import JOURNAL_SEQ
from cas.doubts import mark
from cas.errors import Unreadable
from cas.lease import bury, place, standing, survey
from cas.records import Role
from cas.scan import scan_pack
from cas.tables import PackState

if TYPE_CHECKING:
    from collections.abc import Callable

    from cas.commit import Draft
    from cas.index import Edit
    from cas.parts import Parts
    from cas.tables import PackRow
    from cas.view import View

_BEYOND: Final = 1 << 32  # numbers stepped over: more than a pack, whose offsets have 32 bits, has records


@dataclass(frozen=True, slots=True)
class _Remains:
    packs: list[PackRow]
    recipes: list[int]


def settle(parts: Parts, seen: int = 0) -> None:
    """Close what dead processes left open and step over what they did not finish.

    Args:
        parts: of the store.
        seen: a journal number; if the index has not come to it, it never counted, and never will.

    Raises:
        NoSpace, DiskFailed, ReadOnly, Busy: it could not be written, or nobody can be told from the dead since leases
            were removed; nothing is lost, try again later.
    """
    parts.committer.lease.check()
    alive, dead = survey(parts.layout, parts.owner)
    places = standing(parts.layout)  # after the leases: of those, some may have ended since

    def lives(owner: bytes) -> bool:
        return owner in alive or owner == parts.owner or place(owner) in places

    remains = parts.index.read(lambda view: _remains(view, lives))
    journals = [row.pack for row in remains.packs if row.role is Role.JOURNAL]
    told = {pack: _highest_number(parts, pack) for pack in journals}

    def close(edit: Edit, draft: Draft) -> None:
        unread = [pack for pack, highest in told.items() if highest is None]
        top = edit.number(JOURNAL_SEQ) + _BEYOND if unread else 0
        parts.committer.reserve(max([top, seen, *(highest or 0 for highest in told.values())]))
        _close(edit, remains)
        mark(edit, draft, unread)  # the scrub says which, and goes on saying so

    is_new = seen > parts.index.read(lambda view: view.number(JOURNAL_SEQ))
    if is_new or remains.packs or remains.recipes or parts.committer.unsettled():
        parts.committer.run(close)
    bury(parts.layout, {owner for owner in dead if not lives(owner)})


def _remains(view: View, lives: Callable[[bytes], bool]) -> _Remains:
    packs = [row for row in view.packs() if row.state is PackState.OPEN and not lives(row.owner)]
    recipes = [recipe for recipe, owner in view.uploads() if not lives(owner)]
    return _Remains(packs, recipes)


def _highest_number(parts: Parts, pack: int) -> int | None:
    """A power cut may have lost the shared cell but not the journal: look past what was committed.

    What the disk refuses to read may be read again one day, and must not have a number then that came to mean something
    else. The index has all that counts, so nobody has to wait for that day: None.
    """
    path = parts.layout.pack(pack)
    if not path.exists():
        return 0
    try:
        records = scan_pack(pack, path, names=False).records
    except Unreadable:
        return None
    return max((record.body.names.seq for record in records if record.body.names is not None), default=0)


def _close(edit: Edit, remains: _Remains) -> None:
    for row in remains.packs:
        edit.put_pack(replace(row, state=PackState.CLOSED))
    for recipe in remains.recipes:
        edit.delete_recipe(recipe)
