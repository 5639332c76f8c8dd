"""A mend that ends anywhere leaves no blob that is said to be here and that nobody is going to look into (I2, I9)."""

# ruff: noqa: SLF001 - what a promise rests on is looked at inside, not only from the front

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cas import CasError, Damaged, Depth, Digest, Missing, Name, Store
from cas.extent import Extent
from cas.view import View
from tests.engine.test_backup import contents_of
from tests.engine.test_damage import chunks_of, spoil
from tests.support.engine import KIB, SMALL, noise, opened, prose, push, read
from tests.support.faults import before_commits
from tests.support.powercut import ForgetfulDisk, PowerCut, pull_the_plug

COMMON = prose(100 * KIB)
DATA = {
    "beside": noise(30 * KIB, 4),  # in the pack of what is damaged, and moved out of it
    "other": noise(100 * KIB, 3),
    "one": COMMON + noise(60 * KIB, 1),
    "two": COMMON + noise(60 * KIB, 2),
}
LOST = {"one", "two"}
MOST_STEPS = 200


def flip_a_bit(store: Store, extent: Extent) -> None:
    spoil(store, store._parts.layout.root, extent)


def cut_short(store: Store, extent: Extent) -> None:
    path = store._parts.layout.pack(extent.pack)
    path.chmod(0o640)
    with path.open("r+b") as file:
        file.truncate(extent.offset + 10)


def by_repair(store: Store) -> None:
    """What an operator does about it."""
    store.repair()


def by_scrub(store: Store) -> None:
    """What a server does about it once a reader saw it."""
    with pytest.raises(Damaged):
        read(store, Digest.of(DATA["one"]))
    store._parts.committer.run(lambda _edit, _draft: None)  # it is marked now
    list(store.scrub(1))


def missing(store: Store) -> set[str]:
    """Blobs that are answered as missing."""
    there = store.read(lambda reads: {name for name, data in DATA.items() if reads.stat(Digest.of(data))})
    return DATA.keys() - there


def damaged(store: Store) -> set[str]:
    """Blobs that are said to be here and cannot be read."""
    found = set()
    for name in DATA.keys() - missing(store):
        try:
            assert read(store, Digest.of(DATA[name])) == DATA[name]
        except (Damaged, Missing):
            found.add(name)
    return found


def rows(store: Store) -> list[tuple[bytes, bytes]]:
    """Where chunks lie, and which blobs are here."""

    def look(view: View) -> list[tuple[bytes, bytes]]:
        return [row for table in ("chunks", "blobs", "lost") for row in view.dump(table)]

    return store._parts.index.read(look)


@pytest.mark.parametrize("mend", [by_repair, by_scrub])
@pytest.mark.parametrize("damage", [flip_a_bit, cut_short])
def test_a_mend_that_ends_anywhere_is_finished_by_the_scrub(
    tmp_path: Path, damage: Callable[[Store, Extent], None], mend: Callable[[Store], None]
) -> None:
    """At each change of the disk and each commit in turn: the power goes, and what is left is due at once."""
    first, root = tmp_path / "first", tmp_path / "root"
    with opened(first) as store:
        for name, data in DATA.items():
            push(store, name, data)
    with Store.open(first, SMALL) as store:
        extent = chunks_of(store, Digest.of(DATA["one"]))[0][1].extent
        path = store._parts.layout.pack(extent.pack)
        damage(store, extent)
        untouched = rows(store)
    halfway = set[frozenset[str]]()
    for store in each_end(first, root, mend):
        halfway.add(frozenset(missing(store)))
        begun = rows(store) != untouched
        assert not begun or store.is_scrub_due(1) or not damaged(store), "said to be here, and nobody is to look"
        judge(store, root / "quarantine" / path.name)
    assert halfway >= {frozenset(), frozenset(LOST)}


def each_end(first: Path, root: Path, mend: Callable[[Store], None]) -> Iterator[Store]:
    """Mend a store again and again, until the power goes at each change and commit in turn; yield what is left."""
    for step in range(MOST_STEPS):
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(first, root)
        disk = ForgetfulDisk(step)
        store = Store.open(root, SMALL, disk=disk)
        before_commits(store, lambda disk=disk: disk.step("commit"))  # type: ignore[misc]
        disk.cut_after = step
        try:
            mend(store)
        except (PowerCut, CasError):
            assert disk.is_cut, "refused without a reason"
        is_done = not disk.is_cut
        pull_the_plug(store, disk)
        with Store.open(root, SMALL) as left:
            yield left
        if is_done:
            break
    assert is_done
    assert step > 10


def test_a_backup_beside_a_mend_that_ended_anywhere_keeps_what_was_lost(tmp_path: Path) -> None:
    """Though the store names no bad chunk yet, and what is damaged is not where the backup has it good."""
    first, root, backup, copy = (tmp_path / name for name in ("first", "root", "backup", "copy"))
    with opened(first) as store:
        push(store, "gone", noise(200 * KIB, 9))
        for name, data in DATA.items():
            push(store, name, data)
        store.backup(backup)
        store.change(lambda names: names.delete(Name("thing", "gone")))
        store.collect()
        assert store.compact(everything=True).moved_bytes
        flip_a_bit(store, chunks_of(store, Digest.of(DATA["one"]))[0][1].extent)
    made = 0
    for store in each_end(first, root, by_repair):
        if missing(store) == LOST:
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(backup, copy)
            assert set(store.backup(copy).kept) == {Digest.of(DATA[name]) for name in LOST}
            assert contents_of(copy) == DATA
            made += 1
    assert made > 3


def judge(store: Store, quarantined: Path) -> None:
    assert {finding.check for finding in store.check()} <= {"lost", "packs"}
    assert damaged(store) <= LOST
    if not missing(store):
        store.repair()  # nothing was begun, perhaps: a power cut before the first commit
    list(store.scrub(1))
    assert missing(store) == LOST
    assert damaged(store) == set()
    assert {finding.check for finding in store.check(Depth.DEEP)} == {"lost"}
    store.collect()
    store.compact(everything=True)
    assert quarantined.exists(), "what was damaged is never deleted"
    for name in LOST:
        push(store, name, DATA[name])
    assert list(store.check(Depth.DEEP)) == []
