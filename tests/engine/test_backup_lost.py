"""A backup keeps what its store has lost (I1, I9): no way of bringing it up to date takes the last good bytes away."""

# ruff: noqa: SLF001 - what a promise rests on is looked at inside, not only from the front

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cas import Damaged, Depth, Digest, Name, Names, Store, rebuild_index, restore
from cas.mirror import CopyReport
from cas.tables import ChunkState
from tests.engine.test_backup import contents, contents_of
from tests.engine.test_damage import chunks_of, spoil
from tests.support.ending import Ends, each_backup
from tests.support.engine import KIB, SMALL, flip, noise, opened, packs_of, prose, push, read

COMMON = prose(600 * KIB)
DATA = {
    "beside": noise(60 * KIB, 4),  # in the pack of what is damaged, and moved out of it
    "one": COMMON + noise(300 * KIB, 1),
    "two": COMMON + noise(300 * KIB, 2),
    "other": noise(500 * KIB, 3),
}
LOST = [Digest.of(DATA["one"]), Digest.of(DATA["two"])]


def rot(store: Store) -> None:
    """Damage what `one` and `two` have in common, wherever it lies, and let repair set it aside."""
    ref, _ = chunks_of(store, LOST[0])[0]
    for row in store._parts.index.read(lambda view: view.chunks([ref.key]))[0]:
        if row.state is ChunkState.GOOD:
            spoil(store, store._parts.layout.root, row.extent)
    assert set(store.repair(Depth.DATA).lost) == set(LOST)


def fill(root: Path, backup: Path) -> None:
    with opened(root) as store:
        for name, data in DATA.items():
            push(store, name, data)
        assert told(store.backup(backup)) == ([], [], [])


def told(report: CopyReport) -> tuple[list[str], list[Digest], list[Digest]]:
    return report.damaged, sorted(report.lost), sorted(report.kept)


def is_whole(backup: Path) -> None:
    """A backup has all that was ever acknowledged, and nothing is amiss with it; its packs alone prove that too."""
    assert contents_of(backup) == DATA
    with Store.open(backup, SMALL) as store:
        assert list(store.check(Depth.DEEP)) == []
    copy = backup.with_name("rebuilt")
    shutil.copytree(backup, copy)
    assert rebuild_index(copy, SMALL, force=True).damaged == []
    assert contents_of(copy) == DATA
    shutil.rmtree(copy)


def test_a_backup_goes_on_having_what_its_store_lost(tmp_path: Path) -> None:
    """However often it is brought up to date; what the store got meanwhile is in it too, and it can be restored."""
    root, backup = tmp_path / "root", tmp_path / "backup"
    fill(root, backup)
    with opened(root) as store:
        rot(store)
        for _ in range(2):
            assert told(store.backup(backup)) == ([], [], sorted(LOST))
            is_whole(backup)
        push(store, "new", noise(200 * KIB, 9))
        report = store.backup(backup)
        assert told(report) == ([], [], sorted(LOST))
        assert (report.packs, report.pack_bytes) == measured(backup)
    assert contents_of(backup) == {**DATA, "new": noise(200 * KIB, 9)}
    assert told(restore(backup, tmp_path / "new", SMALL)) == ([], [], [])
    assert contents_of(tmp_path / "new") == contents_of(backup)


def measured(backup: Path) -> tuple[int, int]:
    sizes = [path.stat().st_size for path in packs_of(backup)]
    return len(sizes), sum(sizes)


def test_a_pack_that_is_gone_and_forgotten_stays_in_the_backup(tmp_path: Path) -> None:
    """An index made anew does not know it any more, nor the recipes that its records had."""
    root, backup = tmp_path / "root", tmp_path / "backup"
    fill(root, backup)
    with opened(root) as store:
        gone = {row.extent.pack for _, row in chunks_of(store, LOST[0])}
    for pack in gone:
        (root / "packs" / f"{pack:016x}"[:2] / f"{pack:016x}.pack").unlink()
    rebuild_index(root, SMALL, force=True)
    with opened(root) as store:
        assert len(contents_missing(store)) > 0
        report = store.backup(backup)
        assert (report.damaged, report.lost) == ([], [])
        assert {Digest.of(DATA[name]) for name in contents_missing(store)} == set(report.kept)
    is_whole(backup)


