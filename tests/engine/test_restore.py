"""What a restore found damaged the new store's scrub reads before all else (I3, I9), whatever its source knew of it."""

# ruff: noqa: SLF001 - damage is made inside, and what came of it looked at there

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cas import Depth, Digest, Missing, Store, restore
from cas.tables import DOUBTED
from tests.engine import test_backup_spared as spared
from tests.engine.test_backup import contents
from tests.engine.test_damage import chunks_of, spoil
from tests.engine.test_scrub import later, marks
from tests.support.ending import BreakingDisk, Ends, each_step
from tests.support.engine import KIB, MIB, SMALL, noise, opened, push, read

DATA = {"rotten": noise(MIB, 1), "sound": noise(300 * KIB, 2)}
ROTTEN = Digest.of(DATA["rotten"])
Damage = Callable[[Path], object]


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    """One whose packs were all read through before it was made."""
    for name, data in DATA.items():
        with opened(tmp_path / "root") as store:  # packs of their own
            push(store, name, data)
    with Store.open(tmp_path / "root", SMALL, clock=later) as store:
        assert list(store.check(Depth.DATA)) == []
        assert store.backup(tmp_path / "backup").damaged == []
    return tmp_path / "backup"


def pack_of(root: Path) -> int:
    with Store.open(root, SMALL) as store:
        return chunks_of(store, ROTTEN)[0][1].extent.pack


def rot(root: Path) -> None:
    with Store.open(root, SMALL) as store:
        spoil(store, root, chunks_of(store, ROTTEN)[0][1].extent)


def path_of(root: Path) -> Path:
    pack = pack_of(root)
    with Store.open(root, SMALL) as store:
        return store._parts.layout.pack(pack)


def cut_short(root: Path) -> None:
    path = path_of(root)
    path.chmod(0o640)
    path.write_bytes(path.read_bytes()[:-1000])


def take_away(root: Path) -> None:
    path_of(root).unlink()


def doubted(root: Path) -> set[int]:
    with Store.open(root, SMALL) as store:
        found = {pack for pack, when in marks(store).items() if when == DOUBTED}
        assert store.stats().doubted == len(found)
        return found


@pytest.mark.parametrize("damage", [rot, cut_short, take_away])
def test_what_a_restore_found_damaged_is_the_scrubs_next_work(backup: Path, tmp_path: Path, damage: Damage) -> None:
    """It is due at once and sets it aside; clients are told that it is missing, and push it anew."""
    new, pack = tmp_path / "new", pack_of(backup)
    damage(backup)
    assert any(f"pack {pack:016x}" in line for line in restore(backup, new, SMALL).damaged)
    assert doubted(new) == {pack}
    with Store.open(new, SMALL, clock=later) as store:
        assert store.is_scrub_due(1)
        assert [done.lost for done in store.scrub(1)] == [(ROTTEN,)]
        with pytest.raises(Missing):
            store.stat(ROTTEN)
        assert store.stats().doubted == 0
        push(store, "rotten", DATA["rotten"])
        assert read(store, ROTTEN) == DATA["rotten"]
        assert contents(store) == DATA
        assert list(store.check(Depth.DEEP)) == []


def test_the_folder_of_a_stopped_store_is_no_exception(backup: Path, tmp_path: Path) -> None:
    """What rotted there since it was last read is looked into here."""
    root, new = backup.with_name("root"), tmp_path / "new"
    rot(root)
    assert restore(root, new, SMALL).damaged
    assert doubted(new) == {pack_of(root)}


def test_what_is_sound_is_not_read_anew(backup: Path, tmp_path: Path) -> None:
    """It was read on the way: the marks say when that was where it came from, or later."""
    new = tmp_path / "new"
    assert restore(backup, new, SMALL).damaged == []
    assert doubted(new) == set()
    with Store.open(new, SMALL, clock=later) as store:
        assert store.stats().doubted == 0
        assert not store.is_scrub_due(1)


def test_what_nobody_relies_on_is_not_doubted(tmp_path: Path) -> None:
    """A backup that spared a blob has a damaged pack beside a whole one, and all is well."""
    root, backup, new = tmp_path / "root", tmp_path / "backup", tmp_path / "new"
    spared.fill(root, backup)
    with opened(root) as store:
        spared.move(store)
        pack = spared.rot(store)
        assert store.backup(backup).damaged
    assert not [line for line in restore(backup, new, SMALL).damaged if f"{pack:016x}" in line]
    assert doubted(new) == set()


def test_it_is_doubted_wherever_the_restore_was_cut_off(backup: Path, tmp_path: Path) -> None:
    """At each change of the disk in turn; whatever can be opened knows of it."""
    new, pack = tmp_path / "new", pack_of(backup)
    rot(backup)

    def work(disk: BreakingDisk) -> None:
        shutil.rmtree(new, ignore_errors=True)
        try:
            restore(backup, new, SMALL, disk=disk)
        except Ends:
            if (new / "store.json").exists():
                assert doubted(new) == {pack}
            restore(backup, new, SMALL)
            assert doubted(new) == {pack}
            raise

    assert each_step(work, Ends) > 10
