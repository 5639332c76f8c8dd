"""A disk that is full, or fails: nothing acknowledged is lost, nothing refused is half there, reads go on (I1, I2)."""

# ruff: noqa: SLF001 - what a promise rests on is looked at inside, not only from the front

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import lmdb
import pytest

import cas.environment
from cas import (
    CasError,
    Depth,
    Digest,
    DiskFailed,
    EngineSettings,
    Missing,
    Name,
    Names,
    NoSpace,
    ReadOnly,
    Record,
    Store,
    rebuild_index,
)
from cas.disk import Disk
from tests.support.engine import KIB, MIB, SMALL, noise, opened, packs_of, push, read
from tests.support.faults import Fault, FaultyCalls, before_commits
from tests.support.processes import can_mount, run_python
from tests.support.writer import script

Contents = dict[str, bytes]


def contents(store: Store) -> Contents:
    """Every name with the bytes it holds."""
    return {name.path: read(store, record.holds[0]) for name, record in store.scan("thing")}


class FaultyDisk(Disk):
    """The real disk, until told otherwise; remembers what was done to a file after a sync of it failed."""

    def __init__(self) -> None:
        super().__init__()
        self.fails: Callable[[int, str], type[CasError] | None] = lambda _number, _verb: None
        self.number = 0
        self.unsynced: set[int] = set()  # descriptors whose sync failed
        self.retried = self.failed_syncs = 0

    def _step(self, verb: str, fd: int = -1) -> None:
        self.retried += fd in self.unsynced
        failure = self.fails(self.number, verb)
        self.number += 1
        if failure is not None:
            if verb == "sync":
                self.unsynced.add(fd)
                self.failed_syncs += 1
            raise failure("planted")

    def create(self, path: Path) -> int:
        self._step("create")
        fd = super().create(path)
        self.unsynced.discard(fd)
        return fd

    def write(self, fd: int, buffers: Sequence[bytes | bytearray | memoryview], offset: int) -> int:
        self._step("write", fd)
        return super().write(fd, buffers, offset)

    def sync(self, fd: int) -> None:
        self._step("sync", fd)
        super().sync(fd)

    def sync_folder(self, path: Path) -> None:
        self._step("sync_folder")
        super().sync_folder(path)

    def truncate(self, fd: int, size: int) -> None:
        self._step("truncate", fd)
        super().truncate(fd, size)


def work(store: Store, expected: Contents, steps: int = 8) -> list[CasError]:
    """Do a writer's steps; note in `expected` what was acknowledged and return the refusals."""
    refusals = []
    for path, data in script(1, steps):
        try:
            if data is None:
                store.change(lambda names, path=path: names.delete(Name("thing", path)))  # type: ignore[misc]
                expected.pop(path, None)
            else:
                push(store, path, data)
                expected[path] = data
        except CasError as error:
            refusals.append(error)
    return refusals