def test_a_backup_goes_on_having_what_a_name_holds_that_moved(tmp_path: Path) -> None:
    """There and back, as what is deleted and undeleted; and the journal says so too."""
    root, backup = tmp_path / "root", tmp_path / "backup"
    fill(root, backup)

    def move(names: Names, old: str, new: str) -> None:
        for name, found in names.scan(old):
            if name.path in ("one", "two"):
                names.move(name, Name(new, name.path), found)

    with opened(root) as store:
        rot(store)
        for ends in (("thing", "elsewhere"), ("elsewhere", "thing")):
            store.change(lambda names, ends=ends: move(names, *ends))  # type: ignore[misc]
            store.collect()
            assert told(store.backup(backup)) == ([], [], sorted(LOST))
    is_whole(backup)
    assert set(rebuild_index(root, SMALL, force=True).concerned.values()) == set(LOST)
    with opened(root) as store:
        assert {finding.check for finding in store.check()} == {"lost"}


def contents_missing(store: Store) -> set[str]:
    there = store.read(lambda reads: {name for name, data in DATA.items() if reads.stat(Digest.of(data))})
    return DATA.keys() - there


def push_again(store: Store) -> None:
    for name in ("one", "two"):
        push(store, name, DATA[name])


def test_what_was_pushed_anew_and_lost_again_is_kept_as_it_was_last(tmp_path: Path) -> None:
    """Its recipe in the backup is another one than the store's."""
    root, backup = tmp_path / "root", tmp_path / "backup"
    fill(root, backup)
    with opened(root) as store:
        rot(store)
        push_again(store)
        store.heal()
        rot(store)
        assert told(store.backup(backup)) == ([], [], sorted(LOST))
    assert contents_of(backup) == DATA
    with Store.open(backup, SMALL) as store:
        assert list(store.check(Depth.DEEP)) == []


def delete(store: Store) -> None:
    store.change(lambda names: [names.delete(Name("thing", name)) for name in ("one", "two")])


@pytest.mark.parametrize("mend", [push_again, delete])
def test_once_nobody_needs_it_from_there_it_leaves_the_backup(tmp_path: Path, mend: Callable[[Store], None]) -> None:
    """Because the store has it again, or because no name holds it any more."""
    root, backup = tmp_path / "root", tmp_path / "backup"
    fill(root, backup)
    with opened(root) as store:
        rot(store)
        store.backup(backup)
        mend(store)
        report = store.backup(backup)
        assert told(report) == ([], [], [])
        assert report.removed > 0
        assert contents_of(backup) == contents(store)
        assert {path.name for path in packs_of(backup)} <= {path.name for path in packs_of(root)}


def test_what_no_copy_has_is_named(tmp_path: Path) -> None:
    """A first backup made too late, and one whose earlier copy had not got the blob yet."""
    root, late = tmp_path / "root", tmp_path / "late"
    fill(root, tmp_path / "backup")
    with opened(root) as store:
        rot(store)
        for _ in range(2):
            assert told(store.backup(late)) == ([], sorted(LOST), [])
        assert contents_missing(store) == {"one", "two"}
    with Store.open(late, SMALL) as store:
        assert read(store, Digest.of(DATA["other"])) == DATA["other"]
        assert {finding.check for finding in store.check(Depth.DEEP)} == {"lost"}


def test_a_pack_that_the_backup_lacks_itself_is_told(tmp_path: Path) -> None:
    """Who looks at the report must not rely on what is not there."""
    root, backup = tmp_path / "root", tmp_path / "backup"
    fill(root, backup)
    with opened(root) as store:
        rot(store)
        report = store.backup(backup)
        only_there = {path.name for path in packs_of(backup)} - {path.name for path in packs_of(root)}
        assert told(report) == ([], [], sorted(LOST))
        (path,) = [path for path in packs_of(backup) if path.name in only_there]
        path.unlink()
        assert store.backup(backup).damaged == [f"pack {path.stem} is missing in the copy, which alone had it"]


def test_what_a_store_lost_comes_back_from_its_backup(tmp_path: Path) -> None:
    """However often that was made since; then nothing of it is kept there alone any more."""
    root, backup = tmp_path / "root", tmp_path / "backup"
    fill(root, backup)
    with opened(root) as store:
        rot(store)
        store.backup(backup)
        with Store.open(backup, SMALL, reading=True) as other:
            report = store.repair(other=other.reader)
        assert sorted(report.recovered) == sorted(LOST)
        assert (report.lost, report.left) == ((), ())
        assert contents(store) == DATA
        assert list(store.check(Depth.DEEP)) == []
        assert told(store.backup(backup)) == ([], [], [])
    is_whole(backup)
    is_whole(root)


