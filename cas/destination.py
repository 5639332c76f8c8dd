"""What may be copied where: folders in which a backup or a restore is refused, with the reason and the remedy.

Layer: L6. A folder is written over only if what it holds is part of what takes its place: a state through which this
very store went.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from cas.commit import JOURNAL_SEQ
from cas.diary import Diary, has_had_copy
from cas.era import descends, eras
from cas.errors import Damaged, InUse, NotAStore, Occupied, OpenError, RootReadOnly
from cas.index import Index
from cas.layout import pack_name
from cas.lease import present
from cas.locks import lock_folder, try_lock
from cas.mounts import NETWORK_FILESYSTEMS, filesystem_type
from cas.retain import without_index
from cas.root import FOLDER_MODE, read_manifest
from cas.tables import DOUBTED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cas.config import EngineSettings
    from cas.era import Era
    from cas.layout import Layout
    from cas.view import View

# Of a new filesystem, or of a copy cut off at once.
_TOLERATED: Final = {"lost+found", "backup.lock", "backup.json.new"}


def check_apart(one: Path, other: Path) -> None:
    """Refuse two folders of which one lies in the other."""
    first, second = one.resolve(), other.resolve()
    if first.is_relative_to(second) or second.is_relative_to(first):
        raise Occupied(f"{other} and {one} lie within each other; choose a folder outside of the store")


@contextmanager
def copying(target: Layout) -> Iterator[None]:
    """Be the only one who copies into a folder, and know that no process uses what is there as a store."""
    make_folder(target.root)
    fd = None
    others = {path.name for path in target.root.iterdir()} - _TOLERATED
    if others and target.diary.name not in others:
        raise Occupied(f"{target.root} is not empty and no backup; choose an empty or new folder")
    for path in (target.packs, target.index, target.index_copy, target.locks):
        if os.path.lexists(path) and not path.is_dir():
            raise Occupied(f"{path} is no folder, as it would be in a backup; move it away, or choose another folder")
    with _reachable(target.root):
        fd = try_lock(target.copy_lock, create=True)
    if fd is None:
        raise InUse(f"another process is copying into {target.root}; try again when it is done")
    try:
        with unused(target):
            yield
    finally:
        if not target.diary.exists():  # refused: nothing was begun here
            target.copy_lock.unlink(missing_ok=True)
        os.close(fd)


@contextmanager
def unused(layout: Layout) -> Iterator[None]:
    """Know that no process has a folder open as a store, nor will open it meanwhile.

    On a network filesystem nobody can; nor could its folders be locked there.
    """
    with ExitStack() as stack:
        if filesystem_type(layout.root) not in NETWORK_FILESYSTEMS:
            stack.enter_context(lock_folder(layout.root, 0))
        if present(layout):
            raise InUse(f"a process has {layout.root} open as a store; stop it first")
        yield


class _State(NamedTuple):
    """A state of a store's names, and what is known of its packs.

    Attributes:
        change: the number of the last change of names.
        eras: those up to then.
        doubted: the packs in which somebody who read saw damage.
        packs: all packs.
    """

    change: int
    eras: list[Era]
    doubted: list[int]
    packs: frozenset[int]

    @classmethod
    def of(cls, view: View) -> Self:
        """Look it up; marks that cannot be read are none."""
        doubted = list[int]()
        with suppress(Damaged):
            doubted = [pack for pack, when in view.checked().items() if when == DOUBTED]
        return cls(view.number(JOURNAL_SEQ), eras(view), doubted, frozenset(row.pack for row in view.packs()))


class Begun(NamedTuple):
    """What stands in a folder before a copy.

    Attributes:
        diary: a new one where there is nothing yet.
        packs: those that the index there names.
    """

    diary: Diary
    packs: frozenset[int] = frozenset()


def diary_of_backup(target: Layout, store: str, root: Path, index: Index, settings: EngineSettings) -> Begun:
    """Return the diary of a folder that may take a store's backup.

    What a look at that folder found damaged is in it: the index that says so is about to be another one.

    Args:
        target: the folder.
        store, root, index: whose backup it is to be.
        settings: tunables.
    """
    diary = Diary.read(target.diary) or Diary(store)
    if diary.store != store:
        raise Occupied(f"{target.root} holds the backup of another store; choose another folder")
    diary.restores = False
    if not target.index_data.is_file():
        if has_had_copy(target):
            raise without_index(target.root, "gone", "--rebuild-index")
        return Begun(diary)
    there, here = _state_of(target, settings), index.read(_State.of)
    if there.change not in diary.changes:
        raise Occupied(f"{target.root} took changes of its own since it was a backup; choose another folder")
    if there.change > here.change:
        raise Occupied(
            f"{target.root} holds a later state than {root} (change {there.change}, and here {here.change}): "
            "this store was restored from an earlier backup, or is an older copy; choose another folder"
        )
    if not descends(here.eras, there.change, there.eras):
        raise Occupied(
            f"{target.root} holds a state that {root} never had (its change {there.change} is another one than here): "
            "this store was restored from an earlier backup or lost changes, or one of the two was copied; "
            "choose another folder"
        )
    diary.damaged += sorted(set(map(pack_name, there.doubted)) - set(diary.damaged))
    diary.begin(there.change)
    return Begun(diary, there.packs)


def finished_backup(source: Layout) -> str:
    """Return whose backup, or whose folder, this is."""
    if not source.root.exists():
        raise NotAStore(f"{source.root} does not exist; name the folder that a cas backup went to")
    if not source.manifest.exists() or not source.index_data.is_file():
        raise NotAStore(f"{source.root} holds no finished backup (it needs a store.json and an index/data.mdb)")
    return read_manifest(source).id.hex()


def diary_of_restore(target: Layout, store: str, settings: EngineSettings) -> Begun:
    """Return the diary of an empty folder, or that of a restore which was cut off, be it at its very end."""
    diary = Diary.read(target.diary) or Diary(store)
    is_store = target.manifest.exists()
    if diary.store != store or (is_store and not diary.restores):
        raise Occupied(f"{target.root} is not empty; restore into an empty or new folder")
    diary.restores = True
    if not is_store:
        return Begun(diary)
    there = _state_of(target, settings)
    if there.change not in diary.changes:
        raise Occupied(
            f"{target.root} took changes of its own since it was restored: it is whole, use it as it is, "
            "or restore into an empty or new folder"
        )
    diary.begin(there.change)
    return Begun(diary, there.packs)


def _state_of(layout: Layout, settings: EngineSettings) -> _State:
    """Return the state of a store that nobody uses."""
    index = Index(layout.index, settings)
    try:
        return index.read(_State.of)
    finally:
        index.close()


def check_done(store: str, target: Layout) -> None:
    """Refuse a root that is that store already: of a restore that was ended after all was done, nobody heard.

    Raises:
        Occupied: it is.
    """
    there = ""
    if target.manifest.exists() and not target.diary.exists():
        with suppress(OpenError):  # then it is no store
            there = read_manifest(target).id.hex()
    if there == store:
        raise Occupied(
            f"{target.root} is the store that this backup is of, and whole (if a restore made it, that was completed); "
            "restore into an empty or new folder"
        )


def make_folder(folder: Path) -> None:
    """Make a folder if there is nothing."""
    if folder.exists() and not folder.is_dir():
        raise Occupied(f"{folder} is a file; choose an empty or new folder")
    with _reachable(folder):
        folder.mkdir(FOLDER_MODE, parents=True, exist_ok=True)


@contextmanager
def _reachable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RootReadOnly(f"{folder} cannot be written ({error.strerror}); mend its permissions or mount") from error
