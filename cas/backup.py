"""A store's copy: made beside its living processes, kept in step, and brought back.

Layer: L7. A copy is a store: one index, copied as of one moment, and the packs it names, as long as it says they are.
Packs come first, the index takes the old one's place when all of them are durable, and what only the old one named goes
last; so whenever the work ends, the folder holds a whole copy, the old or the new one. What the store has lost stays,
and so does what rotted there before anybody knew.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from cas.commit import JOURNAL_SEQ
from cas.config import EngineSettings
from cas.destination import (
    check_apart,
    check_done,
    copying,
    diary_of_backup,
    diary_of_restore,
    finished_backup,
    make_folder,
    unused,
)
from cas.diary import Diary, put_file
from cas.disk import Cell, Disk, keep_modes
from cas.doubts import mark
from cas.errors import CasError, Damaged
from cas.index import Index
from cas.kinship import hold_together
from cas.layout import Layout
from cas.lease import maintenance_lock
from cas.mirror import CopyReport, Mirror, Prover
from cas.retain import Earlier, Retained, retain, without_index
from cas.root import FOLDER_MODE, check_filesystem, read_manifest
from cas.spare import Spared, spare
from cas.tables import TABLES, is_usable, read_place

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from cas.mirror import Progress, Rot
    from cas.parts import Parts
    from cas.tables import PackRow
    from cas.view import View

T = TypeVar("T")
_BLOCK = 4 << 20
_DEFAULTS = EngineSettings()


def _nobody(_done: int, _total: int) -> None:
    """Nobody wants to know how far it is."""


class _Moment(NamedTuple):
    """What an index says of itself at the moment of its copy."""

    packs: list[PackRow]
    change: int
    lost: int


def backup(parts: Parts, folder: Path, progress: Progress = _nobody) -> CopyReport:
    """Bring the copy in a folder up to date, or make one there; see `Store.backup`."""
    source, target = parts.layout, Layout(folder)
    check_apart(source.root, folder)
    store = read_manifest(source).id.hex()
    with maintenance_lock(source), copying(target):
        diary, known = diary_of_backup(target, store, source.root, parts.index, parts.settings)
        diary.write(target.diary, parts.disk)
        _clear(target)
        target.index_copy.mkdir(FOLDER_MODE)
        moment = parts.index.copy(target.index_copy, _moment)
        retained = _beside_earlier(target, parts, retain) if moment.lost else Retained()
        report = CopyReport(lost=list(retained.lost), kept=list(retained.kept))
        diary.reach = moment.change
        mirror = Mirror(source, target, parts.disk, diary, known)
        mirror.copy(moment.packs, report, progress)
        spared = _spare(mirror, parts) if mirror.rotten else Spared()
        report.damaged += [line for rot in mirror.rotten for line in rot.lines()]
        report.spoilt, report.spared = list(spared.spoilt), [one for one in spared.spared if one not in report.kept]
        _finish(mirror, moment, list({row.pack: row for row in (*retained.packs, *spared.packs)}.values()), report)
        with suppress(CasError):  # then the scrub comes to it in its time
            parts.committer.run(partial(mark, packs=mirror.doubted))
        return report


def restore(
    folder: Path,
    root: Path,
    settings: EngineSettings = _DEFAULTS,
    *,
    disk: Disk | None = None,
    progress: Progress = _nobody,
    at_last: Callable[[], object] = bool,
) -> CopyReport:
    """Make a store of a backup, or of the folder of a stopped store; every row and every checksum is looked at.

    Args:
        folder: where the backup is.
        root: an empty or new folder, or what a restore that was cut off left there.
        settings: tunables.
        disk: the file layer, for tests that break it.
        progress: told bytes done and bytes in all, from time to time.
        at_last: called when the root is a store that can be opened; ended even there, the same call goes on.

    Raises:
        OpenError: there is no backup, or not a whole one; it or the root is in use, or the root holds something else.
        Damaged: the index of the backup is; `cas fsck --rebuild-index` there makes it anew.
        NoSpace, DiskFailed: the root is no store yet; the same call again goes on.
    """
    disk = disk or Disk()
    source, target = Layout(folder), Layout(root)
    check_apart(folder, root)
    store = finished_backup(source)
    make_folder(root)
    check_filesystem(root)
    check_done(store, target)
    with copying(target), unused(source):
        diary, known = diary_of_restore(target, store, settings)
        diary.write(target.diary, disk)
        _clear(target)
        moment = _copy_index(source, target, settings, disk)
        mirror, report = Mirror(source, target, disk, diary, known), CopyReport()
        mirror.copy(moment.packs, report, progress)
        report.damaged += _doubt_what_matters(mirror, settings)
        _finish(mirror, moment, [], report)
        disk.unlink(target.copy_lock)
    at_last()
    disk.unlink(target.diary)  # as long as it is there, the same call goes on
    return report


def _finish(mirror: Mirror, moment: _Moment, kept: Sequence[PackRow], report: CopyReport) -> None:
    """Let the new index take the old one's place, and then remove what neither it names nor these rows."""
    target, diary, disk = mirror.target, mirror.diary, mirror.disk
    mirror.keep(kept, report)
    _sync_index(target, disk)
    diary.changes.append(moment.change)
    diary.write(target.diary, disk)
    _publish(mirror.source, target, moment, disk)
    report.index_bytes = target.index_data.stat().st_size
    mirror.remove_others([*moment.packs, *kept], report)
    last = Diary(diary.store, [moment.change], damaged=mirror.damaged(), restores=diary.restores)
    last.write(target.diary, disk)


