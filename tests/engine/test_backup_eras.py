"""A backup is overwritten only by what came of it (I1): numbers of changes alone do not tell two histories apart."""

# ruff: noqa: SLF001 - an older version's index is made inside

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cas import Name, Occupied, Store, rebuild_index, restore
from cas.disk import Cell, Disk
from cas.era import eras
from cas.errors import DiskFailed
from cas.layout import Layout
from cas.lease import is_standing
from tests.engine.test_backup import contents, contents_of
from tests.support.ending import BreakingDisk, Ends, each_step, use
from tests.support.engine import KIB, SMALL, noise, opened, packs_of, push
from tests.support.processes import run_python, run_to_its_death

PARTED = r"holds a state that .* never had"


def add(root: Path, *names: str) -> None:
    """Make a change a name, as a process of its own would."""
    with opened(root) as store:
        for name in names:
            push(store, name, noise(20 * KIB, sum(name.encode())))


def back_up(root: Path, folder: Path) -> None:
    with opened(root) as store:
        assert store.backup(folder).damaged == []


def restored(root: Path, first: Path) -> Path:
    """The store that is left once the disk is gone."""
    shutil.rmtree(root)
    restore(first, root, SMALL)
    return root


def copied(root: Path, first: Path) -> Path:
    """A copy that was made of the folder itself when that backup was."""
    return shutil.copytree(first.with_name("copied"), root.with_name("twin"))


def put_back(root: Path, first: Path) -> Path:
    """The same files again, as of then, as by a snapshot: even the inodes of the folders are the same."""
    for path in [*packs_of(root), root / "index" / "data.mdb", root / "index" / "lock.mdb", root / "locks" / "journal"]:
        path.unlink(missing_ok=True)
    shutil.copytree(first.with_name("copied"), root, dirs_exist_ok=True)
    return root


def rebuilt(root: Path, first: Path) -> Path:
    """Restored, and then its index was made anew, which only packs tell about."""
    restored(root, first)
    rebuild_index(root, SMALL, force=True)
    return root


def rebuilt_later(root: Path, first: Path) -> Path:
    """Restored, used, and then its index was made anew."""
    add(restored(root, first), "other")
    rebuild_index(root, SMALL, force=True)
    return root


GoBack = Callable[[Path, Path], Path]


@pytest.mark.parametrize("go_back", [restored, copied, put_back, rebuilt, rebuilt_later])
def test_a_later_backup_is_not_overwritten_by_a_store_that_went_back(tmp_path: Path, go_back: GoBack) -> None:
    """However many changes it has made since; what it was restored from it goes on with."""
    root, first, second = tmp_path / "root", tmp_path / "first", tmp_path / "second"
    add(root, "a", "b")
    back_up(root, first)
    shutil.copytree(root, tmp_path / "copied")
    add(root, "c", "d")
    back_up(root, second)
    kept = contents_of(second)
    twin = go_back(root, first)
    for number in range(5):
        add(twin, f"own-{number}")
        with opened(twin) as store, pytest.raises(Occupied):
            store.backup(second)
    with opened(twin) as store, pytest.raises(Occupied, match=PARTED):
        store.backup(second)
    assert contents_of(second) == kept
    back_up(twin, first)
    back_up(twin, tmp_path / "third")
    assert contents_of(first) == contents_of(tmp_path / "third") == contents_of(twin)


def test_of_two_stores_that_were_one_none_overwrites_the_others_backup(tmp_path: Path) -> None:
    """Not the one that stayed where it was either, when it is ahead."""
    root, twin = tmp_path / "root", tmp_path / "twin"
    add(root, "a")
    shutil.copytree(root, twin)
    add(twin, "b")
    back_up(twin, tmp_path / "twins")
    add(root, "c", "d", "e")
    with opened(root) as store, pytest.raises(Occupied, match=PARTED):
        store.backup(tmp_path / "twins")


def test_a_process_that_lives_on_while_its_folder_is_copied_keeps_its_own_backup(tmp_path: Path) -> None:
    """It goes on without a new era, and whoever opens the copy begins one."""
    root, twin, folder = tmp_path / "root", tmp_path / "twin", tmp_path / "backup"
    with opened(root) as store:
        push(store, "a", b"a")
        shutil.copytree(root, twin)
        push(store, "b", b"b")
        store.backup(folder)
        add(twin, "c", "d", "e")
        with opened(twin) as other, pytest.raises(Occupied, match=PARTED):
            other.backup(folder)
        push(store, "f", b"f")
        store.backup(folder)
        assert contents_of(folder) == contents(store)


def test_a_change_that_never_counted_begins_no_common_history(tmp_path: Path) -> None:
    """A number that was only stepped over is a change of that store alone, too."""
    root, twin, second = tmp_path / "root", tmp_path / "twin", tmp_path / "second"
    add(root, "a")
    shutil.copytree(root, twin)
    with opened(root) as store:
        push(store, "b", b"b")
        store.backup(second)
    for _ in range(2):
        cell = Cell(Layout(twin).journal_cell)
        cell.write(cell.read() + 2)
        cell.close()
        with opened(twin):
            pass
    with opened(twin) as store, pytest.raises(Occupied, match=PARTED):
        store.backup(second)


