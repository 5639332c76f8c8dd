"""Whose store a folder is where `store.json` does not say, or says wrongly: by packs and index, if these agree.

Layer: L10. Each pack begins with the id of its store, and the index notes it too. What all that can be read say is
proof; where there is no such thing, or two of them differ, nothing is made.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeVar

from cas.check import inspect_index
from cas.commit import JOURNAL_SEQ
from cas.diary import Diary, has_had_copy
from cas.disk import Disk
from cas.errors import CasError, NotAStore
from cas.finding import Finding
from cas.index import Index
from cas.kinship import headers, noted
from cas.layout import Layout
from cas.lease import OWNER_SIZE, visiting
from cas.locks import lock_folder
from cas.records import FORMAT as PACK_FORMAT
from cas.root import FORMAT, Manifest, check_owner, has_remains, put_manifest, read_manifest
from cas.scan import pack_paths

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cas.config import EngineSettings
    from cas.view import View

T = TypeVar("T")
_REMAKE: Final = "run cas fsck --repair, which makes it anew from what packs and index say"
_ELSE: Final = "restore store.json from a backup"
_ID_SIZE: Final = 16


def inspect_manifest(root: Path, settings: EngineSettings) -> Finding | None:
    """Return what is wrong with a store's `store.json`; None if nothing is, or if there is no store.

    Args:
        root, settings: as for `Store.open`.

    Raises:
        FormatTooNew, RootReadOnly, Unreadable, InUse: it cannot be told.
    """
    layout = Layout(root)
    what = _flaw(layout, settings)
    if what is None:
        return None
    try:
        _identity(layout, settings)
    except NotAStore as error:
        return Finding("manifest", what, layout.manifest.name, str(error))
    return Finding("manifest", what, layout.manifest.name, _REMAKE)


def mend_manifest(root: Path, settings: EngineSettings) -> bool:
    """Make a store's `store.json` anew if something is wrong with it; say whether that was so.

    What was there is kept in `quarantine/`. Ended anywhere, it can be done again.

    Raises:
        NotAStore: nothing proves whose store it is. Nothing was changed.
        NotOwner: it is another user's.
        NoSpace, RootReadOnly: it could not be written.
        FormatTooNew, Unreadable, InUse, Busy: it cannot be told, or not now.
    """
    layout = Layout(root)
    if _flaw(layout, settings) is None:
        return False
    check_owner(layout)
    manifest = Manifest(FORMAT, _identity(layout, settings))
    with lock_folder(root, settings.write_wait_s):
        put_manifest(layout, manifest, Disk())
    return True


def demand_no_half(root: Path, settings: EngineSettings) -> None:
    """Refuse to mend a backup while half of a later copy lies in it, which would count from the first change on.

    Whoever has made a change there since has a store, and no backup.

    Args:
        root, settings: as for `Store.open`; its index can be read.

    Raises:
        NotAStore: it does.
    """
    layout = Layout(root)
    diary = Diary.read(layout.diary) if layout.index_data.is_file() else None
    if diary is None or diary.restores or not diary.reach:
        return
    if _look(layout, settings, lambda view: view.number(JOURNAL_SEQ)) in diary.changes:
        raise NotAStore(
            f"a cas backup into {root} was cut off; call it again, which goes on, before anything is mended there. "
            f"If its store is gone, cas restore {root} into an empty folder, and mend that"
        )


def _flaw(layout: Layout, settings: EngineSettings) -> str | None:
    if not layout.root.is_dir() or not has_remains(layout):
        return None
    try:
        told = read_manifest(layout)
    except FileNotFoundError:
        return "it is missing"
    except NotAStore as error:
        return f"it is damaged ({error.__cause__ or 'its format or id is none'})"
    if {header.store for header in headers(dict(pack_paths(layout)))} <= {told.id}:
        return None
    with suppress(NotAStore):  # then nothing contradicts it for sure
        if _index_says(layout, settings) and _identity(layout, settings) != told.id:
            return "it names another store than packs and index do"
    return None


def _identity(layout: Layout, settings: EngineSettings) -> bytes:
    """Return the id of a store by what is left of it.

    Raises:
        NotAStore: that is nothing, or it does not agree.
    """
    found_in = list(headers(dict(pack_paths(layout))))
    packs, index = Counter(header.store for header in found_in), _index_says(layout, settings)
    diary = Diary.read(layout.diary)
    if diary is not None and not (layout.manifest.exists() if diary.restores else has_had_copy(layout)):
        what = "restore" if diary.restores else "backup"
        raise NotAStore(
            f"a cas {what} into {layout.root} was cut off, and not all is here; call it again, which goes on"
        )
    if any(header.format > PACK_FORMAT for header in found_in):
        raise NotAStore(f"packs of a newer version lie in {layout.packs}; upgrade cas, or {_ELSE}")
    if len(packs) > 1:
        counts = ", ".join(f"{count:,} of {store.hex()}" for store, count in packs.most_common())
        raise NotAStore(f"packs of {len(packs)} stores lie in {layout.packs} ({counts}); {_ELSE}")
    (found,) = packs or ((index,) if len(index) == _ID_SIZE else (b"",))
    if not found:
        raise NotAStore(f"nothing that can be read in {layout.root} says whose store it is; {_ELSE}")
    if not found.startswith(index):
        raise NotAStore(f"the index is of another store than the packs in {layout.root}; {_ELSE}")
    if diary is not None and diary.store != found.hex():
        raise NotAStore(f"{layout.diary} is of another store than the packs; {_ELSE}")
    return found


def _index_says(layout: Layout, settings: EngineSettings) -> bytes:
    """Return what the index notes of its store; nothing where there is none, or a damaged one."""
    if not layout.index_data.is_file():
        return b""
    with suppress(CasError):
        if inspect_index(layout.root, settings, reading=True) is None:
            return _look(layout, settings, noted)
    return b""


def _look(layout: Layout, settings: EngineSettings, look: Callable[[View], T]) -> T:
    """Look at an index that can be read, without opening the store."""
    with visiting(layout, Disk().random(OWNER_SIZE), settings.write_wait_s):
        index = Index(layout.index, settings)
        try:
            return index.read(look)
        finally:
            index.close()
