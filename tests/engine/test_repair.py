"""What is damaged is put where nobody reads it; nothing else is lost, and a push of the same content heals it (I9)."""

from __future__ import annotations

from pathlib import Path

import pytest

from cas import Depth, Digest, Missing, Store
from tests.support.engine import MIB, flip, noise, opened, packs_of, prose, push

DATA = {"noise": noise(3 * MIB), "prose": prose(MIB), "other": noise(MIB, 7), "small": b"small"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    with opened(tmp_path) as store:
        for name, data in DATA.items():
            push(store, name, data)
    return tmp_path


def whole(store: Store) -> set[str]:
    """Read every blob; a blob that is here is whole."""
    there = set()
    for name, data in DATA.items():
        try:
            with store.reader(Digest.of(data)) as reader:
                assert reader.read() == data
        except Missing:
            continue
        there.add(name)
    return there


def spoil(root: Path, at: float) -> Path:
    """Flip a bit of the largest pack, some way into it."""
    path = max(packs_of(root), key=lambda path: path.stat().st_size)
    flip(path, int(path.stat().st_size * at))
    return path


@pytest.mark.parametrize("at", [0.001, 0.2, 0.5, 0.8, 0.999])
def test_what_is_lost_is_answered_as_missing_and_a_push_heals_it(root: Path, at: float) -> None:
    """The pack is kept aside, every other blob stays, and a check finds only what is to be pushed again."""
    path = spoil(root, at)
    with opened(root) as store:
        report = store.repair(Depth.DEEP)
        assert report.found
        assert report.left == ()
        assert (root / "quarantine" / path.name).exists()
        assert whole(store) == {name for name, data in DATA.items() if Digest.of(data) not in report.lost}
        assert len(report.lost) <= 1
        assert {finding.check for finding in store.check(Depth.DEEP)} <= {"lost"}
        for name, data in DATA.items():
            push(store, name, data)
        assert whole(store) == set(DATA)
        assert list(store.check(Depth.DEEP)) == []


def test_a_pack_that_is_gone_takes_only_its_own_blobs_along(root: Path) -> None:
    """Blobs that are not whole any more are missing; the others are served, and all are back after a push."""
    max(packs_of(root), key=lambda path: path.stat().st_size).unlink()
    with opened(root) as store:
        report = store.repair(Depth.QUICK)
        assert report.left == ()
        assert len(whole(store)) == len(DATA) - len(report.lost) < len(DATA)
        for name, data in DATA.items():
            push(store, name, data)
        assert whole(store) == set(DATA)
        assert list(store.check(Depth.DEEP)) == []


def test_a_dry_run_says_what_a_repair_does_and_changes_nothing(root: Path) -> None:
    """Packs and lost blobs are those of the repair that follows."""
    spoil(root, 0.3)
    before = {path: path.read_bytes() for path in packs_of(root)}
    with opened(root) as store:
        said = store.repair(Depth.DATA, dry_run=True)
        assert all(path.read_bytes() == data for path, data in before.items())
        done = store.repair(Depth.DATA)
    assert (said.packs, said.lost) == (done.packs, done.lost)


def test_a_sound_store_is_left_alone(root: Path) -> None:
    """Nothing found, nothing done."""
    with opened(root) as store:
        report = store.repair(Depth.DEEP)
        assert (report.found, report.packs, report.lost, report.left) == ((), (), (), ())
        assert whole(store) == set(DATA)
