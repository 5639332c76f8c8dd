"""A `store.json` that is damaged or gone is made anew where what is left proves whose store it is, or else refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from cas import Digest, IndexMissing, NotAStore, NotOwner, Store, inspect_manifest, mend_manifest, rebuild_index
from cas.layout import Layout
from cas.records import HEADER_SIZE, decode_header, encode_header
from cas.root import read_manifest
from tests.engine.test_backup import contents_of
from tests.support.engine import KIB, SMALL, flip, noise, opened, packs_of, push

DATA = {"one": noise(100 * KIB, 1), "two": noise(300, 2)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make(tmp_path / "root")
    return tmp_path / "root"


def make(root: Path) -> None:
    with opened(root) as store:
        for name, data in DATA.items():
            push(store, name, data)


def manifest(root: Path) -> Path:
    return root / "store.json"


def remove(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20])


def other_id(path: Path) -> None:
    """Flip a bit that leaves it well-formed, with another id."""
    flip(path, path.read_bytes().index(b'"id": "') + 8, 0)


def other_format(path: Path) -> None:
    flip(path, path.read_bytes().index(b'"format": ') + 10, 1)


DAMAGES = [remove, empty, cut, other_id, other_format]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_manifest_is_refused_named_and_made_anew(damage: Callable[[Path], None], root: Path) -> None:
    """The same one, byte for byte: the store is the one it was."""
    before = manifest(root).read_bytes()
    assert inspect_manifest(root, SMALL) is None
    damage(manifest(root))
    for use in (
        lambda: Store.open(root, SMALL, create=True),
        lambda: Store.open(root, SMALL, reading=True),
        lambda: rebuild_index(root, SMALL, force=True),
    ):
        with pytest.raises(NotAStore, match=f"cas fsck --repair --root {root}"):
            use()
    finding = inspect_manifest(root, SMALL)
    assert finding is not None
    assert (finding.check, finding.where) == ("manifest", "store.json")
    assert "cas fsck --repair" in finding.remedy
    assert mend_manifest(root, SMALL)
    assert manifest(root).read_bytes() == before
    assert not mend_manifest(root, SMALL)
    assert inspect_manifest(root, SMALL) is None
    assert contents_of(root) == DATA


def test_what_was_there_is_kept_aside(root: Path) -> None:
    """It may tell somebody what befell the disk."""
    cut(manifest(root))
    left = manifest(root).read_bytes()
    mend_manifest(root, SMALL)
    assert (root / "quarantine" / "store.json").read_bytes() == left


def test_no_flipped_bit_is_taken_for_another_store(root: Path) -> None:
    """Each bit in turn: it is found, or makes no difference."""
    layout, whole = Layout(root), manifest(root).read_bytes()
    before = read_manifest(layout)
    for bit in range(8 * len(whole)):
        flip(manifest(root), bit // 8, bit % 8)
        with suppress(NotAStore):
            assert read_manifest(layout) == before
        flip(manifest(root), bit // 8, bit % 8)
    assert manifest(root).read_bytes() == whole


def test_one_of_an_older_version_is_read(root: Path) -> None:
    """It has no checksum, and what lies beside it tells if it is another store's."""
    content = {key: value for key, value in json.loads(manifest(root).read_bytes()).items() if key != "sum"}
    manifest(root).write_text(json.dumps(content))
    assert contents_of(root) == DATA
    assert inspect_manifest(root, SMALL) is None
    manifest(root).write_text(json.dumps(content | {"id": "00" * 16}))
    with pytest.raises(NotAStore, match=f"cas fsck --repair --root {root}"):
        Store.open(root, SMALL)
    assert mend_manifest(root, SMALL)
    assert json.loads(manifest(root).read_bytes())["id"] == content["id"]
    assert contents_of(root) == DATA


def break_headers(root: Path) -> None:
    for path in packs_of(root):
        flip(path, 20)


def lose_index(root: Path) -> None:
    shutil.rmtree(root / "index")


def break_index(root: Path) -> None:
    with (root / "index" / "data.mdb").open("r+b") as file:
        file.write(bytes(8192))


