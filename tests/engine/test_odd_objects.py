"""What has the name of a file or folder of the store, and is none, is told in a sentence, and nobody waits for it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cas import Depth, DiskFailed, IndexMissing, Occupied, RootReadOnly, Store, Unreadable, rebuild_index
from cas.records import Role
from tests.engine.test_backup import contents, contents_of
from tests.support.engine import KIB, SMALL, flip, noise, opened, packs_of, push

DATA = {"one": noise(100 * KIB, 1), "two": noise(3000, 2)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    with opened(tmp_path / "root") as store:
        for name, data in DATA.items():
            push(store, name, data)
    return tmp_path / "root"


def folder(path: Path) -> None:
    path.mkdir()


def pipe(path: Path) -> None:
    """Whoever opens it to read waits for somebody who writes."""
    os.mkfifo(path)


def link(path: Path) -> None:
    """It leads nowhere."""
    path.symlink_to(path.with_name("nowhere"))


ODD = pytest.mark.parametrize("odd", [folder, pipe, link])
Make = Callable[[Path], None]


@ODD
@pytest.mark.parametrize("role", list(Role))
def test_what_stands_in_a_packs_place_is_a_missing_pack(odd: Make, role: Role, root: Path) -> None:
    """Checks, backups, collections and rebuilds say so; a repair sets it aside, and everything else is as it was."""
    backup = root.with_name("backup")
    with opened(root) as store:
        store.backup(backup)
    (path,) = packs_of(root, role)
    path.unlink()
    odd(path)
    copy = root.with_name("copy")
    shutil.copytree(root, copy, symlinks=True, ignore=shutil.ignore_patterns(path.name))
    odd(copy / path.relative_to(root))
    told = rebuild_index(copy, SMALL, force=True).damaged
    assert f"pack {path.stem} is no file, though something has its name" in told
    with opened(root) as store:
        assert any("its file is missing" in finding.what for finding in store.check(Depth.DEEP))
        assert any(path.stem in line for line in store.compact(everything=True).left)
        assert store.backup(root.with_name("late")).damaged == [
            f"pack {path.stem} is missing, and so it is in the copy"
        ]
        with Store.open(backup, SMALL, reading=True) as other:
            assert store.repair(other=other.reader).left == ()
        assert os.path.lexists(root / "quarantine" / path.name)
        assert list(store.check(Depth.DEEP)) == []
        assert contents(store) == DATA


@ODD
def test_what_has_the_name_of_a_pack_that_never_was_is_set_aside(odd: Make, root: Path) -> None:
    """By the collection, as any file that the index does not know."""
    path = root / "packs" / "ab" / "ab00000000000001.pack"
    path.parent.mkdir(exist_ok=True)
    odd(path)
    with opened(root) as store:
        assert [finding.remedy for finding in store.check(Depth.DEEP)] == ["cas gc"]
        assert store.backup(root.with_name("backup")).damaged == []
        store.compact(everything=True)
        assert os.path.lexists(root / "quarantine" / path.name)
        assert list(store.check(Depth.DEEP)) == []
    assert contents_of(root.with_name("backup")) == DATA


@ODD
def test_what_has_the_name_of_the_index_makes_it_a_missing_one(odd: Make, root: Path) -> None:
    """Which is made anew from the packs."""
    for name in ("index/data.mdb", "index"):
        path = root / name
        path.unlink() if path.is_file() else shutil.rmtree(path)
        odd(path)
        if name == "index" and odd is folder:
            continue  # a folder is what it is
        with pytest.raises(IndexMissing, match="--rebuild-index"):
            Store.open(root, SMALL, create=True)
        rebuild_index(root, SMALL)
        assert contents_of(root) == DATA


@pytest.mark.parametrize("odd", [pipe, link])
@pytest.mark.parametrize("name", ["packs", "packs/ab", "locks"])
def test_what_has_the_name_of_a_folder_is_refused(odd: Make, name: str, root: Path) -> None:
    """By whoever opens the store; once it is moved away the store is whole."""
    path, aside = root / name, root.with_name("aside")
    if path.exists():
        path.rename(aside)
    odd(path)
    for use in (lambda: Store.open(root, SMALL, create=True), lambda: rebuild_index(root, SMALL, force=True)):
        with pytest.raises(RootReadOnly, match=f"{path}.* cannot be made: .* is no folder; move that away"):
            use()
    path.unlink()
    if aside.exists():
        aside.rename(path)
    assert contents_of(root) == DATA


@pytest.mark.parametrize("odd", [pipe, link])
def test_a_quarantine_that_is_no_folder_keeps_nothing_from_being_read(odd: Make, root: Path) -> None:
    """What is to be set aside stays where it is, and the next repair has it done."""
    with opened(root) as store:
        odd(root / "quarantine")
        (path,) = packs_of(root, Role.DATA)
        flip(path, 1000)
        with pytest.raises(DiskFailed, match=r"quarantine cannot be made: .* is no folder; move that away"):
            store.repair()
        assert path.exists()
        (root / "quarantine").unlink()
        store.repair()
        assert (root / "quarantine" / path.name).exists()


@pytest.mark.parametrize("odd", [pipe, folder])
def test_a_manifest_that_is_no_file_is_refused(odd: Make, root: Path) -> None:
    """Nobody waits for what comes out of it."""
    (root / "store.json").unlink()
    odd(root / "store.json")
    with pytest.raises(Unreadable, match=r"store\.json cannot be read \(it is no file\); move it away"):
        Store.open(root, SMALL)


@pytest.mark.parametrize("odd", [pipe, link])
@pytest.mark.parametrize("name", ["packs", "index", "index.tmp", "locks", "backup.json"])
def test_a_backup_is_made_of_files_and_folders_alone(odd: Make, name: str, root: Path) -> None:
    """Else it is refused with a sentence, and whatever is there stays."""
    backup = root.with_name("backup")
    with opened(root) as store:
        store.backup(backup)
        path = backup / name
        if path.is_dir():
            path.rename(root.with_name("aside"))
        path.unlink(missing_ok=True)
        odd(path)
        with pytest.raises(Occupied, match=f"{backup}.*choose another folder"):
            store.backup(backup)
        assert os.path.lexists(path)
