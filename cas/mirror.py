"""Packs copied from one store's folder to another: only what is missing there, proven on its way, durable at its end.

Layer: L5. A pack never changes below its committed length, so a copy of it can only be too short. What is new is
written beside its name and renamed once it is durable: a file that has the name is good as far as it goes. A pack that
grew since the last copy is written on in place; how much of it was good before stands in the diary first, since after a
kill its length says nothing. Knows neither why packs are copied nor what the index says of them beyond their rows.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Self

from cas.errors import Occupied
from cas.proof import doubtful
from cas.records import HEADER_SIZE
from cas.root import FOLDER_MODE
from cas.scan import flaws, pack_paths, scan_pack
from cas.tables import PackState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from cas.digest import Digest
    from cas.disk import Disk
    from cas.layout import Layout
    from cas.tables import PackRow

    Progress = Callable[[int, int], None]  # (bytes done, bytes in all)

_BLOCK = 4 << 20
_UNFINISHED = ".tmp"
FORMAT = 1


@dataclass(slots=True)
class CopyReport:
    """What a copy of a store consists of, and what had to be done for it. Sizes in bytes.

    Attributes:
        packs, pack_bytes: packs in the copy, and their sizes.
        copied_bytes: of them, what was not there yet.
        index_bytes: size of the index, which is copied whole every time.
        removed: packs of an earlier copy that are not needed any more.
        damaged: what is wrong with what was copied; it was copied all the same.
        lost: blobs that the store has lost, and the copy does not have either.
        kept: blobs that the store has lost, and the copy goes on having.
    """

    packs: int = 0
    pack_bytes: int = 0
    copied_bytes: int = 0
    index_bytes: int = 0
    removed: int = 0
    damaged: list[str] = field(default_factory=list)
    lost: list[Digest] = field(default_factory=list)
    kept: list[Digest] = field(default_factory=list)


@dataclass(slots=True)
class Diary:
    """What a folder has to remember between copies.

    Attributes:
        store: whose copy it is.
        changes: numbers of the last change of names in the copy; two while one index takes the other's place.
        growing: packs being written on in place, and how far each of them was good before.
        restores: whether the copy is to be a store, and no backup; then this goes when it is one.
    """

    store: str
    changes: list[int] = field(default_factory=list)
    growing: dict[str, int] = field(default_factory=dict)
    restores: bool = False
    format: int = FORMAT

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Return a folder's diary; None if it has none.

        Raises:
            Occupied: it has one that this version does not understand.
        """
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


@dataclass(frozen=True, slots=True)
class _Piece:
    """What is to be copied of a pack: bytes `[have, want)`."""

    row: PackRow
    have: int
    want: int


