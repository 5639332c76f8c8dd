"""Stored bytes are read through again and again; what rotted is set aside, and what cannot be read is no rot (I9)."""

# ruff: noqa: SLF001 - what a promise rests on is looked at inside, not only from the front

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import lmdb
import pytest

from cas import Depth, Digest, DiskFailed, InUse, Missing, Name, Scope, Store
from cas.disk import Disk
from cas.lease import OthersAtWork, at_work, maintenance_lock
from cas.records import Role
from tests.engine.test_damage import chunks_of, spoil
from tests.support.engine import KIB, MIB, SMALL, noise, opened, packs_of, prose, push, read

DATA = {"noise": noise(MIB), "prose": prose(MIB), "small": noise(40 * KIB, 3)}
EVER = 2.0**40  # later than any mark
LOST = Digest.of(DATA["noise"])


class Ends(Exception):
    """Whoever scrubs was told to stop."""


class BadDisk(Disk):
    """Gives other bytes than it stored, or an error, for the next large reads."""

    wrong = failing = 0

    def read_into(self, fd: int, memory: memoryview, offset: int) -> int:
        done = super().read_into(fd, memory, offset)
        if len(memory) < KIB:
            return done
        if self.failing:
            self.failing -= 1
            raise DiskFailed(f"the disk failed (cannot read: {errno.errorcode[errno.EIO]})")
        if self.wrong:
            self.wrong -= 1
            memory[0] ^= 1
        return done


def later() -> float:
    """A store's clock that goes before that of its files, so that marks are newer than whatever was written."""
    return time.time() + 1000


def due() -> float:
    """After all that was written, and before any mark."""
    return time.time() + 500


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with opened(tmp_path / "root") as made:
        for name, data in DATA.items():
            push(made, name, data)
    with Store.open(tmp_path / "root", SMALL, clock=later) as again:  # its packs are sealed
        yield again


def root_of(store: Store) -> Path:
    return store._parts.layout.root


def marks(store: Store) -> dict[int, int]:
    return store._parts.index.read(lambda view: view.checked())


def rot(store: Store) -> Path:
    """Flip a bit of one chunk; return its pack."""
    _, row = chunks_of(store, LOST)[0]
    spoil(store, root_of(store), row.extent)
    return Path(store._parts.layout.pack(row.extent.pack))


def test_a_sound_store_is_read_once_and_then_not_until_it_is_due(store: Store) -> None:
    """Every pack gets its mark, and what has one is not read again."""
    packs, count = {int(path.stem, 16) for path in packs_of(root_of(store))}, list[int]()
    assert not store.is_scrub_due(0)
    assert store.is_scrub_due(due())
    assert list(store.scrub(due(), told=count.append)) == []
    assert set(marks(store)) == packs
    assert sum(count) >= sum(map(len, DATA.values())) // 2
    read_once = len(count)
    assert list(store.scrub(due(), told=count.append)) == []
    assert len(count) == read_once
    assert store.stats().unchecked_packs == 0


def test_rot_is_set_aside_and_the_next_push_heals_it(store: Store) -> None:
    """The blob is missing, not wrong; its pack is kept; everything else is served, and has its mark."""
    path = rot(store)
    [done] = store.scrub(due())
    assert [finding.check for finding in done.found] == ["chunks"]
    assert [name.path for finding in done.found for name in finding.names] == ["noise"]
    assert done.lost == (LOST,)
    assert (root_of(store) / "quarantine" / path.name).exists()
    assert store.stats().lost == 1
    with pytest.raises(Missing):
        store.reader(LOST)
    assert read(store, Digest.of(DATA["prose"])) == DATA["prose"]
    push(store, "noise", DATA["noise"])
    assert read(store, LOST) == DATA["noise"]
    assert store.stats().lost == 0
    assert list(store.check(Depth.DEEP)) == []