class TestFaults:
    """One disk operation fails."""

    @pytest.mark.parametrize("failure", [DiskFailed, NoSpace])
    @pytest.mark.parametrize("first", range(0, 42, 3))
    def test_one_failed_operation_costs_at_most_one_push(
        self, first: int, failure: type[CasError], tmp_path: Path
    ) -> None:
        """Whichever it is: what was acknowledged is there, what was refused is not, live, reopened and rebuilt."""
        for number in range(first, first + 3):
            root, disk, expected = tmp_path / str(number), FaultyDisk(), Contents()
            with Store.open(root, SMALL, create=True, disk=disk) as store:
                start = disk.number
                disk.fails = lambda at, _, number=number + start: failure if at == number else None  # type: ignore[misc]
                refusals = work(store, expected)
                assert len(refusals) <= 1
                assert contents(store) == expected
            assert disk.retried == 0
            with opened(root) as store:
                assert contents(store) == expected
                assert store._parts.index.read(lambda view: view.uploads()) == []
                stats = store.stats()
            for path in (root / "index").iterdir():
                path.unlink()
            assert rebuild_index(root, SMALL).damaged == []
            with opened(root) as store:
                assert contents(store) == expected
                assert store.stats().logical_bytes == stats.logical_bytes

    def test_a_failed_sync_of_data_fails_the_push_and_is_never_retried(self, tmp_path: Path) -> None:
        """The pack is out of use: nothing more is written to it, the next push goes to another."""
        disk, data = FaultyDisk(), noise(300 * KIB)
        with Store.open(tmp_path, SMALL, create=True, disk=disk) as store:
            push(store, "before", noise(300 * KIB, 1))
            left = 1

            def once(_: int, verb: str) -> type[CasError] | None:
                nonlocal left
                left -= verb == "sync"
                return DiskFailed if verb == "sync" and left == 0 else None

            disk.fails = once
            with pytest.raises(DiskFailed):
                push(store, "a", data)
            with pytest.raises(Missing):
                store.stat(Digest.of(data))
            push(store, "a", data)
            assert contents(store) == {"before": noise(300 * KIB, 1), "a": data}
        assert (disk.failed_syncs, disk.retried) == (1, 0)

    @pytest.mark.parametrize("verb", ["sync", "write", "create", "sync_folder"])
    def test_a_disk_that_keeps_failing_makes_the_store_read_only(self, verb: str, tmp_path: Path) -> None:
        """After the second failure every write says ReadOnly and touches the disk no more; reads go on."""
        disk = FaultyDisk()
        with Store.open(tmp_path, replace(SMALL, pack_bytes=100 * KIB), create=True, disk=disk) as store:
            push(store, "before", noise(300 * KIB, 1))
            disk.fails = lambda _, what: DiskFailed if what == verb else None
            for n in range(2):
                with pytest.raises(DiskFailed):
                    push(store, "refused", noise(300 * KIB, 2 + n))
            number = disk.number
            with pytest.raises(ReadOnly, match="check the disk, then restart"):
                push(store, "refused", noise(300 * KIB, 4))
            with pytest.raises(ReadOnly):
                store.change(lambda names: names.put(Name("thing", "refused"), Record(b"")))
            assert contents(store) == {"before": noise(300 * KIB, 1)}
            assert disk.number == number
            disk.fails = lambda *_: None
        assert disk.retried == 0
        with opened(tmp_path) as store:
            push(store, "after", b"good again")
            assert contents(store) == {"before": noise(300 * KIB, 1), "after": b"good again"}

    def test_a_failure_of_the_index_while_a_pack_is_made_is_one_failure(self, tmp_path: Path) -> None:
        """It costs the push under way, and the store goes on taking writes."""
        calls = FaultyCalls(0)
        with Store.open(tmp_path, SMALL, create=True) as store:
            before_commits(store, calls.before_commit)
            calls.plan(Fault("commit", errno.EIO))
            with pytest.raises(DiskFailed):
                push(store, "refused", noise(300 * KIB))
            push(store, "a", noise(300 * KIB))
            assert contents(store) == {"a": noise(300 * KIB)}

    def test_a_full_disk_is_no_failing_disk(self, tmp_path: Path) -> None:
        """NoSpace may come as often as it likes: once there is room, the same store takes writes."""
        disk = FaultyDisk()
        with Store.open(tmp_path, SMALL, create=True, disk=disk) as store:
            push(store, "before", noise(300 * KIB, 1))
            disk.fails = lambda _, verb: NoSpace if verb in {"write", "create"} else None
            for n in range(5):
                with pytest.raises(NoSpace):
                    push(store, "refused", noise(300 * KIB, 2 + n))
                with pytest.raises(NoSpace):
                    store.change(lambda names: names.put(Name("thing", "refused"), Record(b"")))
            disk.fails = lambda *_: None
            push(store, "after", noise(300 * KIB, 9))
            assert contents(store).keys() == {"before", "after"}

    def test_what_a_full_disk_took_half_is_given_back(self, tmp_path: Path) -> None:
        """A write that fails half way leaves no bytes beyond the pack's end, nor a pack without its header."""

        class Half(Disk):
            full = False

            def write(self, fd: int, buffers: Sequence[bytes | bytearray | memoryview], offset: int) -> int:
                if self.full:
                    data = b"".join(buffers)
                    super().write(fd, [data[: len(data) // 2]], offset)
                    raise NoSpace("planted")
                return super().write(fd, buffers, offset)

        disk = Half()
        with Store.open(tmp_path, SMALL, create=True, disk=disk) as store:
            push(store, "before", noise(200 * KIB, 1))
            before = store.stats().pack_bytes
            disk.full = True
            for n in range(3):
                with pytest.raises(NoSpace):
                    push(store, "refused", noise(2 * MIB, n + 2))
            with store.upload() as one, store.upload() as two:
                for upload in (one, two):
                    with pytest.raises(NoSpace):  # noqa: PT012 - somewhere on the way
                        for n in range(4):
                            upload.write(noise(MIB, 50 + n))
            assert store.stats().pack_bytes == before


@pytest.mark.parametrize(("full", "error"), [(True, NoSpace), (False, DiskFailed)])
def test_a_half_write_of_the_index_is_a_full_disk_only_if_the_disk_is_full(
    full: bool,
    error: type[CasError],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The database says the same of both, so the disk is asked."""
    monkeypatch.setattr(cas.environment, "_is_full", lambda _: full)
    with pytest.raises(error), cas.environment._Errors(str(tmp_path)):
        raise lmdb.Error("mdb_txn_commit: Input/output error")


class QuotaDisk(Disk):
    """The real disk with room for so many bytes of packs."""

    def __init__(self, root: Path, size: int) -> None:
        super().__init__()
        self._root, self._size = root, size

    def free_bytes(self, path: Path) -> tuple[int, int]:
        return self._size - sum(pack.stat().st_size for pack in packs_of(self._root)), self._size

    def write(self, fd: int, buffers: Sequence[bytes | bytearray | memoryview], offset: int) -> int:
        if sum(map(len, buffers)) > self.free_bytes(self._root)[0]:
            raise NoSpace("planted")
        return super().write(fd, buffers, offset)


def pad(root: Path, disk: Disk, reserve: int) -> None:
    """Fill what is left above the reserve with a file that is none of the store's."""
    while (left := disk.free_bytes(root)[0] - reserve + 4 * KIB) > 0:
        with (root / "packs" / "pad.pack").open("ab") as file:
            file.write(bytes(left))


def move_name(names: Names, old: str, new: str) -> None:
    """Put a record under another name, as a deletion that can be undone does."""
    record = names.get(Name("thing", old))
    assert record is not None
    names.put(Name("thing", new), record)
    names.delete(Name("thing", old))


def begin_session(store: Store) -> None:
    """Store the first bytes of a resumable upload."""
    with store.resume(1) as upload:
        upload.write(b"more")
        upload.suspend()


def refuses_to_grow(store: Store) -> None:
    """Whatever adds bytes is refused, however few."""
    for grow in (
        lambda: store.change(lambda names: names.put(Name("note", "small"), Record(b"more"))),
        lambda: push(store, "tiny", b"more"),
        lambda: begin_session(store),
    ):
        with pytest.raises(NoSpace):
            grow()


def small_disk(root: Path, size: int, *, mount: bool) -> Disk:
    """Give a folder so much room and no more: a filesystem of its own, or by quota."""
    if not mount:
        return QuotaDisk(root, size)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", root], check=True)
    return Disk()


def push_until_full(store: Store, size: int) -> Contents:
    """Push blobs of one size until one is refused; return what was acknowledged."""
    expected: Contents = {}
    for n in range(200):
        try:
            push(store, f"{n}", noise(size, n))
        except NoSpace:
            break
        expected[f"{n}"] = noise(size, n)
    return expected


def fill(reserve: int, *, mount: bool) -> None:
    """Run in a process of its own: a store with room for 8 MiB, on a tmpfs if `mount`, filled until it refuses."""
    root = Path(sys.argv[1])
    disk = small_disk(root, 8 * MIB, mount=mount)
    settings = replace(SMALL, reserve_bytes=reserve, reserve_share=1.0)
    with Store.open(root, settings, create=True, disk=disk) as store:
        expected = push_until_full(store, 700 * KIB)
        assert 5 < len(expected) < 12, len(expected)
        assert contents(store) == expected
        used = store.stats().pack_bytes
        for n in range(5):
            try:
                with store.upload() as upload:
                    for part in range(30):
                        upload.write(noise(300 * KIB, 1000 + 100 * n + part))
                raise AssertionError("there is no room for this")
            except NoSpace:
                pass
        assert store.stats().pack_bytes <= used + reserve // 4, "the space of failed uploads is back"
        if reserve:
            pad(root, disk, reserve)
            refuses_to_grow(store)
            store.change(lambda names: move_name(names, "2", "moved"))
            expected["moved"] = expected.pop("2")
            store.change(lambda names: names.delete(Name("thing", "0")))
            del expected["0"]
        assert contents(store) == expected
        store.tick()
    with Store.open(root, settings, disk=disk) as store:
        assert contents(store) == expected
        if reserve:
            store.change(lambda names: names.delete(Name("thing", "1")))
            del expected["1"]
            assert contents(store) == expected
    sys.stdout.write("kept\n")


def make_room(*, mount: bool) -> None:
    """Run in a process of its own: fill a disk of 32 MiB, delete every other blob, and collect."""
    root = Path(sys.argv[1])
    disk = small_disk(root, 32 * MIB, mount=mount)
    with Store.open(root, EngineSettings(), create=True, disk=disk) as store:
        expected = push_until_full(store, 300 * KIB)
        assert 60 < len(expected) < 110, len(expected)
        for n in range(0, len(expected), 2):
            store.change(lambda names, n=n: names.delete(Name("thing", f"{n}")))  # type: ignore[misc]
            del expected[f"{n}"]
        assert store.collect().unfinished == ""
        assert store.compact().left == []
        living = sum(map(len, expected.values()))
        assert store.stats().pack_bytes < 1.1 * living
        for n in range(1000, 1000 + len(expected) * 3 // 4):
            push(store, f"{n}", noise(300 * KIB, n))
            expected[f"{n}"] = noise(300 * KIB, n)
        assert contents(store) == expected
        assert not list(store.check(Depth.DEEP))
    sys.stdout.write("kept\n")


@pytest.mark.parametrize("reserve", [1 * MIB, 0])
@pytest.mark.parametrize("place", ["tmpfs", "quota"])
def test_a_full_disk_refuses_uploads_and_nothing_else(place: str, reserve: int, tmp_path: Path) -> None:
    """NoSpace, all acknowledged readable, deletes and small changes work from the reserve.

    On a real small filesystem, where the kernel lets us mount one in a namespace of our own; else by quota.
    """
    mount = place == "tmpfs" and can_mount()
    program = f"from tests.crash.test_full_disk import fill; fill({reserve}, mount={mount})"
    assert run_python(program, tmp_path, mounts=mount).stdout == "kept\n"


@pytest.mark.parametrize("place", ["tmpfs", "quota"])
def test_what_is_deleted_on_a_full_disk_makes_room_though_no_pack_is_wholly_dead(place: str, tmp_path: Path) -> None:
    """What lives of a pack is copied before it goes, and for that there is always room, by everybody's settings."""
    mount = place == "tmpfs" and can_mount()
    program = f"from tests.crash.test_full_disk import make_room; make_room(mount={mount})"
    assert run_python(program, tmp_path, mounts=mount).stdout == "kept\n"


def test_packs_are_as_large_as_asked_for_where_there_is_room() -> None:
    """Only a small disk gets small packs: by the settings every store has, one below 16 GiB."""
    settings = EngineSettings()
    assert settings.fitted(16 << 30) == settings
    assert settings.fitted(1 << 50) == settings
    assert settings.fitted(0) == settings, "a filesystem that does not say how large it is"
    small = settings.fitted(1 << 30)
    assert small.pack_bytes + small.run_bytes < settings.reserve_share * (1 << 30)