@pytest.mark.parametrize("left", [break_headers, lose_index, break_index])
def test_one_witness_is_enough(left: Callable[[Path], None], root: Path) -> None:
    """The packs without an index, or with one that cannot be read; the index without a pack that can."""
    before = manifest(root).read_bytes()
    left(root)
    remove(manifest(root))
    assert mend_manifest(root, SMALL)
    assert manifest(root).read_bytes() == before


def test_without_its_index_the_next_step_is_named(root: Path) -> None:
    """First whose store it is, then what was in it."""
    lose_index(root)
    remove(manifest(root))
    mend_manifest(root, SMALL)
    with pytest.raises(IndexMissing, match="--rebuild-index"):
        Store.open(root, SMALL)
    rebuild_index(root, SMALL)
    assert contents_of(root) == DATA


def add_stranger(root: Path) -> None:
    """A pack of another store, as a careless copy leaves it."""
    make(root.with_name("other"))
    path = packs_of(root.with_name("other"))[0]
    (root / "packs" / path.parent.name).mkdir(exist_ok=True)
    shutil.copy(path, root / "packs" / path.parent.name / path.name)


def take_index(root: Path) -> None:
    make(root.with_name("other"))
    shutil.copy(root.with_name("other") / "index" / "data.mdb", root / "index" / "data.mdb")


def renew_pack(root: Path) -> None:
    """A version of later times wrote it."""
    path = packs_of(root)[0]
    data = bytearray(path.read_bytes())
    header = decode_header(bytes(data))
    assert header is not None
    data[:HEADER_SIZE] = encode_header(replace(header, format=9))
    path.chmod(0o640)
    path.write_bytes(data)


def leave_nothing(root: Path) -> None:
    break_headers(root)
    lose_index(root)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (add_stranger, "packs of 2 stores"),
        (take_index, "the index is of another store than the packs"),
        (renew_pack, "packs of a newer version"),
        (leave_nothing, "nothing that can be read"),
    ],
)
def test_where_that_is_in_doubt_nothing_is_made(spoil: Callable[[Path], None], why: str, root: Path) -> None:
    """The reason is said, and what else helps; every file is as it was."""
    remove(manifest(root))
    spoil(root)
    finding = inspect_manifest(root, SMALL)
    assert finding is not None
    assert why in finding.remedy
    with pytest.raises(NotAStore, match=f"{why}.*restore store.json from a backup"):
        mend_manifest(root, SMALL)
    assert not manifest(root).exists()
    assert not (root / "quarantine").exists()


def test_a_store_in_which_nothing_is_yet_keeps_its_id(tmp_path: Path) -> None:
    """Its index knows it; without a manifest no second store is made over that."""
    opened(tmp_path).__enter__().close()
    before = manifest(tmp_path).read_bytes()
    remove(manifest(tmp_path))
    with pytest.raises(NotAStore, match="cas fsck --repair"):
        Store.open(tmp_path, SMALL, create=True)
    assert mend_manifest(tmp_path, SMALL)
    assert manifest(tmp_path).read_bytes() == before


def test_a_folder_that_is_no_store_is_none_afterwards(tmp_path: Path) -> None:
    """Neither is anything found there, nor made."""
    (tmp_path / "thesis.txt").write_text("unrelated")
    assert inspect_manifest(tmp_path, SMALL) is None
    assert not mend_manifest(tmp_path, SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_manifest_is_made_by_the_owner_alone(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose it is, the packs' folder says; with a manifest of somebody else's the server could do nothing."""
    remove(manifest(root))
    own = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: own + 1)
    with pytest.raises(NotOwner):
        mend_manifest(root, SMALL)
    assert not manifest(root).exists()


@pytest.mark.parametrize("damage", [remove, empty, other_id])
def test_the_next_backup_mends_its_own(damage: Callable[[Path], None], root: Path) -> None:
    """And gives up nothing meanwhile that it alone has."""
    backup = root.with_name("backup")
    with opened(root) as store:
        store.backup(backup)
        for path in packs_of(root):
            path.chmod(0o640)
        for path in packs_of(root):
            if path.stat().st_size > 50 * KIB:
                flip(path, 40 * KIB)
        assert store.repair().lost == (Digest.of(DATA["one"]),)
        damage(manifest(backup))
        assert store.backup(backup).kept == [Digest.of(DATA["one"])]
    assert manifest(backup).read_bytes() == manifest(root).read_bytes()
    assert contents_of(backup) == DATA