class Mirror:
    """The packs of one folder on their way to another."""

    def __init__(self, source: Layout, target: Layout, disk: Disk, diary: Diary) -> None:
        self._source, self._target, self._disk, self._diary = source, target, disk, diary

    def copy(self, rows: Sequence[PackRow], report: CopyReport, progress: Progress) -> None:
        """Copy what these rows stand for and is not there yet, durably.

        Raises:
            NoSpace, DiskFailed: what is there is of use to the next copy; nothing that was there is spoilt.
        """
        for path in self._target.packs.glob(f"*/*{_UNFINISHED}"):
            self._disk.unlink(path)  # of a copy that was cut off
        named = [row for row in rows if row.state is not PackState.DYING and row.committed]
        plan = [self._piece(row) for row in named]
        self._diary.growing = {_name(piece): piece.have for piece in plan if 0 < piece.have < piece.want}
        self._diary.write(self._target.diary, self._disk)
        report.packs, report.pack_bytes = len(plan), sum(piece.want for piece in plan)
        total = sum(piece.want - piece.have for piece in plan)
        progress(0, total)
        for piece in plan:
            if piece.have < piece.want:
                self._bring(piece, report)
                report.copied_bytes += piece.want - piece.have
                progress(report.copied_bytes, total)
            elif self._diary.restores:  # nobody was told what the call that was cut off found there
                report.damaged += rot(self._target.pack(piece.row.pack), piece.row, self._disk)
        for folder in {self._target.pack(row.pack).parent for row in named} | {self._target.packs}:
            if folder.is_dir():
                self._disk.sync_folder(folder)

    def keep(self, rows: Sequence[PackRow], report: CopyReport) -> None:
        """Count packs that are in this folder alone, and are to stay."""
        for row in rows:
            path = self._target.pack(row.pack)
            if not path.exists():
                report.damaged.append(f"pack {row.pack:016x} is missing in the copy, which alone had it")
                continue
            report.packs += 1
            report.pack_bytes += path.stat().st_size

    def remove_others(self, rows: Sequence[PackRow], report: CopyReport) -> None:
        """Remove packs that these rows do not name."""
        named = {row.pack for row in rows if row.state is not PackState.DYING}
        for pack, path in list(pack_paths(self._target)):
            if pack not in named:
                self._disk.unlink(path)
                report.removed += 1

    def _piece(self, row: PackRow) -> _Piece:
        path, want = self._target.pack(row.pack), row.committed
        have = path.stat().st_size if path.exists() else 0
        have = min(self._diary.growing.get(path.name, have), have)
        return _Piece(row, have if HEADER_SIZE <= have <= want else 0, want)

    def _bring(self, piece: _Piece, report: CopyReport) -> None:
        path = self._target.pack(piece.row.pack)
        try:
            source = self._disk.open_read(self._source.pack(piece.row.pack))
        except FileNotFoundError:
            report.damaged.append(f"pack {piece.row.pack:016x} is missing, and so it is in the copy")
            return
        unfinished = path if piece.have else path.with_name(path.name + _UNFINISHED)
        try:
            self._write(source, piece, unfinished)
        finally:
            self._disk.close(source)
        report.damaged += rot(unfinished, piece.row, self._disk)
        if unfinished != path:
            self._disk.rename(unfinished, path)

    def _write(self, source: int, piece: _Piece, path: Path) -> None:
        path.parent.mkdir(FOLDER_MODE, parents=True, exist_ok=True)
        if not piece.have:
            self._disk.unlink(path)
        target = self._disk.open_write(path) if piece.have else self._disk.create(path)
        try:
            self._disk.truncate(target, piece.have)
            for offset in range(piece.have, piece.want, _BLOCK):
                data = self._disk.read(source, min(_BLOCK, piece.want - offset), offset)
                self._disk.write(target, [data], offset)
            self._disk.sync(target)
            if piece.row.state is PackState.SEALED and self._disk.size(target) == piece.want:
                self._disk.seal(target)
        finally:
            self._disk.close(target)


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


def rot(path: Path, row: PackRow, disk: Disk) -> list[str]:
    """Return what is wrong with a pack's bytes up to its committed length; nothing if all is well.

    Every record counts, and every chunk that one lists, whoever needs it: a rebuild from these bytes would rely on it.
    """
    size = path.stat().st_size
    if size < row.committed or size < HEADER_SIZE:
        return [f"pack {row.pack:016x} ends at byte {size} instead of {row.committed}"]
    return [f"pack {row.pack:016x}: {what}" for what in _faults(path, row, disk)]


def _faults(path: Path, row: PackRow, disk: Disk) -> Iterator[str]:
    scan = scan_pack(row.pack, path, proves=False)
    yield from flaws(scan, row)
    fd = disk.open_read(path)
    try:
        entries = [entry for record in scan.records for entry in record.body.chunks]
        for entry in doubtful(entries, lambda size, offset: disk.read(fd, size, offset)):
            yield f"the chunk at byte {entry.offset} ({entry.stored} bytes) is damaged"
    finally:
        disk.close(fd)


def _name(piece: _Piece) -> str:
    return f"{piece.row.pack:016x}.pack"
