"""Deletions leave the journal once nothing is left that they delete, and no name ever comes back (I1)."""

# ruff: noqa: SLF001 - what lies in the journal is looked at inside, not only from the front

from __future__ import annotations

import shutil
from pathlib import Path

from cas import DiskFailed, Name, Record, Store, rebuild_index
from cas.disk import Disk
from cas.records import HEADER_SIZE, Role
from cas.scan import pack_paths, scan_pack
from cas.tables import PackRow, PackState
from tests.engine.test_compact import check, contents, drop, rows
from tests.support.engine import KIB, SMALL, noise, opened, push
from tests.support.powercut import ForgetfulDisk
from tests.support.processes import start_python

STEPS = ("counted", "planned", "closed", "copied", "sealed", "moved", "condemned", "unlinked")


def deletions(store: Store) -> int:
    """How many deletions the journal holds."""
    count = 0
    for pack, path in pack_paths(store._parts.layout):
        for record in scan_pack(pack, path).records:
            names = record.body.names
            count += 0 if names is None else sum(edit.record is None for edit in names.edits)
    return count


def aged(root: Path) -> set[str]:
    """A store with two journals full of pushes and deletions, made one; returns what is there."""
    for seed in range(2):
        with opened(root) as store:
            for n in range(12):
                push(store, f"{n}", noise(2 * KIB, 20 * seed + n))
            drop(store, *(f"{n}" for n in range(seed, 12, 2)))
            push(store, "twice", b"the same")
            drop(store, "twice")
    with opened(root) as store:
        push(store, "twice", b"the same")
        store.collect()
        store.compact(everything=True)
        return {name.path for name, _ in store.scan("thing")}


def rebuilt(root: Path) -> set[str]:
    """The names that the packs alone tell of."""
    shutil.rmtree(root / "index", ignore_errors=True)
    assert rebuild_index(root, SMALL).damaged == []
    with opened(root) as store:
        contents(store)
        return {name.path for name, _ in store.scan("thing")}


def test_deletions_go_once_nothing_older_is_left(tmp_path: Path) -> None:
    """From the journal's oldest pack, by its next compaction; a rebuild tells the same."""
    expected = aged(tmp_path)
    with opened(tmp_path) as store:
        assert deletions(store) > 0
        for _ in range(2):  # small packs become one, which is the oldest then
            said = store.compact(everything=True, dry_run=True)
            assert store.compact(everything=True) == said
        assert deletions(store) == 0
        everything = contents(store)
        assert set(everything) == expected
        assert store.compact(everything=True).moved_bytes == 0
    check(tmp_path, everything)


def test_whenever_it_ends_a_rebuild_tells_the_same(tmp_path: Path) -> None:
    """After each step, and with a copy that is there in part, in whatever order its parts reached the disk."""
    seen = set[Path]()
    with opened(tmp_path / "root") as store:
        for n in range(12):
            push(store, f"{n}", noise(2 * KIB, n))
        for n in range(0, 12, 2):
            drop(store, f"{n}")
        expected = {name.path for name, _ in store.scan("thing")}

    def snapshot(step: str) -> None:
        target = tmp_path / f"{len(seen)}-{step}"
        shutil.copytree(tmp_path / "root", target)
        seen.add(target)

    with opened(tmp_path / "root") as store:
        assert deletions(store) == 6
        before = {path.stem for path in (tmp_path / "root" / "packs").rglob("*.pack")}
        store.compact(everything=True, progress=snapshot)
        assert deletions(store) == 0
    assert {path.name.partition("-")[2] for path in seen} >= set(STEPS)
    for root in sorted(seen):
        shutil.rmtree(root / "locks")
        for new in [path for path in (root / "packs").rglob("*.pack") if path.stem not in before]:
            if root.name.endswith("-copied"):
                torn(root, new, expected)
        assert rebuilt(root) == expected, root


def torn(root: Path, new: Path, expected: set[str]) -> None:
    """Look at every fifth part of a copy: only its beginning, or only its head and its end."""
    data = new.read_bytes()
    for part in range(1, 5):
        at = len(data) * part // 5
        for number, some in enumerate((data[:at], data[:HEADER_SIZE] + bytes(at - HEADER_SIZE) + data[at:])):
            other = root.with_name(f"{root.name}-{part}-{number}")
            shutil.copytree(root, other)
            (other / new.relative_to(root)).write_bytes(some)
            shutil.rmtree(other / "index")
            rebuild_index(other, SMALL)
            with opened(other) as store:
                assert {name.path for name, _ in store.scan("thing")} == expected


