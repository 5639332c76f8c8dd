"""A copy's diary: what a folder has to remember between copies, beside the index and the packs that lie there.

Layer: L4. Packs that a copy which was cut off had brought, and what they grew by, stand in it until all of that copy is
there: whoever knows of them by their files alone, as a rebuild does, would take half a copy for a whole one.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Final, Self

from cas.errors import Occupied

if TYPE_CHECKING:
    from pathlib import Path

    from cas.disk import Disk
    from cas.layout import Layout

FORMAT: Final = 1


@dataclass(slots=True)
class Diary:
    """What a folder has to remember between copies.

    Attributes:
        store: whose copy it is.
        changes: numbers of the last change of names in the copy; two while one index takes the other's place.
        growing: packs being written on in place, and how far each of them was good before.
        coming: packs of the journal that are being brought, and of which the index in place knows nothing.
        damaged: packs that may be damaged.
        reach: number of the last change in the copy that is under way: packs may be here up to that, before the index.
        restores: whether the copy is to be a store, and no backup; then this goes when it is one.
    """

    store: str
    changes: list[int] = field(default_factory=list)
    growing: dict[str, int] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)
    reach: int = 0
    restores: bool = False
    coming: list[str] = field(default_factory=list)
    format: int = FORMAT

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Return a folder's diary; None if it has none.

        Raises:
            Occupied: it has one that this version does not understand.
        """
        if path.exists() and not path.is_file():
            raise Occupied(f"{path} is no file; move it away, or choose another folder")
        try:
            found = cls(**json.loads(path.read_bytes()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise Occupied(f"{path} is not what a backup leaves ({error}); choose another folder") from error
        if found.format != FORMAT:
            raise Occupied(f"{path} is of another version of cas; choose another folder")
        return found

    def write(self, path: Path, disk: Disk) -> None:
        """Set it durably."""
        put_file(path, json.dumps(asdict(self)).encode(), disk)

    def begin(self, change: int) -> None:
        """Note which index is in place when a copy begins: the one that ends with this change."""
        if len(self.changes) > 1 and change == self.changes[-1]:
            self.growing, self.coming = {}, []  # all of that is there, and it names it
        self.changes = [change]


def has_had_copy(layout: Layout) -> bool:
    """Tell whether all of a copy was ever in a folder, whatever it lost since; else the first one was cut off.

    `store.json` comes after the first index, the cell just before it, which until then is the copy.
    """
    has_copy = (layout.index_copy / "data.mdb").exists()
    is_known = layout.manifest.exists() or layout.index_data.is_file()
    return is_known or (layout.journal_cell.exists() and not has_copy)


def packs_reach(layout: Layout, change: int) -> int | None:
    """Return how far packs may go in a copy whose index ends with this change; None if it is no copy, or one no more.

    Raises:
        Occupied: as for `Diary.read`.
    """
    diary = _diary_of(layout, change)
    return None if diary is None else max(change, diary.reach)


def awaits_index(layout: Layout, change: int) -> bool:
    """Tell whether packs may be in a folder before the index that knows them: it is a copy, and the last was cut off.

    Args:
        layout: of the folder.
        change: the last one of names in its index.

    Raises:
        Occupied: as for `Diary.read`.
    """
    diary = _diary_of(layout, change)
    return diary is not None and diary.reach > 0


def _diary_of(layout: Layout, change: int) -> Diary | None:
    """Return the diary of a copy whose index ends with this change; None if it is no copy, or one no more."""
    diary = Diary.read(layout.diary)
    return None if diary is None or change not in diary.changes else diary


def half_copied(layout: Layout) -> dict[str, int]:
    """Return which packs of the journal a copy that was cut off had brought, and up to which byte they counted before.

    Others may be among them. From the moment on in which there are two changes all is there, and counts.

    Raises:
        Occupied: as for `Diary.read`.
    """
    diary = Diary.read(layout.diary)
    if diary is None or len(diary.changes) != 1:
        return {}
    return dict.fromkeys(diary.coming, 0) | diary.growing


def put_file(path: Path, data: bytes, disk: Disk) -> None:
    """Write a small file durably and atomically."""
    unfinished = path.with_name(path.name + ".new")
    disk.unlink(unfinished)
    fd = disk.create(unfinished)
    try:
        disk.write(fd, [data], 0)
        disk.sync(fd)
    finally:
        disk.close(fd)
    disk.rename(unfinished, path)
    disk.sync_folder(path.parent)