@pytest.mark.parametrize("is_gone", [False, True])
def test_told_to_say_only_it_changes_nothing_and_says_it_once_a_day(tmp_path: Path, *, is_gone: bool) -> None:
    """It is doubted until it is mended, and not read every minute for that; a scrub that may mend does so at once."""
    root, now = tmp_path / "root", [later()]
    with opened(root) as made:
        for name, data in DATA.items():
            push(made, name, data)
    with Store.open(root, SMALL, clock=lambda: now[0]) as store:
        path = rot(store)
        if is_gone:
            path.unlink()
        for _ in range(2):
            said = list(store.scrub(due(), mends=False))
            assert [any(path.stem in finding.where for finding in done.found) for done in said] == [True]
            assert (said[0].lost, path.exists(), store.stats().doubted) == ((), not is_gone, 1)
            assert not store.is_scrub_due(due(), mends=False)
            assert list(store.scrub(due(), mends=False)) == []
            now[0] += 86401
            assert store.is_scrub_due(due(), mends=False)
        assert store.is_scrub_due(1)
        [done] = store.scrub(1)
        assert LOST in done.lost
        assert (store.stats().doubted, store.is_scrub_due(1)) == (0, False)
        assert read(store, Digest.of(DATA["prose"])) == DATA["prose"]


def test_what_was_found_damaged_while_the_clock_was_ahead_is_said_again(tmp_path: Path) -> None:
    """At once when the clock is right again, and from then on once a day."""
    root, ahead = tmp_path / "root", [10 * 365 * 86400.0]
    with opened(root) as made:
        push(made, "noise", DATA["noise"])
    with Store.open(root, SMALL, clock=lambda: later() + ahead[0]) as store:
        rot(store)
        assert len(list(store.scrub(EVER, mends=False))) >= 1
        ahead[0] = 0.0
        assert store.is_scrub_due(1, mends=False)
        assert len(list(store.scrub(1, mends=False))) == 1
        assert not store.is_scrub_due(1, mends=False)


def test_what_was_told_and_is_whole_again_is_doubted_no_more(store: Store) -> None:
    """Somebody put the bytes back; a check of the data, or the next scrub, finds nothing."""
    path = rot(store)
    whole = bytes(path.read_bytes())
    list(store.scrub(due(), mends=False))
    rot(store)  # the same bit
    assert path.read_bytes() != whole
    assert store.stats().doubted == 1
    assert list(store.check(Depth.DATA)) == []
    assert store.stats().doubted == 0


def test_what_the_disk_gives_right_the_second_time_is_no_rot(tmp_path: Path, store: Store) -> None:
    """It may have been the memory."""
    store.close()
    disk = BadDisk()
    with Store.open(tmp_path / "root", SMALL, disk=disk, clock=later) as again:
        disk.wrong = 1
        assert list(again.scrub(due())) == []
        assert disk.wrong == 0


def test_what_cannot_be_read_is_no_rot_either(tmp_path: Path, store: Store) -> None:
    """It is said, and nothing is set aside: the bytes may be good."""
    store.close()
    disk = BadDisk()
    with Store.open(tmp_path / "root", SMALL, disk=disk, clock=later) as again:
        disk.failing = 10**6
        [done] = again.scrub(due())
        disk.failing = 0
        assert {finding.check for finding in done.found} == {"unreadable"}
        assert done.lost == ()
        assert not (tmp_path / "root" / "quarantine").exists()
        assert {name: read(again, Digest.of(data)) == data for name, data in DATA.items()} == dict.fromkeys(DATA, True)


def test_one_that_was_ended_goes_on_where_it_was(store: Store) -> None:
    """What was read through is not read again."""
    total, count, left = list[int](), list[int](), list[int]()
    list(store.check(Scope(Depth.DATA, told=total.append)))
    store._parts.committer.run(lambda edit, _: [edit._tx.delete("checked", p.to_bytes(8, "big")) for p in marks(store)])

    def told(size: int) -> None:
        count.append(size)
        if sum(count) > sum(total) * 0.6:
            raise Ends

    with pytest.raises(Ends):
        list(store.scrub(due(), told=told))
    assert marks(store)
    list(store.scrub(due(), told=left.append))
    assert sum(left) < sum(total) * 0.9
    assert store.stats().unchecked_packs == 0


