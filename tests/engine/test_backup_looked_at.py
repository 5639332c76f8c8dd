"""Looking at a backup spoils nothing (I2), and what a look found damaged there the next backup mends (I9)."""

# ruff: noqa: SLF001 - damage is made inside, and what is noted of it looked at there

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cas import Depth, Digest, Occupied, Store, rebuild_index
from cas.commit import JOURNAL_SEQ
from cas.diary import Diary
from cas.disk import Disk
from cas.layout import Layout
from cas.mirror import CopyReport
from cas.records import Role
from tests.engine import test_backup_lost as lost
from tests.engine.test_backup import contents, contents_of
from tests.engine.test_damage import chunks_of, spoil
from tests.support.ending import BreakingDisk, Ends, cut_off_backup, each_backup, each_step, use
from tests.support.engine import KIB, SMALL, flip, noise, opened, packs_of, prose, push, read

DATA = {"old": noise(300 * KIB, 1), "text": prose(200 * KIB, 2)}
OLD = Digest.of(DATA["old"])
STRANGE = {"packs"}  # of a copy that was cut off: the index that is to tell of them is not there yet


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A store with a backup in the folder `backup` beside it."""
    with opened(tmp_path / "root") as store:
        for name, data in DATA.items():
            push(store, name, data)
        store.backup(tmp_path / "backup")
    with opened(tmp_path / "root") as store:
        store.backup(tmp_path / "backup")  # the footers of its packs
    return tmp_path / "root"


@pytest.fixture
def backup(root: Path) -> Path:
    return root.with_name("backup")


def look(backup: Path) -> set[str]:
    """What `cas stats` and `cas fsck --data` do; return which checks found something."""
    with Store.open(backup, SMALL, reading=True) as store:
        store.stats()
        found = {finding.check for finding in store.check(Depth.DATA)}
        store.tick()
    return found


def test_a_look_at_a_backup_that_was_cut_off_leaves_it_one(root: Path, backup: Path) -> None:
    """At each change of the disk in turn: it is whole, of the old or the new moment, and the next call goes on."""
    first = backup.with_name("first")
    shutil.copytree(backup, first)
    with opened(root) as store:
        before = contents(store)
        push(store, "new", noise(200 * KIB, 7))
        after = contents(store)

        def work(disk: BreakingDisk) -> None:
            shutil.rmtree(backup)
            shutil.copytree(first, backup)
            try:
                use(store, disk)
                store.backup(backup)
            finally:
                for _ in range(2):
                    assert look(backup) <= STRANGE
                    with Store.open(backup, SMALL, reading=True) as copy:
                        assert copy.is_backup()
                        assert contents(copy) in (before, after)
                use(store, Disk())
                assert store.backup(backup).damaged == []
                assert contents_of(backup) == after

        assert each_step(work, Ends) > 10


def test_a_backup_that_was_cut_off_and_is_used_becomes_a_store(root: Path, backup: Path) -> None:
    """What the copy had brought of later changes never happened there, whatever its packs tell."""
    with opened(root) as store:
        push(store, "new", noise(200 * KIB, 7))
        cut_off_backup(store, backup)
        look(backup)
        with Store.open(backup, SMALL) as serving:
            push(serving, "own", b"own")
            assert not serving.is_backup()
        with pytest.raises(Occupied, match="changes of its own"):
            store.backup(backup)
    rebuild_index(backup, SMALL, force=True)
    assert contents_of(backup) == {**DATA, "own": b"own"}


def test_what_a_look_notes_in_a_backup_that_was_cut_off_is_no_change_of_names(root: Path, backup: Path) -> None:
    """Nor is the number that the cut off copy had reserved stepped over for it."""
    with opened(root) as store:
        push(store, "new", noise(200 * KIB, 7))
        cut_off_backup(store, backup)
        with Store.open(backup, SMALL, reading=True) as copy:
            number = copy._parts.index.read(lambda view: view.number(JOURNAL_SEQ))
            assert Layout(backup).journal_cell.stat().st_size
            spoil(copy, backup, chunks_of(copy, OLD)[0][1].extent)
        assert look(backup) - STRANGE == {"chunks"}
        with Store.open(backup, SMALL, reading=True) as copy:
            assert copy.stats().doubted == 1
            assert copy._parts.index.read(lambda view: view.number(JOURNAL_SEQ)) == number
        assert store.backup(backup).damaged == []
        assert contents_of(backup) == contents(store)


def rot(backup: Path) -> None:
    with Store.open(backup, SMALL, reading=True) as copy:
        spoil(copy, backup, chunks_of(copy, OLD)[0][1].extent)


def rot_in_journal(backup: Path) -> None:
    flip(packs_of(backup, Role.JOURNAL)[0], 150)


def cut_short(backup: Path) -> None:
    path = max(packs_of(backup), key=lambda each: each.stat().st_size)
    path.chmod(0o640)
    path.write_bytes(path.read_bytes()[:-1000])


def take_away(backup: Path) -> None:
    max(packs_of(backup), key=lambda each: each.stat().st_size).unlink()


@pytest.mark.parametrize("damage", [rot, rot_in_journal, cut_short, take_away])
def test_what_a_check_of_a_backup_found_the_next_backup_mends(
    damage: Callable[[Path], None], root: Path, backup: Path
) -> None:
    """It is copied anew from the store, once; a check finds nothing any more, and the packs alone prove it."""
    damage(backup)
    assert look(backup)
    with opened(root) as store:
        report = store.backup(backup)
        assert report.damaged == []
        assert report.copied_bytes
        assert look(backup) == set()
        assert store.backup(backup).copied_bytes == 0
        assert contents_of(backup) == contents(store)
        assert store.stats().doubted == 0
    assert rebuild_index(backup, SMALL, force=True).damaged == []
    assert contents_of(backup) == DATA


@pytest.mark.usefixtures("unsynced")
def test_what_a_check_found_is_mended_by_whichever_backup_gets_done(root: Path, backup: Path) -> None:
    """At each change of the disk in turn: those that are ended do not forget it."""
    rot(backup)
    assert look(backup) == {"chunks"}
    first = backup.with_name("first")
    backup.rename(first)

    with opened(root) as store:
        push(store, "new", noise(50 * KIB, 7))

        def is_there(left: Path) -> None:
            with Store.open(left, SMALL, reading=True) as copy:
                assert read(copy, Digest.of(DATA["text"])) == DATA["text"]

        def is_whole(report: CopyReport, backup: Path) -> None:
            assert report.damaged == []
            assert look(backup) == set()

        each_backup(store, first, Ends, left=is_there, done=is_whole)


def test_what_has_rotted_in_both_is_named_until_it_is_mended(root: Path, backup: Path) -> None:
    """Nothing is copied that would make it no better; the store's scrub is told, and DEST goes on being looked at."""
    rot(backup)
    look(backup)
    with opened(root) as store:
        extent = chunks_of(store, OLD)[0][1].extent
        spoil(store, root, extent)
        for _ in range(2):
            report = store.backup(backup)
            assert (len(report.damaged), report.copied_bytes, report.spoilt) == (1, 0, [OLD])
            assert store.stats().doubted == 1
        spoil(store, root, extent)  # the same bit once more
        assert store.backup(backup).damaged == []
    assert look(backup) == set()


