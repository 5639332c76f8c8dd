"""A backup gives no good bytes up for rotten ones (I1, I9), whatever its store knows of what rotted since."""

# ruff: noqa: SLF001 - what a promise rests on is looked at inside, not only from the front

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cas import Depth, Digest, Name, Store, rebuild_index, restore
from cas.mirror import CopyReport
from cas.records import Role
from cas.tables import DOUBTED
from tests.engine.test_backup import contents, contents_of
from tests.engine.test_backup_lost import told
from tests.engine.test_damage import chunks_of, spoil
from tests.support.ending import Ends, each_backup
from tests.support.engine import KIB, SMALL, flip, noise, opened, packs_of, prose, push, read

COMMON = prose(300 * KIB)
DATA = {
    "beside": noise(60 * KIB, 4),
    "one": COMMON + noise(100 * KIB, 1),
    "two": COMMON + noise(100 * KIB, 2),
    "other": noise(200 * KIB, 3),
}
SUFFER = sorted(Digest.of(DATA[name]) for name in ("one", "two"))


def fill(root: Path, backup: Path) -> None:
    with opened(root) as store:
        for number, (name, data) in enumerate(DATA.items()):
            push(store, f"gone-{number}", noise(50 * KIB, 100 + number))
            push(store, name, data)
        assert store.backup(backup).damaged == []


def move(store: Store) -> None:
    """Empty every pack into new ones, which no backup has yet."""
    before = {path.name for path in packs_of(store._parts.layout.root)}
    store.change(lambda names: [names.delete(name) for name, _ in store.scan("thing") if name.path.startswith("gone")])
    store.collect()
    store.compact(everything=True)
    assert not before & {path.name for path in packs_of(store._parts.layout.root)}


def rot(store: Store) -> int:
    """Damage what `one` and `two` have in common, and tell nobody; return the pack."""
    _, row = chunks_of(store, SUFFER[0])[0]
    spoil(store, store._parts.layout.root, row.extent)
    return row.extent.pack


def damaged(report: CopyReport) -> tuple[list[Digest], list[Digest]]:
    assert report.damaged
    assert (report.lost, report.kept) == ([], [])
    return sorted(report.spoilt), sorted(report.spared)


def is_whole(backup: Path) -> None:
    """A backup has all that is acknowledged, and nothing is amiss with it; its packs alone prove that too."""
    with looked_at(backup) as copy:
        assert contents_of(copy) == DATA
        with Store.open(copy, SMALL) as store:
            assert list(store.check(Depth.DEEP)) == []
        rebuild_index(copy, SMALL, force=True)
        assert contents_of(copy) == DATA


def has_all(backup: Path) -> None:
    """A backup has all that is acknowledged, whatever else is amiss with it or in it."""
    with looked_at(backup) as copy:
        with Store.open(copy, SMALL) as store:
            assert {name: read(store, Digest.of(data)) for name, data in DATA.items()} == DATA
            assert {digest for finding in store.check(Depth.DEEP) for digest in finding.blobs} == set()
        rebuild_index(copy, SMALL, force=True)
        with Store.open(copy, SMALL) as store:
            names = {name.path: record.holds[0] for name, record in store.scan("thing")}
            assert {name: read(store, names[name]) for name in DATA} == DATA


@contextmanager
def looked_at(backup: Path) -> Iterator[Path]:
    """A copy that may be changed."""
    copy = backup.with_name("looked-at")
    shutil.copytree(backup, copy)
    yield copy
    shutil.rmtree(copy)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    fill(tmp_path / "root", tmp_path / "backup")
    return tmp_path / "root"


@pytest.fixture
def backup(root: Path) -> Path:
    return root.with_name("backup")