def test_there_is_one_of_all_processes(store: Store) -> None:
    """Whoever comes second is told, and its schedule does not even begin."""
    other: list[object] = []

    def told(_: int) -> None:
        if not other:
            other.append(store.is_scrub_due(due()))
            with pytest.raises(InUse):
                next(store.scrub(due()))

    assert list(store.scrub(due(), told=told)) == []
    assert other == [False]


def test_it_waits_while_others_keep_the_store_in_order(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it begins and in the middle; whoever does not get done in an hour is not waited for any longer."""
    count, waited = list[int](), list[float]()
    with ExitStack() as others:
        others.enter_context(at_work(store._parts.layout))

        def sleep(wait_s: float) -> None:
            waited.append(wait_s)
            if not count and len(waited) == 3:
                others.close()

        def told(size: int) -> None:
            if not count:
                assert len(waited) == 3
                others.enter_context(at_work(store._parts.layout))
            count.append(size)

        monkeypatch.setattr(time, "sleep", sleep)
        assert list(store.scrub(due(), told=told)) == []
    assert len(count) > 3
    assert 3600 <= sum(waited[3:]) < 3601


@pytest.mark.parametrize("what", ["check", "repair", "collect", "compact", "backup"])
def test_all_who_keep_the_store_in_order_are_waited_for(store: Store, tmp_path: Path, what: str) -> None:
    """As long as they are at it, and no longer."""
    seen = list[bool]()
    with closing(OthersAtWork(store._parts.layout)) as others:

        def told(*_: object) -> None:
            seen.append(bool(others))

        store.change(lambda names: names.delete(Name("thing", "prose")))
        ways: dict[str, Callable[[], object]] = {
            "check": lambda: list(store.check(Scope(Depth.DATA, told=told))),
            "repair": lambda: store.repair(Scope(Depth.DATA, told=told)),
            "collect": lambda: store.collect(progress=told),
            "compact": lambda: store.compact(everything=True, progress=told),
            "backup": lambda: store.backup(tmp_path / "backup", told),
        }
        ways[what]()
        assert seen
        assert all(seen)
        assert not others


def test_collection_compaction_and_backup_go_on_meanwhile(store: Store, tmp_path: Path) -> None:
    """While a pack is being read; and nothing that they move is taken for damage."""
    ran: list[str] = []

    def told(_: int) -> None:
        if not ran:
            ran.append("all")
            store.change(lambda names: names.delete(Name("thing", "prose")))
            store.collect()
            store.compact(everything=True)
            store.backup(tmp_path / "backup")

    assert list(store.scrub(due(), told=told)) == []
    assert ran == ["all"]
    assert read(store, LOST) == DATA["noise"]


def test_while_somebody_collects_nothing_is_set_aside(store: Store) -> None:
    """It is left for the next time: what looks wrong may have moved."""
    path = rot(store)
    with maintenance_lock(store._parts.layout):
        [done] = store.scrub(due(), wait_s=0)
    assert (done.found, done.lost) == ((), ())
    assert "is under way" in done.left
    assert int(path.stem, 16) not in marks(store)
    assert [len(done.found) for done in store.scrub(due())] == [1]


def test_a_check_of_all_bytes_leaves_its_marks_too(store: Store) -> None:
    """A quick one reads none, and leaves none; a part of one leaves those of its packs."""
    packs, half = {int(path.stem, 16) for path in packs_of(root_of(store))}, Scope(Depth.DATA, 1, 2)
    list(store.check(Depth.QUICK))
    assert marks(store) == {}
    list(store.check(half))
    journal = {row.pack for row in store._parts.index.read(lambda view: view.packs()) if row.role is Role.JOURNAL}
    assert set(marks(store)) == {pack for pack in packs if half.has_pack(pack)} | journal
    list(store.check(Scope(Depth.DATA, 2, 2)))
    assert set(marks(store)) == packs


class TestClockAhead:
    """A clock that was wrong for a while does not keep stored bytes from being read for as long as it was ahead."""

    YEARS = 10 * 365 * 86400.0

    @pytest.fixture
    def ahead(self) -> list[float]:
        """By how much the clock is."""
        return [0.0]

    @pytest.fixture
    def store(self, tmp_path: Path, ahead: list[float]) -> Iterator[Store]:
        with opened(tmp_path / "root") as made:
            for name, data in DATA.items():
                push(made, name, data)
        with Store.open(tmp_path / "root", SMALL, clock=lambda: later() + ahead[0]) as again:
            yield again

    def read_through(self, store: Store, ahead: list[float], by: float) -> None:
        ahead[0] = by
        assert list(store.check(Depth.DATA)) == []
        ahead[0] = 0.0

    def test_what_was_read_then_counts_as_never_read(self, store: Store, ahead: list[float]) -> None:
        """It is due by the time when it was written, which a check shows, too; then it has a mark to be believed."""
        self.read_through(store, ahead, self.YEARS)
        rot(store)
        packs = packs_of(root_of(store))
        found = store.stats()
        assert (found.unchecked_packs, found.doubted) == (len(packs), 0)
        assert found.checked == int(min(path.stat().st_mtime for path in packs))
        assert not store.is_scrub_due(found.checked)
        assert store.is_scrub_due(due())
        assert [done.lost for done in store.scrub(due())] == [(LOST,)]
        list(store.scrub(due()))
        assert store.stats().unchecked_packs == 0
        assert max(marks(store).values()) <= later()
        assert not store.is_scrub_due(found.checked)

    def test_what_was_written_then_is_due_whenever_that_was(self, store: Store, ahead: list[float]) -> None:
        """Nobody can say when; it is read, and then its mark counts."""
        for path in packs_of(root_of(store)):
            os.utime(path, (time.time() + self.YEARS,) * 2)
        self.read_through(store, ahead, self.YEARS)
        assert store.stats().checked == 1
        assert store.stats().doubted == 0
        assert not store.is_scrub_due(1)
        assert store.is_scrub_due(2)
        assert list(store.scrub(due())) == []
        assert not store.is_scrub_due(due())
        assert store.stats().unchecked_packs == 0
        assert store.stats().checked > due()

    def test_clocks_that_differ_a_little_are_believed(self, store: Store, ahead: list[float]) -> None:
        """Nothing is read twice for a clock that is corrected by an hour, or for a zone taken for another."""
        self.read_through(store, ahead, 12 * 3600)
        assert store.stats().unchecked_packs == 0
        assert not store.is_scrub_due(due())

    def test_a_doubted_pack_is_one_all_the_same(self, store: Store, ahead: list[float]) -> None:
        """Before all others, also before those of which nobody can say when they were read."""
        self.read_through(store, ahead, self.YEARS)
        path = rot(store)
        store._parts.files.doubt([int(path.stem, 16)])
        store._parts.committer.run(lambda _edit, _draft: None)
        assert store.stats().doubted == 1
        assert [done.lost for done in store.scrub(1)] == [(LOST,)]


def test_a_store_of_before_there_were_marks_opens(tmp_path: Path, store: Store) -> None:
    """Its index lacks the table; it is made, and nothing else changes."""
    store.close()
    with lmdb.open(str(tmp_path / "root" / "index"), max_dbs=20) as env, env.begin(write=True) as txn:
        txn.drop(env.open_db(b"checked", txn, create=False))
    with opened(tmp_path / "root") as again:
        assert list(again.check(Depth.DEEP)) == []
        assert read(again, LOST) == DATA["noise"]
        assert again.stats().unchecked_packs == 0


def test_a_pack_that_went_takes_its_mark_along(store: Store) -> None:
    """No mark outlives its pack."""
    list(store.scrub(due()))
    for name in DATA:
        store.change(lambda names, name=name: names.delete(Name("thing", name)))  # type: ignore[misc]
    store.collect()
    store.compact(everything=True)
    there = {int(path.stem, 16) for path in packs_of(root_of(store))}
    assert set(marks(store)) <= there
