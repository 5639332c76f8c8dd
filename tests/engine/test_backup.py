"""A backup is a whole store of one moment, wherever its making ends; what is restored is what was there (I1, I3)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from cas import Busy, DiskFailed, InUse, Name, NoSpace, NotAStore, Occupied, RootReadOnly, Store, rebuild_index, restore
from cas.disk import Disk
from cas.identity import inspect_manifest, mend_manifest
from cas.layout import Layout
from cas.lease import maintenance_lock
from cas.mirror import CopyReport
from tests.support.ending import BreakingDisk, Ends, each_backup, each_step, use
from tests.support.engine import KIB, MIB, SMALL, file_ranges, flip, noise, opened, packs_of, prose, push, read
from tests.support.processes import can_mount, run_python, run_to_its_death

Contents = dict[str, bytes]


def contents(store: Store) -> Contents:
    """Every name with the bytes it holds."""
    return {name.path: read(store, record.holds[0]) for name, record in store.scan("thing")}


def contents_of(root: Path) -> Contents:
    with Store.open(root, SMALL) as store:
        return contents(store)


def fill(store: Store, *seeds: int) -> None:
    """One large raw, one large compressed and one inline blob a seed."""
    for seed in seeds:
        push(store, f"noise-{seed}", noise(MIB, seed))
        push(store, f"prose-{seed}", prose(300 * KIB, seed))
        push(store, f"small-{seed}", noise(500, seed))


def test_what_is_restored_is_what_was_there(tmp_path: Path) -> None:
    """Blobs in packs, compressed and inline; and it can be pushed to, rebuilt and backed up itself."""
    with opened(tmp_path / "root") as store:
        fill(store, 1, 2)
        before = contents(store)
        assert store.backup(tmp_path / "backup").damaged == []
    assert restore(tmp_path / "backup", tmp_path / "new", SMALL).damaged == []
    assert contents_of(tmp_path / "new") == before
    with opened(tmp_path / "new") as store:
        fill(store, 3)
        store.backup(tmp_path / "second")
        after = contents(store)
    shutil.rmtree(tmp_path / "new" / "index")
    rebuild_index(tmp_path / "new", SMALL)
    assert contents_of(tmp_path / "new") == after == contents_of(tmp_path / "second")


def test_a_backup_can_be_opened_and_brought_up_to_date_afterwards(tmp_path: Path) -> None:
    """Looking at a backup spoils nothing."""
    with opened(tmp_path / "root") as store:
        fill(store, 1)
        store.backup(tmp_path / "backup")
        assert contents_of(tmp_path / "backup") == contents(store)
        fill(store, 2)
        store.change(lambda names: names.delete(Name("thing", "noise-1")))
        store.backup(tmp_path / "backup")
        assert contents_of(tmp_path / "backup") == contents(store)


def test_only_what_is_new_is_copied(tmp_path: Path) -> None:
    """Counted: nothing when nothing happened, else about the new bytes; sealed packs never again."""
    with opened(tmp_path / "root") as store:
        fill(store, 1)
        first = store.backup(tmp_path / "backup")
        assert (
            first.copied_bytes == first.pack_bytes == sum(path.stat().st_size for path in packs_of(tmp_path / "backup"))
        )
        assert store.backup(tmp_path / "backup").copied_bytes == 0
        push(store, "more", noise(100 * KIB, 9))
        again = store.backup(tmp_path / "backup")
        assert 100 * KIB <= again.copied_bytes <= 104 * KIB
        assert again.copied_bytes == again.pack_bytes - first.pack_bytes
    with opened(tmp_path / "root") as store:  # its packs were sealed when it was closed: footers are all that is new
        assert store.backup(tmp_path / "backup").copied_bytes <= 2 * KIB
        assert contents_of(tmp_path / "backup") == contents(store)


def test_a_backup_beside_pushes_has_all_that_was_acknowledged_before(tmp_path: Path) -> None:
    """And of what came later only what is whole; nothing that was deleted before."""
    done = threading.Event()
    pushed: list[str] = []

    def work(store: Store, number: int) -> None:
        round_ = 0
        while not done.is_set():
            path = f"{number}-{round_}"
            push(store, path, noise(150 * KIB, hash((number, round_)) & 0xFFFF))
            pushed.append(path)
            round_ += 1

    with opened(tmp_path / "root") as store:
        fill(store, 1)
        store.change(lambda names: names.delete(Name("thing", "prose-1")))
        threads = [threading.Thread(target=work, args=(store, number)) for number in range(2)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(3):
                before = set(pushed)
                assert store.backup(tmp_path / "backup").damaged == []
                shutil.rmtree(tmp_path / "new", ignore_errors=True)
                assert restore(tmp_path / "backup", tmp_path / "new", SMALL).damaged == []
                found = contents_of(tmp_path / "new")
                assert before | {"noise-1", "small-1"} <= found.keys()
                assert "prose-1" not in found
                assert all(
                    read(store, record.holds[0]) == found[name.path]
                    for name, record in store.scan("thing")
                    if name.path in found
                )
        finally:
            done.set()
            for thread in threads:
                thread.join(30)


@pytest.mark.usefixtures("unsynced")
@pytest.mark.parametrize("failure", [Ends, NoSpace, DiskFailed])
def test_a_backup_that_ends_anywhere_leaves_the_one_before_or_the_new_one(
    tmp_path: Path, failure: type[BaseException]
) -> None:
    """At each change of the disk in turn; the next call goes on to the same end."""
    first = tmp_path / "first"
    with opened(tmp_path / "root") as store:
        push(store, "old", noise(300 * KIB, 1))
        push(store, "gone", prose(200 * KIB, 2))
        store.backup(first)
        old = contents(store)
        store.change(lambda names: names.delete(Name("thing", "gone")))
        store.collect()
        store.compact(everything=True)  # so that packs go from the backup too
        push(store, "new", noise(200 * KIB, 7))
        new = contents(store)

        def is_one(left: Path) -> None:
            assert contents_of(left) in (old, new)

        def is_new(report: CopyReport, backup: Path) -> None:
            assert report.damaged == []
            assert contents_of(backup) == new

        each_backup(store, first, failure, left=is_one, done=is_new)


def test_a_refused_restore_leaves_nothing_in_its_root(tmp_path: Path) -> None:
    """The folder is as empty as it was, be the store in use that was to be copied, or the place taken."""
    with opened(tmp_path / "store") as store:
        push(store, "a", noise(200 * KIB))
        with pytest.raises(InUse):
            restore(tmp_path / "store", tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []
    restore(tmp_path / "store", tmp_path / "new")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "new").rglob("*")}
    with pytest.raises(Occupied):
        restore(tmp_path / "store", tmp_path / "new")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "new").rglob("*")} == before


def refuses_to_make_do(root: Path) -> None:
    """Nobody takes what a restore brought so far for all there is, and makes a store of that."""
    if inspect_manifest(root, SMALL) is not None:  # something of a store is there
        with pytest.raises(NotAStore, match="call it again" if (root / "backup.json").exists() else ""):
            mend_manifest(root, SMALL)


@pytest.mark.usefixtures("unsynced")
@pytest.mark.parametrize("is_damaged", [False, True])
def test_a_restore_that_ends_anywhere_goes_on(tmp_path: Path, *, is_damaged: bool) -> None:
    """Until it is done the root is no store; then it is whole. What is damaged is told by the last call, too."""
    with opened(tmp_path / "root") as store:
        fill(store, 1)
        before = contents(store)
        if is_damaged:  # bytes that nobody asks for
            piece = file_ranges(store, push(store, "gone", noise(200 * KIB, 5)))[0]
            flip(Path(f"/proc/self/fd/{piece.fd}").resolve(), piece.offset + 7)
            store.change(lambda names: names.delete(Name("thing", "gone")))
        damaged = store.backup(tmp_path / "backup").damaged
    assert bool(damaged) == is_damaged

    def work(disk: BreakingDisk) -> None:
        shutil.rmtree(tmp_path / "new", ignore_errors=True)
        try:
            restore(tmp_path / "backup", tmp_path / "new", SMALL, disk=disk)
        except Ends:
            if not (tmp_path / "new" / "store.json").exists():
                with pytest.raises(NotAStore):
                    Store.open(tmp_path / "new", SMALL)
                refuses_to_make_do(tmp_path / "new")
            assert restore(tmp_path / "backup", tmp_path / "new", SMALL).damaged == damaged
            assert not {"backup.json", "backup.lock"} & {path.name for path in (tmp_path / "new").iterdir()}
            assert contents_of(tmp_path / "new") == before
            raise

    assert each_step(work, Ends) > 10


def test_a_restore_that_was_cut_off_at_its_end_overwrites_nothing_that_came_since(tmp_path: Path) -> None:
    """Neither what was pushed to what it made, nor another backup of the same store, which looks much like it."""

    class Last(BreakingDisk):
        def unlink(self, path: Path) -> None:
            if path.name in {"backup.json", "backup.lock"}:
                raise Ends
            super().unlink(path)

    with opened(tmp_path / "root") as store:
        fill(store, 1)
        store.backup(tmp_path / "backup")
        store.backup(tmp_path / "other")
    with pytest.raises(Ends):
        restore(tmp_path / "backup", tmp_path / "new", SMALL, disk=Last(1000, Ends))
    with Store.open(tmp_path / "new", SMALL) as store:
        push(store, "new", noise(100 * KIB, 9))
        after = contents(store)
    with pytest.raises(Occupied, match="took changes of its own since it was restored"):
        restore(tmp_path / "backup", tmp_path / "new", SMALL)
    assert contents_of(tmp_path / "new") == after
    with pytest.raises(Occupied, match="is not empty"):
        restore(tmp_path / "backup", tmp_path / "other", SMALL)
    assert (tmp_path / "other" / "backup.json").exists()


def test_a_tail_that_was_written_and_never_synced_is_written_anew(tmp_path: Path) -> None:
    """A kill and then a power cut, while a pack was written on: its length says nothing, the diary does."""

    class Cut(BreakingDisk):
        def sync(self, fd: int) -> None:
            end = self.size(fd)
            if end < 90 * KIB:  # the journal, or what was there before
                return super().sync(fd)
            super().write(fd, [bytes(64 * KIB)], end - 64 * KIB)  # what a power cut leaves of it
            raise Ends

    with opened(tmp_path / "root") as store:
        push(store, "one", noise(80 * KIB, 1))
        store.backup(tmp_path / "backup")
        push(store, "two", noise(90 * KIB, 2))
        use(store, Cut(1000, Ends))
        with pytest.raises(Ends):
            store.backup(tmp_path / "backup")
        use(store, Disk())
        report = store.backup(tmp_path / "backup")
        assert report.damaged == []
        assert report.copied_bytes > 90 * KIB
        assert contents_of(tmp_path / "backup") == contents(store)


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize("where", ["header", "data", "record", "end"])
def test_a_flipped_bit_is_reported_and_copied_all_the_same(tmp_path: Path, where: str, *, sealed: bool) -> None:
    """In every class of bytes of a pack, be it closed in good order or not; a restore says so too."""
    store = Store.open(tmp_path / "root", SMALL, create=True)
    push(store, "one", noise(200 * KIB, 1))
    if sealed:
        store.close()
    largest = max(packs_of(tmp_path / "root"), key=lambda path: path.stat().st_size)
    size = largest.stat().st_size
    record = largest.read_bytes().find(largest.read_bytes()[32:48], 64)
    flip(largest, {"header": 20, "data": 1000, "record": record + 20, "end": size - 20}[where])
    if sealed:
        store = Store.open(tmp_path / "root", SMALL)
    with store:
        damaged = store.backup(tmp_path / "backup").damaged
        assert damaged
        assert all(largest.stem in line for line in damaged)
        assert store.backup(tmp_path / "backup").damaged == damaged  # as long as it is so
    assert restore(tmp_path / "backup", tmp_path / "new", SMALL).damaged == damaged


def test_a_pack_that_is_missing_or_short_is_reported(tmp_path: Path) -> None:
    """The rest is copied; once the pack is back, so is it in the copy."""
    with opened(tmp_path / "root") as store:
        fill(store, 1)
    largest = max(packs_of(tmp_path / "root"), key=lambda path: path.stat().st_size)
    whole = largest.read_bytes()
    with opened(tmp_path / "root") as store:
        largest.unlink()
        assert store.backup(tmp_path / "backup").damaged == [
            f"pack {largest.stem} is missing, and so it is in the copy"
        ]
        largest.write_bytes(whole[:-100])
        assert any("ends at byte" in line for line in store.backup(tmp_path / "backup").damaged)
        largest.write_bytes(whole)
        assert store.backup(tmp_path / "backup").damaged == []
        assert contents_of(tmp_path / "backup") == contents(store)


def test_nothing_is_written_over_that_is_not_this_stores_backup(tmp_path: Path) -> None:
    """Folders with other things, the store itself, another's backup, one that was pushed to, one in use."""
    with opened(tmp_path / "other") as other:
        push(other, "x", b"x")
        other.backup(tmp_path / "others")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    with opened(tmp_path / "root") as store:
        push(store, "one", noise(100 * KIB, 1))
        store.backup(tmp_path / "pushed")
        for folder in ("other", "others", "full", "root", "root/inside", "."):
            with pytest.raises(Occupied):
                store.backup(tmp_path / folder)
        with Store.open(tmp_path / "pushed", SMALL) as serving:
            with pytest.raises(InUse):
                store.backup(tmp_path / "pushed")
            push(serving, "two", b"two")
        with pytest.raises(Occupied, match="changes of its own"):
            store.backup(tmp_path / "pushed")
        with pytest.raises(InUse):
            restore(tmp_path / "root", tmp_path / "new", SMALL)
    assert contents_of(tmp_path / "pushed")["two"] == b"two"
    for root in ("other", "full", "pushed"):
        with pytest.raises(Occupied):
            restore(tmp_path / "others", tmp_path / root, SMALL)
    with pytest.raises(NotAStore):
        restore(tmp_path / "full", tmp_path / "new", SMALL)
    assert sorted(path.name for path in (tmp_path / "full").iterdir()) == ["file"]


