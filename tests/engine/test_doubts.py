"""What a reader saw to be damaged the scrub reads before all else and sets aside, so that a push heals it (I9)."""

# ruff: noqa: SLF001 - what a promise rests on is looked at inside, not only from the front

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cas import Busy, CasError, Damaged, Depth, Digest, DiskFailed, Missing, Name, NoSpace, Store, Unreadable
from cas.audit import Audit
from cas.environment import Environment
from cas.finding import REPAIR
from cas.records import ChunkEntry
from cas.scan import scan_pack
from tests.engine.test_damage import chunks_of, spoil
from tests.engine.test_scrub import BadDisk, due, later, marks
from tests.support.counting import counted_index
from tests.support.engine import KIB, MIB, SMALL, flip, noise, opened, packs_of, prose, push, read
from tests.support.processes import run_python

TEXT, NOISE = prose(MIB), noise(MIB)
TEXT_DIGEST, NOISE_DIGEST = Digest.of(TEXT), Digest.of(NOISE)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, data in {"text": TEXT, "noise": NOISE, "more": noise(500 * KIB, 1), "still": noise(500 * KIB, 2)}.items():
        with opened(tmp_path / "root") as made:  # packs of their own
            push(made, name, data)
    return tmp_path / "root"


@pytest.fixture
def store(root: Path) -> Iterator[Store]:
    with Store.open(root, SMALL, clock=later) as again:  # its packs are sealed
        yield again


def written(store: Store) -> dict[int, int]:
    """The marks, once all that was under way is written."""
    store._parts.committer.run(lambda _edit, _draft: None)
    return marks(store)


def doubted(store: Store) -> set[int]:
    return {pack for pack, when in written(store).items() if not when}


def pack_of(store: Store, digest: Digest, number: int = 0) -> int:
    return int(chunks_of(store, digest)[number][1].extent.pack)


def path_of(store: Store, pack: int) -> Path:
    return Path(store._parts.layout.pack(pack))


def flip_a_bit(store: Store) -> int:
    _, row = chunks_of(store, TEXT_DIGEST)[0]
    spoil(store, store._parts.layout.root, row.extent)
    return row.extent.pack


def cut_short(store: Store) -> int:
    _, row = chunks_of(store, TEXT_DIGEST)[-1]
    path = path_of(store, row.extent.pack)
    path.chmod(0o640)
    with path.open("r+b") as file:
        file.truncate(row.extent.offset + 10)
    return row.extent.pack


def take_away(store: Store) -> int:
    pack = pack_of(store, TEXT_DIGEST)
    path_of(store, pack).unlink()
    return pack


DAMAGE = [flip_a_bit, cut_short, take_away]


def pull(store: Store, digest: Digest = TEXT_DIGEST) -> None:
    """Find the damage, as a client does."""
    with pytest.raises(Damaged) as caught:
        read(store, digest)
    assert str(caught.value).endswith(f"; {REPAIR}")


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_push_heals_what_a_reader_saw_once_the_scrub_has_looked(store: Store, damage: Callable[[Store], int]) -> None:
    """It is due at once, reads that pack alone, and what it proved is answered as missing, so that clients push it."""
    pack = damage(store)
    pull(store)
    assert doubted(store) == {pack}
    assert store.is_scrub_due(1)
    count = list[int]()
    [done] = store.scrub(1, told=count.append)
    assert done.lost == (TEXT_DIGEST,)
    assert sum(count) < len(TEXT)
    with pytest.raises(Missing):
        store.stat(TEXT_DIGEST)
    assert not store.is_scrub_due(1)
    assert (store.stats().lost, store.stats().doubted) == (1, 0)
    push(store, "text", TEXT)
    assert read(store, TEXT_DIGEST) == TEXT
    assert list(store.check(Depth.DEEP)) == []


