"""Whether an index is the one of the packs beside it: by an empty, older or foreign one, all that it lacks is garbage.

Layer: L6. A row comes before its pack's file, and every record of the journal names the committed one before it. So a
pack that the index does not know is one that it knew once; and a record whose predecessor the index has not come to
yet proves that there was a later index.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Final

from cas.commit import JOURNAL_SEQ
from cas.diary import packs_reach
from cas.errors import IndexUnfit, NoSpace, NotAStore, PacksMissing, Unreadable
from cas.layout import pack_name
from cas.lease import survey
from cas.packbytes import PackBytes
from cas.records import HEADER_SIZE, Role, decode_header
from cas.root import remake
from cas.scan import pack_paths, scan_pack
from cas.tables import PackState

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from cas.index import Edit, Index
    from cas.layout import Layout
    from cas.records import Header
    from cas.root import Manifest
    from cas.tables import PackRow
    from cas.view import View

_NOTES: Final = ("store", "store_rest")  # the index's note of whose it is: counters, each of half an id
_NOTED: Final = 8  # bytes of a store's id that fit into one
_BACK: Final = "; to go back to that backup instead, `cas restore` it into an empty folder"


@dataclass(frozen=True, slots=True)
class _Known:
    """What an index says: whose it is (of an older version, half of it), its last change of names, and its packs."""

    store: bytes
    change: int
    rows: dict[int, PackRow]


def hold_together(layout: Layout, manifest: Manifest, index: Index) -> int:
    """Refuse an index that is not the one of these packs; note in a new one whose it is.

    Args:
        layout: where the packs are. The caller holds the root's lock.
        manifest: of the store.
        index: its index, or a copy of it.

    Returns:
        The highest journal number that was seen in packs beyond what the index says of them; 0 if there is none.

    Raises:
        IndexUnfit: it is another store's, or older than the packs. Nothing was changed.
        NotAStore: it is `store.json` that is another store's.
        PacksMissing: not one of the packs is there.
        DiskFailed: it could not be noted.
    """
    files = dict(pack_paths(layout))  # before the rows: what a living process makes meanwhile has one
    # Before the rows as well: who ends meanwhile writes until then.
    alive = survey(layout, b"")[0] if layout.locks.is_dir() else set[bytes]()
    known = index.read(_known)
    if not manifest.id.startswith(known.store):
        if files and all(header.store.startswith(known.store) for header in headers(files)):
            raise NotAStore(f"{layout.manifest} names another store than packs and index do; {remake(layout)}")
        raise _unfit(layout, "it is the index of another store")
    strangers = {pack: role for pack in files.keys() - known.rows.keys() if (role := _role(files[pack], manifest))}
    if not known.store and not known.rows and strangers:
        raise _unfit(layout, f"it is empty, and there are {len(strangers)} packs")
    _demand_packs(layout, known, files, strangers)
    newest, proven = _beyond(layout, known, strangers, alive)
    reach = packs_reach(layout, known.change)  # of a copy that was cut off: it had brought packs before their index
    if proven > (known.change if reach is None else reach):
        why = f"it is older than the packs: it ends with change {known.change}, and they show change {proven}"
        raise _unfit(layout, why) if reach is None else _unfit(layout, f"{why}: a backup was copied over it", _BACK)
    if known.store != manifest.id:
        with suppress(NoSpace):  # the next opener notes it
            index.write(lambda edit: _note(edit, manifest.id))
    return newest


def _known(view: View) -> _Known:
    return _Known(noted(view), view.number(JOURNAL_SEQ), {row.pack: row for row in view.packs()})


def _note(edit: Edit, store: bytes) -> None:
    for half, name in enumerate(_NOTES):
        edit.set_number(name, int.from_bytes(store[half * _NOTED :][:_NOTED], "little"))


def noted(view: View) -> bytes:
    """Return the store that an index says it is of; an older version noted half of that, a new index nothing."""
    halves = takewhile(bool, map(view.number, _NOTES))
    return b"".join(number.to_bytes(_NOTED, "little") for number in halves)


def headers(files: Mapping[int, Path]) -> Iterator[Header]:
    """Yield the headers of packs, of those that can be read."""
    for path in files.values():
        header = _header(path)
        if header is not None:
            yield header


def _header(path: Path) -> Header | None:
    with suppress(OSError, Unreadable), PackBytes(path) as data:  # a living process may just have removed it
        return decode_header(data.read(0, HEADER_SIZE))
    return None


def _unfit(layout: Layout, why: str, more: str = "") -> IndexUnfit:
    return IndexUnfit(
        f"the index of {layout.root} is not the one of its packs ({why}); nothing was changed. "
        f"`cas fsck --rebuild-index --force --root {layout.root}` makes it anew from the packs{more}"
    )


def _role(path: Path, manifest: Manifest) -> Role | None:
    """Return what a pack of this store holds; None for what is none."""
    header = _header(path)
    return header.role if header is not None and header.store == manifest.id else None


def _demand_packs(layout: Layout, known: _Known, files: dict[int, Path], strangers: dict[int, Role]) -> None:
    """See that the packs are there: all of them, where there are others, and else at least one."""
    needed = {row.pack for row in known.rows.values() if _has_to_be_there(row, layout)}
    missing = {
        pack for pack in needed - files.keys() if not layout.pack(pack).exists()
    }  # or made after the look at files
    if missing and strangers:
        raise _unfit(
            layout, f"{len(missing)} of the packs that it names are gone, and it does not name all that are there"
        )
    if missing and missing == needed:
        raise PacksMissing(
            f"none of the {len(needed)} packs of {layout.root} is there; nothing was changed. "
            f"If {layout.packs} is a disk of its own, mount it; else bring the packs back, or restore a backup"
        )


def _has_to_be_there(row: PackRow, layout: Layout) -> bool:
    counts = row.state is not PackState.DYING and row.committed > HEADER_SIZE
    name = pack_name(row.pack)
    return counts and not any((folder / name).exists() for folder in layout.quarantines)  # or it was just moved there


def _beyond(layout: Layout, known: _Known, strangers: dict[int, Role], alive: set[bytes]) -> tuple[int, int]:
    """Return the highest number in journals beyond what the index says, and the highest one that surely counted."""
    journals = [pack for pack, role in strangers.items() if role is Role.JOURNAL]
    newest = proven = 0
    for pack in [*journals, *(row.pack for row in known.rows.values() if _is_settled(row, alive))]:
        row, path = known.rows.get(pack), layout.pack(pack)
        with suppress(OSError, Unreadable):  # a row comes before its file, which may also be gone again
            if row is None or path.stat().st_size > row.committed:
                scan = scan_pack(pack, path, proves=False, names=False)
                changes = [record.body.names for record in scan.records if record.body.names is not None]
                newest = max([newest, *(change.seq for change in changes)])
                proven = max([proven, *(change.previous for change in changes)])
    return newest, proven


def _is_settled(row: PackRow, alive: set[bytes]) -> bool:
    """Whether nobody may be writing to a journal pack."""
    return row.role is Role.JOURNAL and (row.state is not PackState.OPEN or row.owner not in alive)