def overfill(*, mount: bool) -> None:
    """Run in a process of its own: a backup whose disk gets full, on a tmpfs of its own if `mount`."""
    base = Path(sys.argv[1])
    dest = base / "dest"
    dest.mkdir()
    if mount:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", dest], check=True)
    with opened(base / "root") as store:
        fill(store, 1)
        store.backup(dest)
        before = contents(store)
        for seed in (2, 3, 4):
            fill(store, seed)
        for attempt in range(3):
            try:
                store.backup(dest)
            except NoSpace:
                restore(dest, base / f"new{attempt}", SMALL)
                assert contents_of(base / f"new{attempt}") == before
            else:
                assert not mount, "there is no room for this"
        for seed in (2, 3, 4):
            push(store, f"still-{seed}", b"its own disk is another one")
    print("kept")  # noqa: T201 - what the test waits for


def test_a_store_that_was_restored_does_not_overwrite_a_later_backup(tmp_path: Path) -> None:
    """It has the same name and knows less; once it is ahead of its own backup it goes on with that."""
    root, copy, twin = tmp_path / "root", tmp_path / "copy", tmp_path / "twin"
    with opened(root) as store:
        fill(store, 1)
        store.backup(copy)
        restore(copy, twin, SMALL)
        fill(store, 2)
        store.backup(copy)
    with opened(twin) as store:
        with pytest.raises(Occupied, match=r"holds a later state than .* \(change 6, and here 3\)"):
            store.backup(copy)
        store.backup(tmp_path / "own")
        fill(store, 3)
        store.backup(tmp_path / "own")
    assert len(contents_of(copy)) == 6


