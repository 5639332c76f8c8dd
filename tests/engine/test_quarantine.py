"""What was set aside is never deleted, nor replaced by what is set aside later: it may have the last good bytes."""

# ruff: noqa: SLF001 - what a promise rests on is looked at inside, not only from the front

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import cas.files
from cas import Depth, Digest, DiskFailed, Store, rebuild_index
from cas.disk import Disk
from cas.identity import mend_manifest
from cas.moving import put_by
from cas.records import Role
from tests.support.engine import MIB, SMALL, flip, noise, opened, packs_of, push, read

Make = Callable[[Path], object]
DATA = {"one": noise(MIB, 1), "two": noise(MIB, 2)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    with opened(tmp_path / "root") as store:
        for name, data in DATA.items():
            push(store, name, data)
    return tmp_path / "root"


@pytest.fixture
def good(root: Path, tmp_path: Path) -> Path:
    """A copy of a pack that was set aside because it had rotted."""
    path = packs_of(root, Role.DATA)[0]
    shutil.copy2(path, tmp_path / path.name)
    flip(path, 100_000)
    with opened(root) as store:
        assert store.repair().left == ()
    return tmp_path / path.name


def back(root: Path, good: Path) -> Path:
    """Put a good copy where the pack was, as an operator does."""
    place = root / "packs" / good.name[:2] / good.name
    place.parent.mkdir(exist_ok=True)
    shutil.copy2(good, place)
    return place


def aside(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (root / "quarantine").iterdir()}


def test_a_collection_replaces_nothing(root: Path, good: Path) -> None:
    """However often a file comes back that the index does not know, each is kept under a name of its own."""
    first = aside(root)
    assert list(first) == [good.name]
    for _ in range(2):
        place = back(root, good)
        with opened(root) as store:
            store.compact()
        assert not place.exists()
    second = good.read_bytes()
    assert second not in first.values()
    assert aside(root) == first | {f"{good.stem}-2.pack": second, f"{good.stem}-3.pack": second}


@pytest.mark.parametrize("is_scrub", [False, True], ids=["repair", "scrub"])
def test_a_repair_replaces_nothing(root: Path, good: Path, *, is_scrub: bool) -> None:
    """A pack that came back and was made known by a rebuild may rot again."""
    first, place = aside(root), back(root, good)
    shutil.rmtree(root / "index")
    rebuild_index(root, SMALL)
    place.chmod(0o640)
    os.truncate(place, place.stat().st_size // 2)  # a flipped bit may be in a chunk that was moved before
    third = place.read_bytes()
    with Store.open(root, SMALL) as store:
        if is_scrub:
            assert [done.left for done in store.scrub(2.0**40)] == [""]
        else:
            assert store.repair().left == ()
    assert not place.exists()
    assert aside(root) == first | {f"{good.stem}-2.pack": third}


def test_a_good_copy_that_is_put_back_counts_again_after_a_rebuild(root: Path, good: Path) -> None:
    """What was lost with the pack is here again, as long as no collection has moved the copy away."""
    with opened(root) as store:
        assert store.stats().lost == 1
    back(root, good)
    shutil.rmtree(root / "index")
    assert rebuild_index(root, SMALL).damaged == []
    with opened(root) as store:
        assert {name: read(store, Digest.of(data)) == data for name, data in DATA.items()} == dict.fromkeys(DATA, True)
        assert store.stats().lost == 0
        assert list(store.check(Depth.DEEP)) == []


def test_a_pack_that_comes_back_before_a_repair_counts_as_it_did(root: Path, tmp_path: Path) -> None:
    """Nothing has to be done for it, also where somebody noticed meanwhile that it was gone."""
    path = packs_of(root, Role.DATA)[0]
    path.rename(tmp_path / path.name)
    with opened(root) as store:
        assert any("is missing" in finding.what for finding in store.check(Depth.DATA))
        (tmp_path / path.name).rename(path)
        assert {name: read(store, Digest.of(data)) == data for name, data in DATA.items()} == dict.fromkeys(DATA, True)
        assert list(store.scrub(1)) == []
        assert (store.stats().doubted, store.stats().lost) == (0, 0)


def test_a_store_opens_whose_pack_was_set_aside_twice_and_is_known_still(root: Path, good: Path) -> None:
    """A repair may end between the file and its row."""
    back(root, good)
    shutil.rmtree(root / "index")
    rebuild_index(root, SMALL)
    with Store.open(root, SMALL) as store:
        put_by(store._parts, int(good.stem, 16))
    with Store.open(root, SMALL) as store:
        store.repair()
        assert {finding.check for finding in store.check(Depth.DEEP)} <= {"lost"}
    assert len(aside(root)) == 2


def test_a_manifest_replaces_none(root: Path) -> None:
    """What was wrong with each may tell somebody what befell the disk."""
    left = []
    for size in (10, 20):
        with (root / "store.json").open("r+b") as file:
            file.truncate(size)
        left.append((root / "store.json").read_bytes())
        assert mend_manifest(root, SMALL)
    assert aside(root) == {"store.json": left[0], "store-2.json": left[1]}


class TestNewName:
    """A file gets another name only where nothing has that, whatever it is."""

    @pytest.fixture(autouse=True, params=[True, False], ids=["at once", "looked first"])
    def way(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        """Some filesystems cannot do it in one step."""
        if not request.param:
            monkeypatch.setattr(cas.files, "_renameat2", None)

    @pytest.mark.parametrize("other", [Path.touch, Path.mkdir, lambda path: path.symlink_to("nowhere"), os.mkfifo])
    @pytest.mark.parametrize("make", [Path.touch, Path.mkdir])
    def test_it_replaces_nothing(self, tmp_path: Path, make: Make, other: Make) -> None:
        """Both stay what they were."""
        make(tmp_path / "a")
        other(tmp_path / "b")
        assert not Disk().rename_new(tmp_path / "a", tmp_path / "b")
        assert Disk().rename_new(tmp_path / "a", tmp_path / "c")
        assert {path.name for path in tmp_path.iterdir()} == {"b", "c"}

    def test_what_is_not_there_is_another_matter(self, tmp_path: Path) -> None:
        """Somebody was faster."""
        with pytest.raises(FileNotFoundError):
            Disk().rename_new(tmp_path / "a", tmp_path / "b")

    def test_what_the_system_refuses_is_said(self, tmp_path: Path) -> None:
        """As of any other change."""
        (tmp_path / "a").mkdir()
        with pytest.raises(DiskFailed, match=os.strerror(errno.EINVAL)):
            Disk().rename_new(tmp_path / "a", tmp_path / "a" / "b")
