"""What is damaged is put where nobody reads it; nothing else is lost, and a push of the same content heals it (I9)."""

# ruff: noqa: SLF001 - what a promise rests on is looked at inside, not only from the front

from __future__ import annotations

import shutil
import threading
from contextlib import closing
from pathlib import Path

import pytest

from cas import Busy, Depth, Digest, InUse, Missing, Name, RepairReport, Store, rebuild_index
from cas.lease import OthersAtWork, maintenance_lock
from cas.parts import Parts
from cas.records import Role
from cas.salvage import salvage
from cas.scan import scan_pack
from tests.engine.test_compact_salvage import bad
from tests.engine.test_damage import chunks_of
from tests.engine.test_scrub import BadDisk
from tests.support.dump import differences, dump
from tests.support.engine import KIB, MIB, SMALL, flip, noise, opened, packs_of, prose, push, read

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


def test_an_error_of_the_disk_that_passes_takes_no_good_chunk_along(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is beside damage is read once more before it is given up: not to be read is not to be rotten."""
    path, disk = spoil(root, 0.3), BadDisk()

    def failing(parts: Parts, pack: int) -> list[Digest]:
        disk.failing = 2
        return salvage(parts, pack)

    monkeypatch.setattr("cas.repair.salvage", failing)
    with Store.open(root, SMALL, disk=disk) as store:
        assert store.repair().packs == (int(path.stem, 16),)
        assert disk.failing == 0
        assert store._parts.index.read(bad) == 1


def test_a_key_is_no_proof_where_there_is_a_checksum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a pack without a footer as in any other: what rotted is not moved as good because some key is its own."""
    monkeypatch.setattr("xxhash.xxh3_128_digest", lambda data: len(data).to_bytes(16, "big"))
    with opened(tmp_path) as store:
        digest = push(store, "noise", noise(60 * KIB))
        _, row = chunks_of(store, digest)[0]
        flip(store._parts.layout.pack(row.extent.pack), row.extent.offset)
        assert store.repair().lost == (digest,)
        assert store._parts.index.read(bad) == 1


def test_an_upload_that_stands_on_damage_is_ended(root: Path) -> None:
    """Else its last request would be answered as if all of it were here; whoever uploads begins anew."""
    data, whole = noise(300 * KIB, 50), noise(200 * KIB, 51)
    with opened(root) as store:
        for number, some in ((7, data), (8, whole)):
            with store.resume(number) as upload:
                upload.write(some)
                upload.suspend()
    with opened(root) as store:
        (ref, *_) = store._parts.index.read(lambda view: view.segments(view.session(7).recipe))[0].refs  # type: ignore[union-attr]
        row = store._parts.index.read(lambda view: view.chunk(ref))
        assert row is not None
        flip(store._parts.layout.pack(row.extent.pack), row.extent.offset)
        assert store.repair().left == ()
        assert list(store.check(Depth.DEEP)) == []
        with pytest.raises(Missing, match="cancelled"):
            store.resume(7)
        with store.resume(8) as upload:
            assert upload.size == len(whole)


def spoil_chunk_of(store: Store, data: bytes) -> None:
    """Flip a bit in the first chunk of a blob."""
    row = chunks_of(store, Digest.of(data))[0][1]
    flip(store._parts.layout.pack(row.extent.pack), row.extent.offset)


def test_what_an_upload_found_stored_and_rots_before_it_ends_is_not_acknowledged(root: Path) -> None:
    """It is refused, also in further requests for the same bytes, and sent again it is whole."""
    data = DATA["noise"][:MIB] + noise(300 * KIB, 52)
    with opened(root) as store:
        with store.upload() as upload:
            upload.write(data)
            upload._runs.end_run()
            upload._runs.settle()
            spoil_chunk_of(store, DATA["noise"])
            assert Digest.of(DATA["noise"]) in store.repair().lost
            with pytest.raises(Busy, match="damaged while"):
                upload.keep(None, lambda *_: None)
        assert store.read(lambda reads: reads.stat(Digest.of(data))) is None
        for sent in (data, DATA["noise"]):
            push(store, "again", sent)
            assert read(store, Digest.of(sent)) == sent
        assert list(store.check(Depth.DEEP)) == []


def test_an_upload_that_goes_on_after_a_part_of_it_rotted_is_ended(root: Path) -> None:
    """Nothing more of it is filed, else a recipe with a hole would stay until its process ends."""
    with opened(root) as store:
        with store.upload() as upload:
            upload.write(DATA["noise"][:MIB])
            upload._runs.end_run()
            upload._runs.settle()
            spoil_chunk_of(store, DATA["noise"])
            store.repair()
            with pytest.raises(Busy, match="damaged while"):
                upload.write(noise(MIB, 53))
        assert store._parts.index.read(lambda view: view.uploads()) == []


def test_a_repair_that_could_not_wait_for_an_upload_lets_nothing_damaged_be_acknowledged(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a lock cannot be had, what the upload compared is looked at once more when it is filed."""
    with opened(root) as store:
        first = chunks_of(store, Digest.of(DATA["noise"]))[0][1].extent.raw
        data = DATA["noise"][: first + 1]
        monkeypatch.setattr("cas.salvage.is_quiet", lambda *_: True)
        with store.upload() as upload:
            upload.write(data)
            upload._inflow.cut_rest()
            spoil_chunk_of(store, DATA["noise"])
            store.repair()
            with pytest.raises(Busy, match="damaged while"):
                upload.keep(None, lambda *_: None)
        assert store.read(lambda reads: reads.stat(Digest.of(data))) is None


def test_what_is_lost_and_held_by_no_name_is_missed_by_nobody(root: Path) -> None:
    """Neither a check nor a repair that brings everything back is the worse for it; a collection forgets it."""
    spoil(root, 0.3)
    with opened(root) as store:
        (lost,) = store.repair().lost
        assert {finding.check for finding in store.check()} == {"lost"}
        (name,) = [name for name, record in store.scan("thing") if lost in record.holds]
        store.change(lambda names: names.delete(name))
        assert list(store.check()) == []
        store.collect()
        assert store.stats().lost == 0


def test_a_sound_store_is_left_alone(root: Path) -> None:
    """Nothing found, nothing done."""
    with opened(root) as store:
        report = store.repair(Depth.DEEP)
        assert (report.found, report.packs, report.lost, report.left) == ((), (), (), ())
        assert whole(store) == set(DATA)


@pytest.mark.parametrize("which", [0, 1, -1])
@pytest.mark.parametrize("offset", [3, 60], ids=["marker", "body"])
def test_a_damaged_record_of_a_pack_without_a_footer_is_no_torn_tail(tmp_path: Path, which: int, offset: int) -> None:
    """The journal that is being written: a quick check names it, and repair says once more what stood there."""
    with opened(tmp_path) as store:
        for name in ("a", "b", "c"):
            push(store, name, name.encode())
        (row,) = [row for row in store._parts.index.read(lambda view: view.packs()) if row.role is Role.JOURNAL]
        path = store._parts.layout.pack(row.pack)
        flip(path, scan_pack(row.pack, path).records[which].offset + offset)
        assert {finding.pack for finding in store.check() if finding.check == "packs"} == {row.pack}
        assert store.repair().left == ()
        assert list(store.check(Depth.DEEP)) == []
    shutil.rmtree(tmp_path / "index")
    rebuild_index(tmp_path, SMALL)
    with opened(tmp_path) as store:
        assert [name.path for name, _ in store.scan("thing")] == ["a", "b", "c"]


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 0.6, 0.95])
def test_a_journal_that_was_cut_short_is_said_once_more(tmp_path: Path, share: float) -> None:
    """Although its footer went with the records that it listed; and no compaction takes it for whole."""
    with opened(tmp_path) as store:
        for name in ("a", "b", "c"):
            push(store, name, name.encode())
        (row,) = [row for row in store._parts.index.read(lambda view: view.packs()) if row.role is Role.JOURNAL]
    path = next(path for path in packs_of(tmp_path) if path.stem == f"{row.pack:016x}")
    path.chmod(0o640)
    with path.open("r+b") as file:
        file.truncate(int(path.stat().st_size * share))
    with opened(tmp_path) as store:
        assert store.compact(everything=True).left
        assert path.exists()
        assert store.repair().left == ()
        assert list(store.check(Depth.DEEP)) == []
    shutil.rmtree(tmp_path / "index")
    rebuild_index(tmp_path, SMALL)
    with opened(tmp_path) as store:
        assert [name.path for name, _ in store.scan("thing")] == ["a", "b", "c"]


def test_a_deletion_that_was_damaged_is_said_once_more(tmp_path: Path) -> None:
    """Else what it deleted would come back with the next index that is made anew."""
    with opened(tmp_path) as store:
        for name in ("a", "gone"):
            push(store, name, name.encode())
    before = set(packs_of(tmp_path))
    with opened(tmp_path) as store:
        store.change(lambda names: names.delete(Name("thing", "gone")))
        (path,) = set(packs_of(tmp_path)) - before
        push(store, "b", b"b")
        flip(path, scan_pack(1, path).records[0].offset + 60)
        assert store.repair().left == ()
        expected = dump(store)
    shutil.rmtree(tmp_path / "index")
    rebuild_index(tmp_path, SMALL)
    with opened(tmp_path) as store:
        assert differences(expected, dump(store)) == []


def test_a_repair_waits_for_whoever_mends_already(root: Path) -> None:
    """A scrub, a collection or a backup; when that takes too long it says so."""
    with opened(root) as store:
        spoil(root, 0.5)
        done: list[RepairReport] = []
        repairer = threading.Thread(target=lambda: done.append(store.repair()))
        with closing(OthersAtWork(store._parts.layout)) as others:
            with maintenance_lock(store._parts.layout):
                with pytest.raises(InUse, match="try again when it is done"):
                    store.repair(wait_s=0)
                assert not others
                repairer.start()
                while not others:
                    assert repairer.is_alive(), "it did not wait"
            repairer.join()
        assert [len(report.packs) for report in done] == [1]
