"""Packs copied from one store's folder to another: only what is missing there, proven on its way, durable at its end.

Layer: L5. A pack never changes below its committed length, so a copy of it can only be too short. What is new is
written beside its name and renamed once it is durable: a file that has the name is as good as it was in the store. A
pack that grew since the last copy is written on in place; how much of it was good before stands in the diary first,
since after a kill its length says nothing. So does which packs are damaged: they are looked at again by every copy, and
made anew as soon as that makes them better. Knows neither why packs are copied nor what the index says of them beyond
their rows.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import xxhash

from cas.disk import make_folder
from cas.errors import Damaged, DiskFailed, NoSpace
from cas.extent import Codec
from cas.files import file_size
from cas.layout import pack_id, pack_name
from cas.proof import doubtful
from cas.records import HEADER_SIZE, Role
from cas.root import FOLDER_MODE
from cas.scan import extent_of, flaws, pack_paths, scan_pack
from cas.tables import CHUNK_KEY, PackState

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from cas.codec import ChunkCodec
    from cas.diary import Diary
    from cas.digest import Digest
    from cas.disk import Disk
    from cas.extent import Extent
    from cas.layout import Layout
    from cas.records import ChunkRef
    from cas.tables import PackRow

    Progress = Callable[[int, int], None]  # (bytes done, bytes in all)

_BLOCK = 4 << 20
_UNFINISHED = ".tmp"


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
        spoilt: blobs that stand on what is damaged, in the store and in the copy.
        spared: blobs that stand on what is damaged in the store, and that the copy goes on having whole.
    """

    packs: int = 0
    pack_bytes: int = 0
    copied_bytes: int = 0
    index_bytes: int = 0
    removed: int = 0
    damaged: list[str] = field(default_factory=list)
    lost: list[Digest] = field(default_factory=list)
    kept: list[Digest] = field(default_factory=list)
    spoilt: list[Digest] = field(default_factory=list)
    spared: list[Digest] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Rot:
    """What is wrong with a pack.

    Attributes:
        pack: its id.
        records: what is wrong with its header, records, footer or length, in words.
        chunks: those whose stored bytes have another checksum, by their ids, and where they lie.
    """

    pack: int
    records: tuple[str, ...] = ()
    chunks: Mapping[bytes, Extent] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether anything is."""
        return bool(self.records or self.chunks)

    def lines(self, without: Collection[bytes] = ()) -> list[str]:
        """Return all of it in words, but for these chunks."""
        places = [at for chunk, at in self.chunks.items() if chunk not in without]
        chunks = [f": the chunk at byte {at.offset} ({at.stored} bytes) is damaged" for at in places]
        return [f"pack {self.pack:016x}{what}" for what in (*self.records, *chunks)]


@dataclass(frozen=True, slots=True)
class _Piece:
    """What is to be copied of a pack: bytes `[have, want)`; what lies behind, of a copy that was cut off, goes."""

    row: PackRow
    have: int
    want: int
    is_longer: bool = False

    @property
    def name(self) -> str:
        return pack_name(self.row.pack)

    @property
    def is_there(self) -> bool:
        """Whether nothing is to be done."""
        return self.have == self.want and not self.is_longer


class Mirror:
    """The packs of one folder on their way to another.

    Attributes:
        source, target, disk, diary: from where, whereto, by which means, and what is noted there.
        known: the packs that the index in place there names.
        rotten: what is wrong with the packs that were copied, or were known to be damaged.
        doubted: the packs of which that is so in the folder that they came from, too.
    """

    def __init__(self, source: Layout, target: Layout, disk: Disk, diary: Diary, known: Collection[int]) -> None:
        self.source, self.target, self.disk, self.diary, self.known = source, target, disk, diary, known
        self.rotten: list[Rot] = []
        self.doubted: set[int] = set()

    def copy(self, rows: Sequence[PackRow], report: CopyReport, progress: Progress) -> None:
        """Copy what these rows stand for and is not there yet, durably.

        Raises:
            NoSpace, DiskFailed: what is there is of use to the next copy; nothing that was there is spoilt.
        """
        for path in self.target.packs.glob(f"*/*{_UNFINISHED}"):
            self.disk.unlink(path)  # of a copy that was cut off
        named = [row for row in rows if row.state is not PackState.DYING and row.committed]
        plan = [self._piece(row) for row in named]
        self._note_plan(plan)
        report.packs, report.pack_bytes = len(plan), sum(piece.want for piece in plan)
        total = sum(piece.want - piece.have for piece in plan)
        progress(0, total)
        for piece in plan:
            if not piece.is_there:
                self._bring(piece)
                report.copied_bytes += piece.want - piece.have
                progress(report.copied_bytes, total)
            elif self.diary.restores:  # nobody was told what the call that was cut off found there
                self._note(rot(self.target.pack(piece.row.pack), piece.row, self.disk))
            elif piece.name in self.diary.damaged:
                report.copied_bytes += self._mend(piece.row)
        for folder in {self.target.pack(row.pack).parent for row in named} | {self.target.packs}:
            if folder.is_dir():
                self.disk.sync_folder(folder)

    def damaged(self) -> list[str]:
        """Return the names of the packs that were found damaged, for the diary."""
        return [pack_name(rot.pack) for rot in self.rotten]

    def keep(self, rows: Sequence[PackRow], report: CopyReport) -> None:
        """Count packs that are in this folder alone, and are to stay."""
        for row in rows:
            path = self.target.pack(row.pack)
            if not path.is_file():
                report.damaged.append(f"pack {row.pack:016x} is missing in the copy, which alone had it")
                continue
            report.packs += 1
            report.pack_bytes += path.stat().st_size
            if path.name in self.diary.damaged:
                found = rot(path, row, self.disk)
                report.damaged += found.lines()
                self._note(found)

    def remove_others(self, rows: Sequence[PackRow], report: CopyReport) -> None:
        """Remove packs that these rows do not name."""
        named = {row.pack for row in rows if row.state is not PackState.DYING}
        for pack, path in list(pack_paths(self.target)):
            if pack not in named:
                self.disk.unlink(path)
                report.removed += 1

    def _piece(self, row: PackRow) -> _Piece:
        path, want = self.target.pack(row.pack), row.committed
        size = path.stat().st_size if path.is_file() else 0
        have = min(self.diary.growing.get(path.name, size), size)
        return _Piece(row, have if HEADER_SIZE <= have <= want else 0, want, is_longer=size > want)

    def _note_plan(self, plan: Sequence[_Piece]) -> None:
        """Note what is no part of a whole copy yet, nor may ever be: a store that went back wants other packs."""
        diary = self.diary
        diary.growing = {piece.name: piece.have for piece in plan if piece.have and not piece.is_there}
        if diary.changes:  # else there was no whole copy yet
            new = [piece for piece in plan if not piece.have and piece.row.pack not in self.known]
            diary.coming = sorted({*diary.coming, *(one.name for one in new if one.row.role is Role.JOURNAL)})
        diary.write(self.target.diary, self.disk)
        for pack in {pack_id(name) for name in diary.coming} - {piece.row.pack for piece in plan}:
            if pack is not None:
                self.disk.unlink(self.target.pack(pack))

    def _bring(self, piece: _Piece) -> None:
        """Copy what is missing of a pack; that it is damaged stands in the diary before it has its name."""
        path = self.target.pack(piece.row.pack)
        unfinished = path if piece.have else path.with_name(path.name + _UNFINISHED)
        try:
            self._fetch(piece, unfinished)
        except FileNotFoundError:
            self._note(Rot(piece.row.pack, (" is missing, and so it is in the copy",)))
            self.doubted.add(piece.row.pack)
            return
        is_damaged = bool(rot(unfinished, piece.row, self.disk))
        if is_damaged:
            self.diary.damaged.append(path.name)
            self.diary.write(self.target.diary, self.disk)
        if unfinished != path:
            self.disk.rename(unfinished, path)
        if is_damaged:
            self._mend(piece.row)

    def _mend(self, row: PackRow) -> int:
        """Look once more at a pack that may be damaged, and copy it anew if that makes it better and nothing worse.

        Returns:
            How many bytes were copied.
        """
        here, copied = rot(self.target.pack(row.pack), row, self.disk), 0
        there = self._rot_there(row) if here else None
        if there is not None and _is_better(there, here):
            with suppress(NoSpace):  # it is no worse than it was
                here, copied = self._anew(row, here), row.committed
        if there:
            self.doubted.add(row.pack)
        self._note(here)
        return copied

    def _anew(self, row: PackRow, here: Rot) -> Rot:
        """Copy a pack that is there, and let the copy take its place if that is better; return what is wrong then."""
        path = self.target.pack(row.pack)
        unfinished = path.with_name(path.name + _UNFINISHED)
        try:
            self._fetch(_Piece(row, 0, row.committed), unfinished)
            anew = rot(unfinished, row, self.disk)
            if not _is_better(anew, here):
                return here
            self.disk.rename(unfinished, path)
        finally:
            self.disk.unlink(unfinished)
        return anew

    def _rot_there(self, row: PackRow) -> Rot | None:
        """Return what is wrong with a pack where it came from; None if nobody can tell."""
        with suppress(FileNotFoundError, DiskFailed):
            return rot(self.source.pack(row.pack), row, self.disk)
        return None

    def _note(self, found: Rot) -> None:
        if found:
            self.rotten.append(found)

    def _fetch(self, piece: _Piece, path: Path) -> None:
        source = self.disk.open_read(self.source.pack(piece.row.pack))
        try:
            self._write(source, piece, path)
        finally:
            self.disk.close(source)

    def _write(self, source: int, piece: _Piece, path: Path) -> None:
        make_folder(path.parent, FOLDER_MODE)
        if not piece.have:
            self.disk.unlink(path)
        target = self._reopened(path) if piece.have else self.disk.create(path)
        try:
            self.disk.truncate(target, piece.have)
            for offset in range(piece.have, piece.want, _BLOCK):
                data = self.disk.read(source, min(_BLOCK, piece.want - offset), offset)
                self.disk.write(target, [data], offset)
            self.disk.sync(target)
            if piece.row.state is PackState.SEALED and self.disk.size(target) == piece.want:
                self.disk.seal(target)
        finally:
            self.disk.close(target)

    def _reopened(self, path: Path) -> int:
        """Open a pack that grows; a copy that was cut off may have come to its end, and taken the right to write."""
        fd = self.disk.open_read(path)
        try:
            self.disk.unseal(fd)
        finally:
            self.disk.close(fd)
        return self.disk.open_write(path)


def rot(path: Path, row: PackRow, disk: Disk) -> Rot:
    """Return what is wrong with a pack's bytes up to its committed length.

    Every record counts, and every chunk that one lists, whoever needs it: a rebuild from these bytes would rely on it.

    Raises:
        FileNotFoundError: there is no such file.
        Unreadable: the disk refused.
    """
    size = file_size(path)
    if size < row.committed or size < HEADER_SIZE:
        return Rot(row.pack, (f" ends at byte {size} instead of {row.committed}",))
    scan = scan_pack(row.pack, path, proves=False, names=False)
    entries = [entry for record in scan.records for entry in record.body.chunks]
    fd = disk.open_read(path)
    try:
        bad = list(doubtful(entries, lambda size, offset: disk.read(fd, size, offset)))
    finally:
        disk.close(fd)
    chunks = {CHUNK_KEY.pack(entry.key, entry.salt): extent_of(row.pack, entry) for entry in bad}
    return Rot(row.pack, tuple(f": {what}" for what in flaws(scan, row)), chunks)


class Prover:
    """Tells of chunks in one folder's packs whether their bytes are what was stored."""

    def __init__(self, layout: Layout, disk: Disk, codec: ChunkCodec) -> None:
        self._layout, self._disk, self._codec = layout, disk, codec
        self._sums: dict[int, dict[tuple[bytes, int], int]] = {}

    def __call__(self, ref: ChunkRef, extent: Extent) -> bool:
        """Whether a chunk lies there: by its checksum, or by its key where no good record has that."""
        try:
            checksum = self._sums_of(extent.pack).get((ref.key, ref.salt))
            data = self._read(extent)
            if checksum is not None:
                return xxhash.xxh3_64_intdigest(data) == checksum
            raw = data if extent.codec is Codec.RAW else self._codec.decode(data, extent.raw)
        except (FileNotFoundError, DiskFailed, Damaged):
            return False
        return xxhash.xxh3_128_digest(raw) == ref.key

    def _sums_of(self, pack: int) -> dict[tuple[bytes, int], int]:
        if pack not in self._sums:
            records = scan_pack(pack, self._layout.pack(pack), proves=False, names=False).records
            self._sums[pack] = {(one.key, one.salt): one.checksum for record in records for one in record.body.chunks}
        return self._sums[pack]

    def _read(self, extent: Extent) -> bytearray:
        fd = self._disk.open_read(self._layout.pack(extent.pack))
        try:
            return self._disk.read(fd, extent.stored, extent.offset)
        finally:
            self._disk.close(fd)


def _is_better(one: Rot, other: Rot) -> bool:
    """Whether less is wrong, and nothing that was right."""
    return set(one.lines()) < set(other.lines())