def _spare(mirror: Mirror, parts: Parts) -> Spared:
    is_good = Prover(mirror.target, parts.disk, parts.codec)
    return _beside_earlier(mirror.target, parts, partial(spare, rotten=mirror.rotten, is_good=is_good))


def _beside_earlier(target: Layout, parts: Parts, work: Callable[[Index, Earlier | None], T]) -> T:
    """See to it that the new index goes on naming what the copy that is there has whole, and the store has not.

    Raises:
        Damaged: the index of that copy is; nobody knows what it would be to go on without it.
    """
    copy = Index(target.index_copy, parts.settings)
    earlier = Index(target.index, parts.settings) if target.index_data.is_file() else None
    try:
        return work(copy, None if earlier is None else Earlier(copy, earlier))
    except Damaged as error:
        raise without_index(target.root, f"damaged ({error})", "--rebuild-index --force") from error
    finally:
        copy.close()
        if earlier is not None:
            earlier.close()


def _doubt_what_matters(mirror: Mirror, settings: EngineSettings) -> list[str]:
    """Return what is damaged in words, without what a backup spared from being relied on.

    The index says of these packs when they were read where they came from; the new store's scrub is to read them first.
    """
    if not mirror.rotten:
        return []
    index = Index(mirror.target.index_copy, settings)

    def lines(view: View, rot: Rot) -> list[str]:
        rows = view.chunk_rows(rot.chunks)
        elsewhere = {
            chunk
            for (chunk, place), row in zip(rot.chunks.items(), rows, strict=True)
            if row is not None and is_usable(row) and read_place(row) != place
        }
        return rot.lines(without=elsewhere)

    try:
        found = {rot.pack: index.read(partial(lines, rot=rot)) for rot in mirror.rotten}
        index.write(lambda edit: mark(edit, None, [pack for pack, said in found.items() if said]))
    finally:
        index.close()
    return [line for said in found.values() for line in said]


def _publish(source: Layout, target: Layout, moment: _Moment, disk: Disk) -> None:
    """Let the new index take its place; the first time, this is what makes the folder a store."""
    for folder in (target.index, target.locks):
        folder.mkdir(FOLDER_MODE, exist_ok=True)
    cell = Cell(target.journal_cell)
    cell.write(moment.change)
    cell.close()
    disk.unlink(target.index / "lock.mdb")  # of readers of the old one, all gone
    disk.rename(target.index_copy / "data.mdb", target.index_data)
    for folder in (target.index, target.root):
        disk.sync_folder(folder)
    shutil.rmtree(target.index_copy)
    ours = source.manifest.read_bytes()
    if not target.manifest.exists() or target.manifest.read_bytes() != ours:
        put_file(target.manifest, ours, disk)


def _sync_index(target: Layout, disk: Disk) -> None:
    data = target.index_copy / "data.mdb"
    fd = disk.open_write(data)
    try:
        keep_modes(fd, 0o640)  # LMDB made it
        disk.sync(fd)
    finally:
        disk.close(fd)


def _copy_index(source: Layout, target: Layout, settings: EngineSettings, disk: Disk) -> _Moment:
    """Copy the index of a store that nobody uses, and read every row of the copy.

    Raises:
        Damaged: a row is not what was written.
        IndexUnfit, PacksMissing: it is not the index of the packs beside it.
    """
    target.index_copy.mkdir(FOLDER_MODE)
    read, write = disk.open_read(source.index_data), disk.create(target.index_copy / "data.mdb")
    try:
        offset = 0
        while data := disk.read(read, _BLOCK, offset):
            offset += disk.write(write, [data], offset)
    finally:
        disk.close(read)
        disk.close(write)
    index = Index(target.index_copy, settings)
    try:
        hold_together(source, read_manifest(source), index)
        return index.read(_proven_moment)
    finally:
        index.close()
        disk.unlink(target.index_copy / "lock.mdb")


def _moment(view: View) -> _Moment:
    return _Moment(view.packs(), view.number(JOURNAL_SEQ), view.count("lost"))


def _proven_moment(view: View) -> _Moment:
    for table, several in TABLES.items():
        if not several:
            view.prove(table)
    return _moment(view)


def _clear(target: Layout) -> None:
    """Remove what a copy of the index that was cut off left behind."""
    with suppress(FileNotFoundError):
        shutil.rmtree(target.index_copy)