def test_damage_in_what_the_backup_alone_has_is_named(tmp_path: Path) -> None:
    """Whoever reads that the backup has it still must know; there is nothing to copy it from."""
    root, backup = tmp_path / "root", tmp_path / "backup"
    lost.fill(root, backup)
    with opened(root) as store:
        lost.rot(store)
        store.backup(backup)
        (alone,) = {path.name for path in packs_of(backup)} - {path.name for path in packs_of(root)}
        with Store.open(backup, SMALL, reading=True) as copy:
            places = [row.extent for _, row in chunks_of(copy, lost.LOST[0])]
            spoil(copy, backup, next(one for one in places if f"{one.pack:016x}.pack" == alone))
        assert look(backup) == {"chunks"}
        for _ in range(2):
            (line,) = store.backup(backup).damaged
            assert line.startswith(f"pack {alone.removesuffix('.pack')}: ")


def test_a_repair_of_the_packs_of_a_backup_is_no_change_of_names(root: Path, backup: Path) -> None:
    """It sets aside there, and the next backup brings what is missing since."""
    rot(backup)
    with Store.open(backup, SMALL) as copy:
        assert copy.repair(Depth.DATA).lost == (OLD,)
    with opened(root) as store:
        assert store.backup(backup).damaged == []
        assert contents_of(backup) == contents(store)
    assert look(backup) == set()
    diary = Diary.read(Layout(backup).diary)
    assert diary is not None
    assert diary.damaged == []
