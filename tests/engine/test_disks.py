"""A store whose folders lie on several disks: each has room or has not, and no file is renamed from one to another."""

# ruff: noqa: SLF001 - what a promise rests on is looked at inside, not only from the front

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from cas import (
    Depth,
    DiskFailed,
    Name,
    NoSpace,
    PacksMissing,
    Record,
    RootReadOnly,
    Store,
    UnsafeFilesystem,
    rebuild_index,
)
from cas.config import EngineSettings
from cas.disk import Disk, refusals
from cas.moving import put_by
from cas.records import Role
from cas.root import find
from tests.support.engine import KIB, MIB, SMALL, flip, noise, packs_of, push, read

GIB = 1 << 30
RESERVED = replace(SMALL, reserve_share=0.05, reserve_bytes=MIB)


class Disks(Disk):
    """Two disks of a size each, as the filesystem tells it: that of `packs/`, and that of all the rest of a root."""

    def __init__(self, root: Path, *, packs: int = GIB, rest: int = GIB) -> None:
        super().__init__()
        self._packs = root / "packs"
        self.sizes = {True: packs, False: rest}
        self.full: bool | None = None

    def free_bytes(self, path: Path) -> tuple[int, int]:
        """Tell of the disk that this path lies on."""
        there = path.is_relative_to(self._packs)
        return 0 if there is self.full else self.sizes[there], self.sizes[there]