def forget_eras(root: Path) -> None:
    """Let an index be one of a version that knew of none."""
    with Store.open(root, SMALL) as store:
        for era in store._parts.index.read(eras):
            store._parts.index.write(lambda edit, era=era: edit.delete_record(era.key()))  # type: ignore[misc]


def test_a_store_of_an_older_version_goes_on_with_its_backup(tmp_path: Path) -> None:
    """And is told from one that was restored since."""
    root, first, second = tmp_path / "root", tmp_path / "first", tmp_path / "second"
    add(root, "a")
    forget_eras(root)
    back_up(root, first)
    with opened(root) as store:
        store._parts.committer._has_era = True
        push(store, "b", b"b")
        store.backup(second)
    shutil.copytree(root, tmp_path / "copied")
    add(root, "c")
    back_up(root, second)
    back_up(root, first)
    shutil.copytree(tmp_path / "copied", tmp_path / "again")
    back_up(tmp_path / "again", tmp_path / "old")
    restore(tmp_path / "old", tmp_path / "new", SMALL)
    add(tmp_path / "again", "d")
    add(tmp_path / "new", "e", "f")
    back_up(tmp_path / "again", tmp_path / "old")
    with opened(tmp_path / "new") as store, pytest.raises(Occupied, match=PARTED):
        store.backup(tmp_path / "old")


PUSHES = """
import sys
from pathlib import Path
from tests.support.engine import opened, push
with opened(Path(sys.argv[1])) as store:
    push(store, sys.argv[2], b"")
"""


def test_an_era_lasts_while_the_process_that_began_it_lives(tmp_path: Path) -> None:
    """Whoever comes beside it begins none, so that there are no more than starts; who comes after it does."""
    root = tmp_path / "root"

    def counted(store: Store) -> int:
        return len(store._parts.index.read(eras))

    with opened(root) as store:
        assert counted(store) == 0
        push(store, "a", b"a")
        for name in ("b", "c"):
            run_python(PUSHES, root, name)
        assert counted(store) == 1
        assert is_standing(Layout(root), store._parts.index.read(eras)[0].owner)
        assert store.stats().names == 3
    with opened(root) as store:
        assert counted(store) == 1
        store.change(lambda names: names.delete(Name("thing", "a")))
        assert counted(store) == 2
        assert store.stats().names == 2
    assert rebuild_index(root, SMALL, force=True).names == 2


@pytest.mark.usefixtures("unsynced")
def test_a_restore_that_was_cut_off_makes_a_store_of_its_own(tmp_path: Path) -> None:
    """At each change of the disk in turn: wherever it was ended, what comes of it does not pass for the first store."""
    root, first, second, new = (tmp_path / name for name in ("root", "first", "second", "new"))
    add(root, "a")
    back_up(root, first)
    add(root, "b")
    back_up(root, second)

    def work(disk: BreakingDisk) -> None:
        shutil.rmtree(new, ignore_errors=True)
        try:
            restore(first, new, SMALL, disk=disk)
        except Ends:
            restore(first, new, SMALL)
            add(new, "c", "d")
            with opened(new) as store, pytest.raises(Occupied, match=PARTED):
                store.backup(second)
            raise

    assert each_step(work, Ends) > 10


@pytest.mark.usefixtures("unsynced")
@pytest.mark.parametrize("failure", [Ends, DiskFailed])
def test_a_backup_that_ended_anywhere_is_its_stores_still(tmp_path: Path, failure: type[BaseException]) -> None:
    """At each change of the disk in turn; and no other's, whichever of the two indexes is in place."""
    root, twin, first = tmp_path / "root", tmp_path / "twin", tmp_path / "first"
    backup = tmp_path / "backup"
    add(root, "a")
    shutil.copytree(root, twin)
    add(twin, "x", "y", "z")
    add(root, "b")
    back_up(root, first)
    with opened(root) as store, opened(twin) as other:
        push(store, "c", noise(50 * KIB, 1))

        def work(disk: BreakingDisk) -> None:
            shutil.rmtree(backup, ignore_errors=True)
            shutil.copytree(first, backup)
            use(store, disk)
            try:
                store.backup(backup)
            finally:
                with pytest.raises(Occupied, match=PARTED):
                    other.backup(backup)
                use(store, Disk())
                store.backup(backup)
                assert contents_of(backup) == contents(store)

        assert each_step(work, failure) > 10


DIES = """
import os, signal, sys
from pathlib import Path
from tests.support.engine import opened, push
with opened(Path(sys.argv[1])) as store:
    push(store, "mine", b"mine")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_era_of_a_killed_process_is_over(tmp_path: Path) -> None:
    """The kernel gives back what says that it lives, and its folder may be put back from then on."""
    root, twin = tmp_path / "root", tmp_path / "twin"
    run_to_its_death(DIES, root)
    shutil.copytree(root, twin)
    add(root, "a")
    add(twin, "b", "c")
    back_up(root, tmp_path / "backup")
    with opened(twin) as store, pytest.raises(Occupied, match=PARTED):
        store.backup(tmp_path / "backup")
