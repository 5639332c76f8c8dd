"""What a copy that was cut off had brought counts for nothing until all is there (I2), also where the index is lost."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from cas import Damaged, Depth, Store, rebuild_index, restore
from cas.disk import Disk
from cas.layout import Layout
from tests.engine.test_backup import contents, contents_of
from tests.engine.test_backup_eras import add, back_up
from tests.support.ending import BreakingDisk, Ends, use
from tests.support.engine import KIB, SMALL, noise, opened, push


def seen(root: Path) -> dict[str, bytes]:
    """What a folder tells whoever only looks."""
    with Store.open(root, SMALL, reading=True) as store:
        assert list(store.check(Depth.DATA)) == []  # also where packs are here already of which its index does not know
        return contents(store)


class Renaming(Disk):
    """A disk on which so many files get their names, and then the process ends."""

    def __init__(self, left: int) -> None:
        super().__init__()
        self._left = left

    def rename(self, path: Path, to: Path) -> None:
        self._left -= 1
        if self._left < 0:
            raise Ends
        super().rename(path, to)


def test_an_index_made_anew_in_a_backup_that_was_cut_off_is_of_a_whole_copy(tmp_path: Path) -> None:
    """Before each file that gets its name: the old moment or the new one, and the next backup goes on with it."""
    root, first, backup = (tmp_path / name for name in ("root", "first", "backup"))
    add(root, "a")
    back_up(root, first)
    before = contents_of(root)
    add(root, "b")
    add(root, "c")
    ends, is_over = 0, False
    with opened(root) as store:
        after = contents(store)
        while not is_over:
            shutil.rmtree(backup, ignore_errors=True)
            shutil.copytree(first, backup)
            use(store, Renaming(ends))
            with suppress(Ends):
                store.backup(backup)
                is_over = True
            use(store, Disk())
            shutil.rmtree(backup / "index")
            assert rebuild_index(backup, SMALL).damaged == []
            assert seen(backup) in (before, after)
            assert store.backup(backup).damaged == []
            assert seen(backup) == after
            ends += 1
    assert ends > 5


def cut_off(store: Store, backup: Path) -> None:
    """Let a backup end when all that it was to bring is there, but for the index."""

    class Last(BreakingDisk):
        def sync_folder(self, path: Path) -> None:
            if path == Layout(backup).packs:
                raise Ends
            super().sync_folder(path)

    use(store, Last(1000, Ends))
    with pytest.raises(Ends):
        store.backup(backup)
    use(store, Disk())


def test_what_a_copy_that_was_cut_off_wrote_on_is_cut_off_again(tmp_path: Path) -> None:
    """The store was put back to where it was before that, and goes on with the backup, not with what it lost."""
    root, twin, backup = tmp_path / "root", tmp_path / "twin", tmp_path / "backup"
    with opened(root) as store:
        push(store, "a", noise(20 * KIB, 1))
        store.backup(backup)
        shutil.copytree(root, twin)
        for name in ("lost", "lost too", "and that"):
            push(store, name, noise(20 * KIB, 2))
        cut_off(store, backup)
    with opened(twin) as store:
        push(store, "b", noise(20 * KIB, 3))
        assert store.backup(backup).damaged == []
        after = contents(store)
    shutil.rmtree(backup / "index")
    assert rebuild_index(backup, SMALL, force=True).damaged == []
    assert contents_of(backup) == after


def test_a_backup_that_lost_its_index_after_it_was_cut_off_is_no_new_one(tmp_path: Path) -> None:
    """Nobody can tell what it alone has, nor whose state it is, before its index is made anew."""
    root, twin, backup = tmp_path / "root", tmp_path / "twin", tmp_path / "backup"
    add(root, "a")
    shutil.copytree(root, twin)
    add(twin, "x")
    add(root, "b")
    back_up(root, backup)
    before = contents_of(root)
    with opened(root) as store:
        push(store, "c", b"c")
        cut_off(store, backup)
        shutil.rmtree(backup / "index")
        with opened(twin) as other:
            for one in (store, other):
                with pytest.raises(Damaged, match="--rebuild-index"):
                    one.backup(backup)
    rebuild_index(backup, SMALL)
    restore(backup, tmp_path / "new", SMALL)
    assert contents_of(tmp_path / "new") == before
    back_up(root, backup)


class Owned(Disk):
    """A disk of one whom rights to files hold back, as they do not whoever runs the tests as root."""

    def open_write(self, path: Path) -> int:
        assert path.stat().st_mode & 0o200
        return super().open_write(path)


def test_a_pack_that_was_sealed_by_a_copy_that_was_cut_off_is_written_once_more(tmp_path: Path) -> None:
    """It had grown by its footer alone, and how far it was good before is what counts: its length may be a lie."""
    root, backup = tmp_path / "root", tmp_path / "backup"
    with opened(root) as store:
        push(store, "a", noise(20 * KIB, 1))
        store.backup(backup)
    with opened(root) as store:
        cut_off(store, backup)
        use(store, Owned())
        assert store.backup(backup).damaged == []
        assert contents_of(backup) == contents(store)