def test_a_raw_pack_that_ends_early_is_seen_too(store: Store) -> None:
    """By whoever reads, and by whoever sends its file and tells what was missing."""
    pack = pack_of(store, NOISE_DIGEST)
    size = path_of(store, pack).stat().st_size
    path_of(store, pack).chmod(0o640)
    with path_of(store, pack).open("r+b") as file:
        file.truncate(size // 2)
    with store.reader(NOISE_DIGEST) as reader:
        piece = next(iter(reader.plan()))
        assert str(reader.ends_early(piece.fd, 5)).endswith(f"a pack ends 5 bytes early; {REPAIR}")  # type: ignore[union-attr]
    assert doubted(store) == {pack}


def test_whoever_pushes_what_is_damaged_sees_it_too(store: Store) -> None:
    """It compares itself with it, stores its own bytes, and once the scrub has looked these heal others."""
    pack = flip_a_bit(store)
    push(store, "again", TEXT[: MIB // 2])
    assert doubted(store) == {pack}
    assert [done.lost for done in store.scrub(1)] == [()]
    assert read(store, TEXT_DIGEST) == TEXT


def test_whoever_pushes_what_lies_in_a_pack_that_ends_early_sees_it_too(store: Store) -> None:
    """What is stored as it came is compared where it lies, many chunks at once."""
    pack = pack_of(store, NOISE_DIGEST)
    path_of(store, pack).chmod(0o640)
    os.truncate(path_of(store, pack), path_of(store, pack).stat().st_size // 2)
    push(store, "again", NOISE)
    assert read(store, NOISE_DIGEST) == NOISE
    assert doubted(store) == {pack}


def test_whoever_empties_a_pack_sees_it_too(tmp_path: Path) -> None:
    """It leaves the pack alone, and says what to do."""
    with opened(tmp_path) as store:
        keep = push(store, "keep", noise(100 * KIB, 1))
        push(store, "drop", noise(200 * KIB, 2))
    with opened(tmp_path) as store:
        _, row = chunks_of(store, keep)[0]
        spoil(store, tmp_path, row.extent)
        store.change(lambda names: names.delete(Name("thing", "drop")))
        store.collect()
        assert [left.endswith(f"is damaged; {REPAIR}") for left in store.compact(everything=True).left] == [True]
        assert doubted(store) == {row.extent.pack}


def spoil_a_record(path: Path) -> None:
    flip(path, scan_pack(int(path.stem, 16), path).records[0].offset + 60)


def halve(path: Path) -> None:
    path.chmod(0o640)
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("damage", [spoil_a_record, halve, Path.unlink])
def test_whoever_finds_a_pack_not_fit_to_be_emptied_sees_it_too(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    """So the scrub deals with it at once, and the next run is kept from nothing; who only looks marks nothing."""
    with opened(tmp_path) as store:
        keep = push(store, "keep", noise(100 * KIB, 1))
        push(store, "drop", noise(200 * KIB, 2))
    with opened(tmp_path) as store:
        pack = pack_of(store, keep)
        damage(path_of(store, pack))
        store.change(lambda names: names.delete(Name("thing", "drop")))
        store.collect()
        assert any(f"{pack:016x}" in left for left in store.compact(everything=True, dry_run=True).left)
        assert written(store) == {}
        assert any(f"{pack:016x}" in left for left in store.compact(everything=True).left)
        assert doubted(store) == {pack}
        assert [done.left for done in store.scrub(1)] == [""]
        assert doubted(store) == set()
        assert store.compact(everything=True).left == []
        push(store, "keep", noise(100 * KIB, 1))
        assert list(store.check(Depth.DEEP)) == []


def test_a_pack_that_could_not_be_read_to_be_emptied_is_not_doubted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is left alone and named, and that is all that is known of it."""
    with opened(tmp_path) as store:
        push(store, "keep", noise(100 * KIB, 1))
    with opened(tmp_path) as store:
        monkeypatch.setattr("cas.compact.begin", failing(Unreadable))
        assert all(left.endswith("planted") for left in store.compact(everything=True).left)
        assert written(store) == {}


def test_it_is_doubted_once_however_many_saw_it(store: Store) -> None:
    """A hundred clients make one commit, also after the scrub has looked, and a sound blob makes none."""
    pack = flip_a_bit(store)
    written(store)
    with counted_index() as work, ThreadPoolExecutor(8) as clients:
        for _ in range(50):
            clients.submit(read, store, NOISE_DIGEST)
        for ended in [clients.submit(read, store, TEXT_DIGEST) for _ in range(100)]:
            assert isinstance(ended.exception(), Damaged)
        written(store)
        assert work.writes <= 2  # one of them is ours here
    list(store.scrub(1, mends=False))
    pull(store)
    assert doubted(store) == {pack}
    assert not store.is_scrub_due(1, mends=False)


def test_what_cannot_be_read_is_not_doubted(root: Path) -> None:
    """A disk that answers with an error says nothing of what is on it."""
    disk = BadDisk()
    with Store.open(root, SMALL, disk=disk) as store:
        disk.failing = 100
        with pytest.raises(DiskFailed):
            read(store, TEXT_DIGEST)
        disk.failing = 0
        assert doubted(store) == set()


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_a_check_found_is_the_scrubs_next_work(store: Store, damage: Callable[[Store], int]) -> None:
    """However often somebody checks: who only looks does not put off that it is set aside, or say that all is well."""
    pack = damage(store)
    for _ in range(3):
        assert pack in [finding.pack for finding in store.check(Depth.DATA)]
        assert doubted(store) == {pack}
        assert store.stats().doubted == 1
    assert store.is_scrub_due(1)
    [done] = store.scrub(1)
    assert done.lost == (TEXT_DIGEST,)
    assert (store.stats().lost, store.stats().doubted) == (1, 0)
    push(store, "text", TEXT)
    assert read(store, TEXT_DIGEST) == TEXT
    assert list(store.check(Depth.DEEP)) == []
    assert doubted(store) == set()


def test_a_dry_run_of_a_repair_changes_nothing(store: Store) -> None:
    """It says what would be set aside; that nobody does because of it, and nobody says that it was read and sound."""
    pack = flip_a_bit(store)
    assert store.repair(dry_run=True).packs == (pack,)
    assert doubted(store) == set()
    assert pack not in written(store)
    assert not store.is_scrub_due(1)
    assert store.stats().unchecked_packs == 1
    assert store.repair().packs == (pack,)


def test_what_only_a_deep_check_can_find_is_no_work_for_the_scrub(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would acquit it each time; nor is it called read and sound."""
    pack = pack_of(store, NOISE_DIGEST)
    spoilt = Audit._spoilt

    def other_key(audit: Audit, at: int, entry: ChunkEntry) -> tuple[str, str] | None:
        return ("keys", "a chunk's bytes have another key") if at == pack else spoilt(audit, at, entry)

    monkeypatch.setattr(Audit, "_spoilt", other_key)
    monkeypatch.setattr("cas.audit.doubtful", lambda entries, *_: entries)
    assert {finding.pack for finding in store.check(Depth.DEEP)} == {pack}
    assert doubted(store) == set()
    assert pack not in written(store)


def test_what_a_check_could_not_read_is_not_doubted(root: Path) -> None:
    """Nor what was right when it was read again."""
    disk = BadDisk()
    with Store.open(root, SMALL, disk=disk, clock=later) as store:
        disk.failing = 100
        assert "unreadable" in {finding.check for finding in store.check(Depth.DATA)}
        disk.failing, disk.wrong = 0, 1
        assert list(store.check(Depth.DATA)) == []
        assert doubted(store) == set()


def test_what_turns_out_to_be_good_is_not_looked_at_again(root: Path) -> None:
    """It was the memory, or somebody's other mistake: the scrub acquits it, and nothing is set aside."""
    disk = BadDisk()
    with Store.open(root, SMALL, disk=disk, clock=later) as store:
        pack = pack_of(store, TEXT_DIGEST)
        disk.wrong = 1
        pull(store)
        assert doubted(store) == {pack}
        assert list(store.scrub(1)) == []
        assert not store.is_scrub_due(1)
        assert read(store, TEXT_DIGEST) == TEXT


def test_told_to_say_only_the_scrub_says_it_once(store: Store) -> None:
    """The words that the reader logged stay true: a repair sets it aside, and then a push heals it."""
    pack = flip_a_bit(store)
    pull(store)
    assert doubted(store) == {pack}
    assert len(list(store.scrub(1, mends=False))) == 1
    assert not store.is_scrub_due(1, mends=False)
    assert store.stats().doubted == 1
    pull(store)
    assert store.repair().lost == (TEXT_DIGEST,)
    push(store, "text", TEXT)
    assert read(store, TEXT_DIGEST) == TEXT


def test_a_doubted_pack_counts_as_one_that_nobody_looked_into(store: Store) -> None:
    """Operators who let nothing be scrubbed see it in the statistics; the age of the others stays what it was."""
    list(store.scrub(due()))
    flip_a_bit(store)
    before = store.stats()
    pull(store)
    written(store)
    after = store.stats()
    assert (before.doubted, before.unchecked_packs) == (0, 0)
    assert (after.doubted, after.unchecked_packs) == (1, 1)
    assert after.checked == before.checked > 0


def test_whoever_keeps_the_store_is_told_when_it_is_marked(store: Store) -> None:
    """Not before: a scrub that looks too early finds nothing due."""
    told, seen = threading.Event(), list[bool]()

    def call() -> None:
        seen.append(store.is_scrub_due(1))
        told.set()

    store.when_doubted(call)
    flip_a_bit(store)
    pull(store)
    assert told.wait(60)
    assert seen == [True]


class TestUnderWay:
    """A scrub of days is no reason to wait for days."""

    @pytest.fixture(autouse=True)
    def often(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Small packs are worth a look each."""
        monkeypatch.setattr("cas.scrub._HEED_BYTES", 100 * KIB)

    def test_what_is_doubted_meanwhile_comes_next(self, store: Store) -> None:
        """What was being read is read again afterwards; nothing that was read through is."""
        order, count = list[str](), list[int]()

        def told(size: int) -> None:
            if not count:
                flip_a_bit(store)
                pull(store)
                written(store)
            count.append(size)
            order.append("set aside" if store.stats().lost else "read")

        assert [done.lost for done in store.scrub(due(), told=told)] == [(TEXT_DIGEST,)]
        first = order.index("set aside")
        assert sum(count[:first]) <= 3 * SMALL.pack_bytes
        assert len(order) > first + 1
        assert store.stats().unchecked_packs <= 1  # that which the salvage wrote
        assert sum(count) <= sum(path.stat().st_size for path in packs_of(store._parts.layout.root)) * 2

    def test_what_cannot_be_dealt_with_now_does_not_keep_it_from_the_rest(self, store: Store) -> None:
        """It is left for the next scrub, and every other pack gets its mark."""
        pack = flip_a_bit(store)
        pull(store)
        written(store)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("cas.scrub.mend", failing(Busy))
            scrubbed = list(store.scrub(due(), wait_s=0))
        assert [bool(done.left) for done in scrubbed] == [False, True]
        assert doubted(store) == {pack}
        assert {each for each, when in marks(store).items() if when} == set(rows(store)) - {pack}


def failing(kind: type[CasError], failed: threading.Event | None = None) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        if failed is not None:
            failed.set()
        raise kind("planted")

    return fail


def rows(store: Store) -> list[int]:
    return [row.pack for row in store._parts.index.read(lambda view: view.packs())]


class TestCannotBeWritten:
    """The read fails as it would have, and with no other error."""

    def test_on_a_full_disk_it_is_marked_when_there_is_room(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By the tick of this process."""
        pack = flip_a_bit(store)
        written(store)
        write = Environment.write
        monkeypatch.setattr(Environment, "write", failing(NoSpace))
        pull(store)
        with pytest.raises(NoSpace):
            written(store)
        monkeypatch.setattr(Environment, "write", write)
        assert doubted(store) == set()
        store.tick()
        assert doubted(store) == {pack}

    def test_a_disk_that_failed_is_not_asked_again_for_it(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        """A second failure would end all writes, and this one write is not worth that."""
        flip_a_bit(store)
        written(store)
        write, failed = Environment.write, threading.Event()
        monkeypatch.setattr(Environment, "write", failing(DiskFailed, failed))
        pull(store)
        assert failed.wait(60)
        monkeypatch.setattr(Environment, "write", write)
        store.tick()
        assert doubted(store) == set()
        push(store, "more", noise(40 * KIB, 9))

    def test_a_store_that_takes_no_more_writes_says_the_same(self, store: Store) -> None:
        """And nothing is tried again."""
        flip_a_bit(store)
        for _ in range(2):
            store._parts.committer.note_failure()
        pull(store)
        store._doubts.catch_up()
        assert marks(store) == {}


DIES = """
import os, sys
from pathlib import Path
from cas import Damaged, Digest, Store
from tests.support.engine import SMALL, read
store = Store.open(Path(sys.argv[1]), SMALL)
try:
    read(store, Digest.parse(sys.argv[2]))
except Damaged:
    if sys.argv[3] == "True":
        store._parts.committer.run(lambda _edit, _draft: None)
    os._exit(0)
"""


@pytest.mark.parametrize("is_marked", [True, False])
def test_a_mark_is_there_or_not_whenever_the_process_dies(root: Path, *, is_marked: bool) -> None:
    """Once it is written it outlives the process; if it was not, the next reader makes it."""
    with Store.open(root, SMALL) as store:
        pack = flip_a_bit(store)
    run_python(DIES, root, str(TEXT_DIGEST), is_marked)
    with Store.open(root, SMALL, clock=later) as store:
        assert doubted(store) in ([{pack}] if is_marked else [{pack}, set()])
        pull(store)
        assert doubted(store) == {pack}
        assert [done.lost for done in store.scrub(1)] == [(TEXT_DIGEST,)]


def test_what_rots_behind_the_scrub_while_it_reads_a_pack_stays_doubted(store: Store) -> None:
    """A reader saw it before the scrub was done with the pack, and says so once: the scrub reads it again."""
    places = [row.extent for _, row in chunks_of(store, TEXT_DIGEST)]
    size, rotten = sum(place.stored for place in places if place.pack == places[0].pack), list[int]()

    def told(count: int) -> None:
        if count == size and not rotten:
            rotten.append(flip_a_bit(store))
            with pytest.raises(Damaged):
                read(store, TEXT_DIGEST)
            assert doubted(store) == set(rotten)

    found = [finding for scrubbed in store.scrub(due(), told=told) for finding in scrubbed.found]
    assert rotten
    assert {finding.pack for finding in found} == set(rotten)
    assert not doubted(store)


def test_what_the_scrub_acquitted_is_doubted_again_when_it_rots(root: Path) -> None:
    """A server lives for months: that memory erred once says nothing of what its readers see later."""
    disk = BadDisk()
    with Store.open(root, SMALL, clock=later, disk=disk) as store:
        disk.wrong = 1
        with pytest.raises(Damaged):
            read(store, TEXT_DIGEST)
        assert len(doubted(store)) == 1
        assert list(store.scrub(1)) == []
        store.tick()
        pack = flip_a_bit(store)
        pull(store)
        assert doubted(store) == {pack}
        store.tick()
        pull(store)
        assert [done.lost for done in store.scrub(1)] == [(TEXT_DIGEST,)]
