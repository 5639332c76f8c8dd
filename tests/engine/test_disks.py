"""A store whose folders lie on several disks: each has room or has not, and no file is renamed from one to another."""

# ruff: noqa: SLF001 - what a promise rests on is looked at inside, not only from the front

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cas import DiskFailed, Name, NoSpace, Record, Store
from cas.config import EngineSettings
from cas.disk import Disk
from tests.support.engine import KIB, MIB, SMALL, noise, push, read

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