def test_a_deletion_that_comes_while_packs_are_chosen_stays(tmp_path: Path) -> None:
    """It may delete what another process has just written to a journal of its own."""
    script = """
import sys
from pathlib import Path
from cas import Name, Record, Store
from tests.support.engine import SMALL
with Store.open(Path(sys.argv[1]), SMALL) as store:
    store.change(lambda names: names.put(Name("thing", "theirs"), Record(b"x")))
"""

    def step(what: str) -> None:
        if what == "planned":
            with start_python(script, tmp_path) as process:
                assert process.wait(60) == 0
            assert store.get(Name("thing", "theirs")) is not None
            drop(store, "theirs")

    with opened(tmp_path) as store:
        store.change(lambda names: names.put(Name("thing", "ours"), Record(b"x")))
        for n in range(50):
            store.change(lambda names, n=n: names.put(Name("thing", "gone"), Record(b"%d" % n)))  # type: ignore[misc]
        drop(store, "gone")
        assert [row.state for row in rows(store, Role.JOURNAL)] == [PackState.OPEN]
        store.compact(everything=True, progress=step)
        assert deletions(store) == 1
    shutil.rmtree(tmp_path / "index")
    rebuild_index(tmp_path, SMALL)
    with opened(tmp_path) as store:
        assert {name.path for name, _ in store.scan("thing")} == {"ours"}


def test_a_journal_that_died_before_its_file_is_in_nobodys_way(tmp_path: Path) -> None:
    """A pack's row comes before its file; whoever is killed between leaves a row alone, which just goes."""
    with opened(tmp_path) as store:
        push(store, "kept", noise(2 * KIB, 1))
        push(store, "gone", noise(2 * KIB, 2))
        drop(store, "gone")
        row = PackRow(7, PackState.CLOSED, Role.JOURNAL, bytes(16), 0)
        store._parts.index.write(lambda edit: edit.put_pack(row))
        store.compact(everything=True)
        assert 7 not in {each.pack for each in rows(store, Role.JOURNAL)}
        assert deletions(store) == 0
    assert rebuilt(tmp_path) == {"kept"}


def test_a_removal_that_a_power_cut_takes_back_brings_no_name_back(tmp_path: Path) -> None:
    """Each pack that may come back was removed before a deletion went that concerned it, or not at all."""
    with opened(tmp_path) as store:
        push(store, "gone", noise(2 * KIB, 1))
    with opened(tmp_path) as store:
        push(store, "kept", noise(2 * KIB, 2))
        drop(store, "gone")
    before = set((tmp_path / "packs").rglob("*.pack"))
    disk = ForgetfulDisk(0)
    with Store.open(tmp_path, SMALL, disk=disk) as store:
        for _ in range(3):
            store.compact(everything=True)
        assert deletions(store) == 0
    assert before - set((tmp_path / "packs").rglob("*.pack"))
    for path, data in disk.removed.items():
        path.write_bytes(data)
        assert rebuilt(tmp_path) == {"kept"}
        path.unlink()


def test_deletions_stay_while_a_pack_cannot_be_removed(tmp_path: Path) -> None:
    """It still tells of what they deleted, whichever it is."""

    class Stuck(Disk):
        def __init__(self, path: Path) -> None:
            super().__init__()
            self._path = path

        def unlink(self, path: Path) -> None:
            if path == self._path:
                raise DiskFailed("planted")
            super().unlink(path)

    for which in range(8):  # packs are removed in the order of their ids, which are random
        root = tmp_path / str(which)
        with opened(root) as store:
            push(store, "gone", noise(2 * KIB, 1))
            oldest = rows(store, Role.JOURNAL)
        with opened(root) as store:
            push(store, "kept", noise(2 * KIB, 2))
            drop(store, "gone")
            newest = rows(store, Role.JOURNAL)
            (row,) = oldest if which % 4 else [row for row in newest if row.pack != oldest[0].pack]
            path = store._parts.layout.pack(row.pack)
        with Store.open(root, SMALL, disk=Stuck(path)) as store:
            for _ in range(3):
                assert store.compact(everything=True).left
        assert path.exists()
        assert rebuilt(root) == {"kept"}
