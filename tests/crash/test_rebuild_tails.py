"""Records that a power cut left and nobody was told of count for nothing in a rebuild, and are no damage (I2, I4)."""

# ruff: noqa: SLF001 - what a promise rests on is looked at inside, not only from the front

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cas import Depth, Digest, Name, Store, rebuild_index, restore
from cas.disk import Disk
from cas.records import RECORD_SIZE, Role
from cas.scan import scan_pack
from tests.support.dump import differences, dump
from tests.support.engine import KIB, SMALL, flip, noise, opened, packs_of, prose, push, read
from tests.support.powercut import ForgetfulDisk, PowerCut, pull_the_plug

KEPT = prose(200 * KIB, 1)


class Garbling(ForgetfulDisk):
    """Of what was not synced, all came to the disk but for a stretch that the test chooses."""

    def __init__(self, stretch: Callable[[Path], tuple[int, int]]) -> None:
        super().__init__(1)
        self._stretch = stretch
        self.garbled: list[Path] = []

    def cut(self) -> None:
        for file in (*self._past, *self._files.values()):
            if file.path.suffix == ".pack" and file.path.exists() and file.path.stat().st_size > file.synced:
                start, end = self._stretch(file.path)
                assert file.synced <= start < end
                with file.path.open("r+b") as raw:
                    raw.seek(start)
                    raw.write(bytes(end - start))
                self.garbled.append(file.path)
                file.synced = file.path.stat().st_size
        super().cut()


def data_of_last(path: Path) -> tuple[int, int]:
    """The chunks of a pack's last record."""
    entry = scan_pack(1, path).records[-1].body.chunks[0]
    return entry.offset, entry.offset + entry.stored


def second_record(path: Path) -> tuple[int, int]:
    """The second record, with its head."""
    record = scan_pack(1, path).records[1]
    return record.offset, record.end


def cut_off(root: Path, disk: Garbling, prepare: Callable[[Store], object], work: Callable[[Store], object]) -> Path:
    """Cut the power at the sync that ends some work; return the pack that lost a stretch by it."""
    store = Store.open(root, SMALL, create=True, disk=disk)
    prepare(store)
    disk.cut_at, disk.cut_after = "sync", 0
    with pytest.raises(PowerCut):
        work(store)
    pull_the_plug(store, disk)
    [path] = disk.garbled
    return path


def assert_sound(root: Path, folder: Path) -> None:
    """Neither a check, nor a backup, nor what is restored of it knows of damage; nor does its own rebuild."""
    with opened(root) as store:
        assert list(store.check(Depth.DEEP)) == []
        before = dump(store)
        assert store.backup(folder / "copy").damaged == []
    assert restore(folder / "copy", folder / "new", SMALL).damaged == []
    for again in (False, True):
        if again:
            shutil.rmtree(folder / "new" / "index")
            assert rebuild_index(folder / "new", SMALL).damaged == []
        with opened(folder / "new") as store:
            assert differences(before, dump(store)) == []
            assert list(store.check(Depth.DEEP)) == []
            assert read(store, Digest.of(KEPT)) == KEPT


def rebuild(root: Path) -> list[str]:
    shutil.rmtree(root / "index")
    return rebuild_index(root, SMALL).damaged


def test_a_record_that_outlived_its_data_is_no_damage(tmp_path: Path) -> None:
    """A push was cut off: its record reached the disk and its chunks did not. Nobody was told that they are safe."""
    root = tmp_path / "root"
    path = cut_off(
        root, Garbling(data_of_last), lambda s: push(s, "kept", KEPT), lambda s: push(s, "x", noise(60 * KIB))
    )
    assert len(scan_pack(1, path, proves=False).records) > len([r for r in scan_pack(1, path).records if r.body.chunks])
    assert rebuild(root) == []
    assert_sound(root, tmp_path)


@pytest.mark.parametrize(
    ("role", "stretch"), [(Role.DATA, second_record), (Role.DATA, data_of_last), (Role.JOURNAL, second_record)]
)
def test_a_new_pack_that_compaction_did_not_finish_is_no_damage(
    tmp_path: Path, role: Role, stretch: Callable[[Path], tuple[int, int]]
) -> None:
    """A record in its middle is gone, or a chunk. All that it was to hold lies where it came from."""

    def prepare(store: Store) -> None:
        push(store, "kept", KEPT)
        for number in range(4):
            push(store, f"noise {number}", noise(40 * KIB, number))
            push(store, f"gone {number}", noise(30 * KIB, 10 + number))
        for number in range(4):
            store.change(lambda names, n=number: names.delete(Name("thing", f"gone {n}")))  # type: ignore[misc]
        store.collect()

    root = tmp_path / "root"
    disk = Garbling(stretch)
    store = Store.open(root, SMALL, create=True, disk=disk)
    prepare(store)
    create = store._parts.packs.create

    def making(made: Role) -> object:
        writer = create(made)
        if made is role and disk.cut_after is None:
            disk.cut_at, disk.cut_after = "sync", 0
        return writer

    store._parts.packs.create = making  # type: ignore[method-assign, assignment]
    with pytest.raises(PowerCut):
        store.compact(everything=True)
    pull_the_plug(store, disk)
    assert len(disk.garbled) == 1
    assert rebuild(root) == []
    assert_sound(root, tmp_path)


def test_what_was_acknowledged_behind_rot_is_still_counted(tmp_path: Path) -> None:
    """A record in the middle of an open pack rots: the copy has what follows it, and says what is damaged."""
    root = tmp_path / "root"
    store = Store.open(root, SMALL, create=True, disk=(disk := ForgetfulDisk(1)))
    push(store, "rots", noise(40 * KIB, 1))
    push(store, "kept", KEPT)
    pull_the_plug(store, disk)
    path = max(packs_of(root), key=lambda each: each.stat().st_size)
    flip(path, scan_pack(1, path).records[0].offset + RECORD_SIZE + 9)
    assert rebuild(root) != []
    with opened(root) as store:
        assert {finding.check for finding in store.check(Depth.DEEP)} >= {"lost"}
        damaged = store.backup(tmp_path / "copy").damaged
        assert damaged
        assert all(path.stem in line for line in damaged)
    restore(tmp_path / "copy", tmp_path / "new", SMALL)
    for again in (False, True):
        if again:
            rebuild(tmp_path / "new")
        with opened(tmp_path / "new") as store:
            assert read(store, Digest.of(KEPT)) == KEPT


def test_what_a_rebuild_enters_is_durable_first(tmp_path: Path) -> None:
    """A killed process leaves bytes in memory that nobody synced; who is told of them later relies on them (I1)."""
    synced: list[int] = []

    class Watching(Disk):
        def sync(self, fd: int) -> None:
            synced.append(self.inode(fd))
            super().sync(fd)

        @staticmethod
        def inode(fd: int) -> int:
            return Path(f"/proc/self/fd/{fd}").stat().st_ino

    with opened(tmp_path / "open") as store:
        push(store, "kept", KEPT)
        shutil.copytree(tmp_path / "open", tmp_path / "root")
    shutil.rmtree(tmp_path / "root" / "index")
    rebuild_index(tmp_path / "root", SMALL, disk=Watching())
    assert {path.stat().st_ino for path in packs_of(tmp_path / "root")} <= set(synced)