def test_what_rotted_unnoticed_after_it_was_moved_stays_whole_in_the_backup(root: Path, backup: Path) -> None:
    """However often that is brought up to date, and whatever comes new; what is restored from it is whole."""
    with opened(root) as store:
        move(store)
        rot(store)
        for _ in range(3):
            assert damaged(store.backup(backup)) == ([], SUFFER)
            is_whole(backup)
        push(store, "new", noise(200 * KIB, 9))
        report = store.backup(backup)
        assert damaged(report) == ([], SUFFER)
        sizes = [path.stat().st_size for path in packs_of(backup)]
        assert (report.packs, report.pack_bytes) == (len(sizes), sum(sizes))
    assert told(restore(backup, root.with_name("new"), SMALL)) == ([], [], [])
    assert contents_of(root.with_name("new")) == {**DATA, "new": noise(200 * KIB, 9)}
    with Store.open(root.with_name("new"), SMALL) as store:
        assert list(store.check(Depth.DEEP)) == []


def test_a_backup_whose_index_was_made_anew_goes_on_sparing_what_it_has(root: Path, backup: Path) -> None:
    """Two of its packs tell of the same chunks, and in one of them they are rotten."""
    with opened(root) as store:
        move(store)
        rot(store)
        store.backup(backup)
    rebuild_index(backup, SMALL, force=True)
    with opened(root) as store:
        assert damaged(store.backup(backup)) == ([], SUFFER)
    is_whole(backup)


def test_what_rotted_unnoticed_comes_back_from_the_backup(root: Path, backup: Path) -> None:
    """With one call; then nothing is kept there that the store does not have."""
    with opened(root) as store:
        move(store)
        rot(store)
        store.backup(backup)
        with Store.open(backup, SMALL, reading=True) as other:
            report = store.repair(other=other.reader)
        assert (sorted(report.recovered), report.lost, report.left) == (SUFFER, (), ())
        assert contents(store) == DATA
        assert told(store.backup(backup)) == ([], [], [])
        assert {path.name for path in packs_of(backup)} <= {path.name for path in packs_of(root)}
    is_whole(backup)


def set_aside(store: Store) -> tuple[list[Digest], list[Digest], list[Digest]]:
    store.repair(Depth.DATA)
    return [], [], SUFFER


def push_again(store: Store) -> tuple[list[Digest], list[Digest], list[Digest]]:
    store.repair(Depth.DATA)
    for name in ("one", "two"):
        push(store, name, DATA[name])
    store.heal()
    return [], [], []


def delete(store: Store) -> tuple[list[Digest], list[Digest], list[Digest]]:
    store.change(lambda names: [names.delete(Name("thing", name)) for name in ("one", "two")])
    return [], [], []


@pytest.mark.parametrize("mend", [set_aside, push_again, delete])
def test_what_became_of_it_in_the_store_decides_what_stays(
    mend: Callable[[Store], tuple[list[Digest], list[Digest], list[Digest]]], root: Path, backup: Path
) -> None:
    """Lost: it stays. There again, or held by no name: it goes."""
    with opened(root) as store:
        move(store)
        rot(store)
        store.backup(backup)
        lost, spared, kept = mend(store)
        report = store.backup(backup)
        assert (report.lost, report.spared, sorted(report.kept)) == (lost, spared, kept)
        if not kept:
            named = {row.pack for row in store._parts.index.read(lambda view: view.packs())}
            assert {int(path.stem, 16) for path in packs_of(backup)} <= named
            assert contents_of(backup) == contents(store)
    if kept:
        is_whole(backup)


def test_what_neither_has_whole_is_named(root: Path, backup: Path) -> None:
    """By a first backup made too late, and by one whose own bytes have rotted, too."""
    late = root.with_name("late")
    with opened(root) as store:
        move(store)
        rot(store)
        for _ in range(2):
            assert damaged(store.backup(late)) == (SUFFER, [])
        with Store.open(backup, SMALL, reading=True) as other:
            spoil(other, backup, chunks_of(other, SUFFER[0])[0][1].extent)
        assert damaged(store.backup(backup)) == (SUFFER, [])
    with Store.open(late, SMALL) as store:
        assert {digest for finding in store.check(Depth.DATA) for digest in finding.blobs} == set(SUFFER)


def break_header(path: Path) -> None:
    flip(path, 30)