@pytest.mark.parametrize("mount", [pytest.param(True, id="tmpfs"), pytest.param(False, id="roomy")])
def test_a_full_disk_leaves_the_backup_before_and_the_store_alone(tmp_path: Path, *, mount: bool) -> None:
    """On a real small filesystem, where the kernel lets us mount one; the store itself goes on."""
    mount = mount and can_mount()
    script = f"from tests.engine.test_backup import overfill; overfill(mount={mount})"
    assert run_python(script, tmp_path, mounts=mount).stdout == "kept\n"


def rescue(*, mount: bool) -> None:
    """Run in a process of its own: the folder of a killed store restored from where nothing can be written."""
    base = Path(sys.argv[1])
    lost, root = base / "lost", base / "root"
    with opened(lost) as store:
        fill(store, 1, 2)
        kept = contents(store)
        shutil.copytree(lost, root)  # as a killed process would leave it, its lease and open packs included
    assert any((root / "locks").iterdir())
    if mount:
        subprocess.run(["mount", "--bind", root, root], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", root], check=True)
        with pytest.raises(RootReadOnly):
            Store.open(root, SMALL)
    restore(root, base / "new", SMALL)
    assert contents_of(base / "new") == kept
    print("kept")  # noqa: T201 - what the test waits for


def test_a_store_on_a_disk_that_takes_no_more_writes_is_rescued_by_a_restore(tmp_path: Path) -> None:
    """Its processes died with the disk, and what they left stays there. Where nobody may mount, a plain folder."""
    mount = can_mount()
    script = f"from tests.engine.test_backup import rescue; rescue(mount={mount})"
    assert run_python(script, tmp_path, mounts=mount).stdout == "kept\n"


class KillingDisk(Disk):
    """Ends the process the hard way at the n-th write, rename or sync."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self._left = after

    def _step(self) -> None:
        self._left -= 1
        if self._left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def write(self, fd: int, buffers: Sequence[bytes | bytearray | memoryview], offset: int) -> int:
        done = super().write(fd, buffers, offset)
        self._step()
        return done

    def rename(self, path: Path, to: Path) -> None:
        super().rename(path, to)
        self._step()

    def sync(self, fd: int) -> None:
        super().sync(fd)
        self._step()


def backup_and_die(after: int) -> None:
    """Run in a process of its own, which is killed in the middle of a backup."""
    base = Path(sys.argv[1])
    with Store.open(base / "root", SMALL) as store:
        use(store, KillingDisk(after))
        store.backup(base / "backup")


def test_a_process_killed_while_it_makes_a_backup_leaves_nothing_to_mend(tmp_path: Path) -> None:
    """Its locks are gone with it; the next backup goes on, beside whatever it left."""
    with opened(tmp_path / "root") as store:
        fill(store, 1)
        store.backup(tmp_path / "backup")
        fill(store, 2)
        before = contents(store)
    for after in (1, 4, 6):
        script = f"from tests.engine.test_backup import backup_and_die; backup_and_die({after})"
        run_to_its_death(script, tmp_path)
    with opened(tmp_path / "root") as store:
        assert store.backup(tmp_path / "backup").damaged == []
    assert contents_of(tmp_path / "backup") == before


def test_nobody_opens_a_backup_while_it_is_being_made(tmp_path: Path) -> None:
    """Its index is about to be another one."""
    impatient = replace(SMALL, write_wait_s=0.05)
    refused = 0

    def try_to_open(_done: int, _total: int) -> None:
        nonlocal refused
        for folder in (tmp_path / "backup", tmp_path / "new"):
            with pytest.raises((Busy, NotAStore)):
                Store.open(folder, impatient)
            refused += 1

    with opened(tmp_path / "root") as store:
        fill(store, 1)
        store.backup(tmp_path / "backup")
        fill(store, 2)
        store.backup(tmp_path / "backup", try_to_open)
        before = contents(store)
    restore(tmp_path / "backup", tmp_path / "new", SMALL, progress=try_to_open)
    assert refused > 4
    assert contents_of(tmp_path / "new") == before


def test_a_backup_and_a_collection_keep_out_of_each_others_way(tmp_path: Path) -> None:
    """One of them at a time; whoever comes second is told."""
    with opened(tmp_path / "root") as store:
        push(store, "one", b"one")
        with maintenance_lock(Layout(tmp_path / "root")), pytest.raises(InUse, match="try again"):
            store.backup(tmp_path / "backup")
        store.backup(tmp_path / "backup")
        with maintenance_lock(Layout(tmp_path / "root")):
            pass


def test_what_was_collected_leaves_the_backup_too(tmp_path: Path) -> None:
    """Packs that were rewritten or emptied are replaced; nothing that is named goes."""
    with opened(tmp_path / "root") as store:
        fill(store, 1, 2)
        store.backup(tmp_path / "backup")
        store.change(lambda names: [names.delete(Name("thing", f"{kind}-1")) for kind in ("noise", "prose", "small")])
        assert not store.collect().unfinished
        store.compact(everything=True)
        report = store.backup(tmp_path / "backup")
        assert report.removed > 0
        assert report.damaged == []
        assert sum(path.stat().st_size for path in packs_of(tmp_path / "backup")) == report.pack_bytes
        before = contents(store)
    assert contents_of(tmp_path / "backup") == before
    assert restore(tmp_path / "backup", tmp_path / "new", SMALL).damaged == []
    assert contents_of(tmp_path / "new") == before


def test_the_bytes_told_of_reach_the_whole(tmp_path: Path) -> None:
    """Never backwards, and the last is all."""
    told: list[tuple[int, int]] = []
    with opened(tmp_path / "root") as store:
        fill(store, 1)
        report = store.backup(tmp_path / "backup", lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert told[0] == (0, report.copied_bytes)
    assert told[-1] == (report.copied_bytes, report.copied_bytes)