class Apart(Disk):
    """The real disk, as if `packs/` were another one."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self._packs = root / "packs"

    def rename_new(self, path: Path, to: Path) -> bool:
        """Refuse as the kernel does."""
        if path.is_relative_to(self._packs) != to.is_relative_to(self._packs):
            with refusals(f"rename {path.name}"):
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        return super().rename_new(path, to)


def aside(root: Path) -> dict[str, bytes]:
    """What was set aside, where packs lie on a disk of their own."""
    assert not list((root / "quarantine").glob("*"))
    return {path.name: path.read_bytes() for path in (root / "packs" / "quarantine").iterdir()}


def note(store: Store) -> None:
    """A change of names that brings a few bytes."""
    store.change(lambda names: names.put(Name("note", "small"), Record(b"more")))


def begin_session(store: Store) -> None:
    """A resumable upload of few bytes."""
    with store.resume(1) as upload:
        upload.write(b"more")
        upload.suspend()


@pytest.mark.parametrize("there", [True, False], ids=["packs", "the rest"])
@pytest.mark.parametrize(
    "grow", [note, begin_session, lambda store: push(store, "more", noise(MIB, 1)), Store.check_ready]
)
def test_either_disk_that_is_full_refuses_what_grows(
    grow: Callable[[Store], object], tmp_path: Path, *, there: bool
) -> None:
    """It says which; what was there is read, and names go, also while it is full."""
    disk = Disks(tmp_path)
    with Store.open(tmp_path, RESERVED, create=True, disk=disk) as store:
        kept = push(store, "kept", noise(MIB))
        disk.full = there
        with pytest.raises(NoSpace, match="free for packs/" if there else "free for index/"):
            grow(store)
        assert read(store, kept) == noise(MIB)
        assert store.change(lambda names: names.delete(Name("thing", "kept")), frees=True)
        disk.full = None
        grow(store)


def test_packs_fit_into_what_is_kept_free_of_their_own_disk(tmp_path: Path) -> None:
    """And not of the one that the rest lies on: what lives of a pack is copied there before the pack can go."""
    settings, packs = EngineSettings(), 100 * MIB
    with Store.open(tmp_path, settings, create=True, disk=Disks(tmp_path, packs=packs, rest=1 << 40)) as store:
        assert store._parts.settings == settings.fitted(packs)
        assert store._parts.settings.pack_bytes < settings.reserve(packs)


def test_a_collection_asks_the_disk_of_the_packs_for_room(tmp_path: Path) -> None:
    """A full one keeps packs where they are, with the reason; a full one elsewhere does not."""
    disk = Disks(tmp_path)
    with Store.open(tmp_path, SMALL, create=True, disk=disk) as store:
        kept = push(store, "kept", noise(100 * KIB))
        push(store, "gone", noise(300 * KIB, 1))
        store.change(lambda names: names.delete(Name("thing", "gone")), frees=True)
        store.collect()
        disk.full = True
        assert any("0 are free" in why for why in store.compact(everything=True).left)
        disk.full = False
        report = store.compact(everything=True)
        assert (report.left, report.freed_bytes > 250 * KIB) == ([], True)
        assert read(store, kept) == noise(100 * KIB)


def test_a_folder_that_was_moved_away_takes_no_more(tmp_path: Path) -> None:
    """Nobody knows how much room there is, and it is said which folder that is."""
    with Store.open(tmp_path, SMALL, create=True) as store:
        note(store)
        (tmp_path / "index").rename(tmp_path / "elsewhere")
        with pytest.raises(DiskFailed, match="index/ was moved away"):
            push(store, "more", noise(MIB))
        (tmp_path / "elsewhere").rename(tmp_path / "index")
        push(store, "more", noise(MIB))


@pytest.mark.parametrize("is_scrub", [False, True], ids=["repair", "scrub"])
def test_a_damaged_pack_is_set_aside_on_its_own_disk(tmp_path: Path, *, is_scrub: bool) -> None:
    """In one step as ever, and not by a copy, for which there may be no room; a push heals what was lost."""
    with Store.open(tmp_path, SMALL, create=True, disk=Apart(tmp_path)) as store:
        lost = push(store, "lost", noise(MIB))
    path = packs_of(tmp_path, Role.DATA)[0]
    flip(path, 1000)  # in a chunk, and in no record
    bad = path.read_bytes()
    with Store.open(tmp_path, SMALL, disk=Apart(tmp_path)) as store:
        if is_scrub:
            assert [done.left for done in store.scrub(2.0**40)] == [""]
        else:
            assert store.repair().left == ()
        assert aside(tmp_path) == {path.name: bad}
        assert store.stats().lost == 1
        push(store, "lost", noise(MIB))
        assert read(store, lost) == noise(MIB)
        assert list(store.check(Depth.DEEP)) == []
    with Store.open(tmp_path, SMALL, disk=Apart(tmp_path)) as store:
        assert store.compact().left == []  # what was set aside is no pack any more
    assert rebuild_index(tmp_path, SMALL, force=True).damaged == []
    assert aside(tmp_path) == {path.name: bad}


def test_a_collection_sets_aside_what_the_index_does_not_know_and_replaces_nothing(tmp_path: Path) -> None:
    """On another disk as on one; a file that could not be moved ended each collection."""
    stray = tmp_path / "packs" / "ab" / "ab00000000000000.pack"
    with Store.open(tmp_path, SMALL, create=True, disk=Apart(tmp_path)) as store:
        push(store, "kept", noise(MIB))
        for content in (b"one", b"two"):
            stray.write_bytes(content)
            assert len(store.compact().left) == 1
        usage = store.usage({}, 0)
        assert usage.disk == sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert aside(tmp_path) == {stray.name: b"one", f"{stray.stem}-2.pack": b"two"}


def test_a_store_opens_whose_pack_was_just_set_aside(tmp_path: Path) -> None:
    """A repair may end between the file, on whichever disk that is, and its row."""
    with Store.open(tmp_path, SMALL, create=True) as store:
        push(store, "lost", noise(MIB))
    with Store.open(tmp_path, SMALL, disk=Apart(tmp_path)) as store:
        for path in packs_of(tmp_path):
            put_by(store._parts, int(path.stem, 16))
    with Store.open(tmp_path, SMALL) as store:
        assert store.stats().doubted > 0


def test_what_else_keeps_a_pack_where_it_is_is_said(tmp_path: Path) -> None:
    """A disk that refuses is no other disk."""

    class Refusing(Disk):
        def rename_new(self, path: Path, to: Path) -> bool:
            raise DiskFailed("planted")

    with Store.open(tmp_path, SMALL, create=True, disk=Refusing()) as store:
        push(store, "kept", noise(MIB))
        (path, *_) = packs_of(tmp_path)
        with pytest.raises(DiskFailed, match="planted"):
            put_by(store._parts, int(path.stem, 16))
        assert path.exists()


def test_packs_behind_a_link_are_counted(tmp_path: Path) -> None:
    """All lines sum up to the disk, or rather to both of them."""
    root, other = tmp_path / "root", tmp_path / "other"
    for folder in (root, other):
        folder.mkdir()
    (root / "packs").symlink_to(other)
    with Store.open(root, SMALL, create=True) as store:
        push(store, "kept", noise(MIB))
        usage = store.usage({}, 0)
        assert usage.disk == sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.parametrize("reading", [False, True], ids=["writing", "reading"])
@pytest.mark.parametrize("where", ["mount point", "link", "link to nothing", "nothing"])
def test_nothing_is_made_where_the_disk_of_the_packs_is_not_mounted(
    tmp_path: Path, where: str, *, reading: bool
) -> None:
    """Neither in what lies below it, nor elsewhere; mounted, it is the store that it was."""
    root, disk, below = tmp_path / "root", tmp_path / "disk", tmp_path / "below"
    with Store.open(root, SMALL, create=True) as store:
        kept = push(store, "kept", noise(MIB))
    packs = root / "packs"
    packs.rename(disk)
    if where == "mount point":
        packs.mkdir()
    elif where != "nothing":
        packs.symlink_to(below)
    if where == "link":
        below.mkdir()
    before = set(tmp_path.rglob("*"))
    is_none = where == "link to nothing"
    why = "mount the disk that it leads to" if is_none else "nothing was changed. If .* mount it"
    with pytest.raises(RootReadOnly if is_none else PacksMissing, match=why):
        Store.open(root, SMALL, reading=reading)
    assert set(tmp_path.rglob("*")) == before
    if where == "mount point":
        packs.rmdir()
    packs.unlink(missing_ok=True)
    packs.symlink_to(disk)
    with Store.open(root, SMALL) as store:
        assert read(store, kept) == noise(MIB)


def test_packs_on_a_network_are_refused(tmp_path: Path) -> None:
    """As a root there is, with the folder that it is about."""
    Store.open(tmp_path, SMALL, create=True).close()
    with pytest.raises(UnsafeFilesystem, match=f"{tmp_path}/packs lies on a network filesystem"):
        find(tmp_path, create=False, disk=Disk(), filesystem=lambda path: "nfs" if path.name == "packs" else "ext4")


def test_packs_on_a_mount_that_is_read_only_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, and not by each push."""
    Store.open(tmp_path, SMALL, create=True).close()
    flags = {tmp_path: 0, tmp_path / "packs": os.ST_RDONLY}
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_flag=flags[path]))
    with pytest.raises(RootReadOnly, match=f"{tmp_path}/packs lies on a mount.*that is read-only"):
        Store.open(tmp_path, SMALL)