def remove(path: Path) -> None:
    path.unlink()


def cut_short(path: Path) -> None:
    path.chmod(0o640)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 3)


@pytest.mark.parametrize("break_it", [break_header, remove, cut_short])
@pytest.mark.parametrize("role", [Role.DATA, Role.JOURNAL])
def test_a_pack_that_tells_nothing_any_more_replaces_none_that_does(
    role: Role, break_it: Callable[[Path], None], root: Path, backup: Path
) -> None:
    """Its records, its end or all of it is gone: the packs from which it was made stay, and a rebuild finds it all."""
    with opened(root) as store:
        move(store)
        for path in packs_of(root, role):
            break_it(path)
        for _ in range(2):
            assert store.backup(backup).damaged
            has_all(backup)


def test_a_blob_that_was_pushed_anew_is_kept_as_it_was_before(root: Path, backup: Path) -> None:
    """Its recipe is another one since, and names chunks that no earlier backup has."""
    with opened(root) as store:
        for _, row in chunks_of(store, SUFFER[0]):
            spoil(store, root, row.extent)
        store.repair(Depth.DATA)
        push(store, "one", DATA["one"])
        for _, row in chunks_of(store, SUFFER[0]):
            spoil(store, root, row.extent)
        report = store.backup(backup)
        assert (report.spoilt, report.lost) == ([], [])
        assert set(report.spared) | set(report.kept) == set(SUFFER)
    assert contents_of(backup).items() >= DATA.items()


def test_a_copy_that_went_wrong_is_made_anew(root: Path, backup: Path) -> None:
    """What is damaged there and whole in the store is looked at each time, and copied again."""
    with opened(root) as store:
        move(store)
        pack = rot(store)
        path = store._parts.layout.pack(pack)
        store.backup(backup)
        _, row = chunks_of(store, SUFFER[0])[0]
        spoil(store, root, row.extent)  # the same bit once more
        report = store.backup(backup)
        assert told(report) == ([], [], [])
        assert report.copied_bytes == path.stat().st_size
        assert {each.name for each in packs_of(backup)} == {each.name for each in packs_of(root)}
    is_whole(backup)


def test_a_copy_is_not_replaced_by_a_worse_one(root: Path, backup: Path) -> None:
    """Damage goes on in the store's pack: what was whole in the copy of it stays so."""
    with opened(root) as store:
        move(store)
        push(store, "late", noise(150 * KIB, 8))
        rot(store)
        store.backup(backup)
        seen = {path.name: path.read_bytes() for path in packs_of(backup)}
        for digest in (SUFFER[0], Digest.of(DATA["other"]), Digest.of(noise(150 * KIB, 8))):
            for _, row in chunks_of(store, digest)[1:]:
                spoil(store, root, row.extent)
        store.backup(backup)
        assert {path.name: path.read_bytes() for path in packs_of(backup)} == seen
    assert contents_of(backup) == {**DATA, "late": noise(150 * KIB, 8)}


def test_the_store_looks_at_once_into_what_its_backup_saw(root: Path, backup: Path) -> None:
    """A backup is a reader: the scrub of a live server need not find it in a month."""
    with opened(root) as store:
        move(store)
        pack = rot(store)
        store.backup(backup)
        checked = store._parts.index.read(lambda view: view.checked())
        assert {each for each, when in checked.items() if when == DOUBTED} == {pack}


@pytest.mark.usefixtures("unsynced")
def test_a_backup_that_ends_anywhere_has_what_rotted_meanwhile(root: Path, backup: Path) -> None:
    """At each change of the disk in turn: never is there a moment at which nobody has it."""
    with opened(root) as store:
        move(store)
        rot(store)

        def is_all_there(left: Path) -> None:
            assert contents_of(left).items() >= DATA.items()

        def is_spared(report: CopyReport, backup: Path) -> None:
            assert damaged(report) == ([], SUFFER)
            is_all_there(backup)

        first = backup.with_name("first")
        backup.rename(first)
        each_backup(store, first, Ends, left=is_all_there, done=is_spared)