def test_one_repair_sets_damage_aside_and_brings_back_what_it_took(tmp_path: Path) -> None:
    """Damage that nobody knew of before, and a backup that is whole: nothing is missing at any later moment."""
    root, backup = tmp_path / "root", tmp_path / "backup"
    fill(root, backup)
    with opened(root) as store, Store.open(backup, SMALL, reading=True) as other:
        spoil(store, root, chunks_of(store, LOST[0])[0][1].extent)
        report = store.repair(other=other.reader)
        assert (len(report.packs), sorted(report.recovered)) == (1, sorted(LOST))
        assert (report.lost, report.left) == ((), ())
        assert contents(store) == DATA


def test_only_true_bytes_that_a_name_holds_come_back(tmp_path: Path) -> None:
    """Damage in the backup brings nothing back, nor is what was deleted; either is told, and the rest comes."""
    root, backup = tmp_path / "root", tmp_path / "backup"
    fill(root, backup)
    with opened(root) as store, Store.open(backup, SMALL, reading=True) as other:
        rot(store)
        store.change(lambda names: names.delete(Name("thing", "one")))
        spoil(other, backup, chunks_of(other, LOST[1])[-1][1].extent)
        report = store.repair(other=other.reader)
        assert report.recovered == ()
        assert report.lost == (LOST[1],)
        assert LOST[1] in {digest for finding in report.left for digest in finding.blobs}
        with Store.open(tmp_path / "third", SMALL, create=True) as third:
            push(third, "anything", DATA["two"])
            assert store.repair(other=third.reader).recovered == (LOST[1],)
        assert contents(store) == {name: data for name, data in DATA.items() if name != "one"}


def test_a_damaged_index_of_the_backup_ends_the_backup(tmp_path: Path) -> None:
    """While it may be all that tells of lost blobs; nothing there is touched, and what to do is said."""
    root, backup = tmp_path / "root", tmp_path / "backup"
    fill(root, backup)
    with opened(root) as store:
        rot(store)
    spoil_blob(backup)
    before = {path: path.read_bytes() for path in packs_of(backup)}
    with opened(root) as store, pytest.raises(Damaged, match=f"--rebuild-index --force --root {backup}"):
        store.backup(backup)
    assert {path: path.read_bytes() for path in packs_of(backup)} == before
    rebuild_index(backup, SMALL, force=True)
    with opened(root) as store:
        assert told(store.backup(backup)) == ([], [], sorted(LOST))
    is_whole(backup)


def test_a_backup_whose_index_is_gone_is_not_taken_for_a_new_one(tmp_path: Path) -> None:
    """What it kept of lost blobs nobody would know to be needed; nothing there is touched, and what to do is said."""
    root, backup = tmp_path / "root", tmp_path / "backup"
    fill(root, backup)
    with opened(root) as store:
        rot(store)
        assert told(store.backup(backup)) == ([], [], sorted(LOST))
    shutil.rmtree(backup / "index")
    before = {path: path.read_bytes() for path in packs_of(backup)}
    with opened(root) as store, pytest.raises(Damaged, match=f"--rebuild-index --root {backup}"):
        store.backup(backup)
    assert {path: path.read_bytes() for path in packs_of(backup)} == before
    rebuild_index(backup, SMALL)
    with opened(root) as store:
        assert told(store.backup(backup)) == ([], [], sorted(LOST))
    is_whole(backup)


def spoil_blob(root: Path) -> None:
    """Flip a bit in the row of a lost blob, in whichever page that lies."""
    data = root / "index" / "data.mdb"
    for at in (match.start() for match in re.finditer(re.escape(LOST[0].pack()), data.read_bytes())):
        flip(data, at + len(LOST[0].pack()) + 1)


@pytest.mark.usefixtures("unsynced")
def test_a_backup_that_ends_anywhere_has_what_was_lost(tmp_path: Path) -> None:
    """At each change of the disk in turn: never is there a moment at which nobody has it."""
    root, first = tmp_path / "root", tmp_path / "first"
    fill(root, first)
    with opened(root) as store:
        rot(store)

        def is_all_there(left: Path) -> None:
            assert contents_of(left) == DATA

        def is_kept(report: CopyReport, backup: Path) -> None:
            assert told(report) == ([], [], sorted(LOST))
            is_all_there(backup)

        each_backup(store, first, Ends, left=is_all_there, done=is_kept)
