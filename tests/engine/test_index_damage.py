"""Rows of the index that changed on disk are noticed, not believed (I9)."""

# ruff: noqa: SLF001 - what a promise rests on is looked at inside, not only from the front

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cas import Damaged, Name, Record, Store, rebuild_index
from cas.index import Edit
from tests.support.engine import KIB, MIB, SMALL, noise, opened, prose, push, read

PAGE = os.sysconf("SC_PAGE_SIZE")
SMALL_BLOB = b"a small blob, kept whole in the index: " + bytes(range(64))


def flip_all(root: Path, wanted: bytes, at: int = 0) -> None:
    """Flip a bit, `at` bytes into each place where the index has these bytes."""
    file = root / "index" / "data.mdb"
    data = bytearray(file.read_bytes())
    found = data.find(wanted)
    assert found >= 0
    while found >= 0:
        data[found + at] ^= 8
        found = data.find(wanted, found + 1)
    file.write_bytes(data)


def damaged(root: Path) -> Store:
    """A store whose only blob changed in the index while it was closed."""
    with opened(root) as store:
        push(store, "old", SMALL_BLOB)
    flip_all(root, SMALL_BLOB)
    return Store.open(root)


def test_a_flipped_bit_in_a_small_blob_is_never_served(tmp_path: Path) -> None:
    """Whoever asks for it is told so, by its name."""
    with damaged(tmp_path) as store:
        [(_, record)] = store.scan("thing")
        with pytest.raises(Damaged, match=f"blob {record.holds[0]} is damaged.*rebuild-index --force"):
            store.reader(record.holds[0])


def test_a_damaged_small_blob_heals_when_it_is_pushed_again(tmp_path: Path) -> None:
    """Under its old name and its new one, and in an index made anew."""
    with damaged(tmp_path) as store:
        digest = push(store, "new", SMALL_BLOB)
        assert read(store, digest) == SMALL_BLOB
    rebuild_index(tmp_path, force=True)
    with Store.open(tmp_path) as store:
        assert read(store, digest) == SMALL_BLOB
        assert {name.path for name, _ in store.scan("thing")} == {"old", "new"}


def test_a_flipped_bit_in_a_names_record_is_damage(tmp_path: Path) -> None:
    """A tag never points elsewhere, and its reader is told what to do."""
    with opened(tmp_path) as store:
        store.change(lambda names: names.put(Name("tag", "a/b:c"), Record(b"points to 0123456789abcdef")))
    flip_all(tmp_path, b"points to 0123456789abcdef")
    with Store.open(tmp_path) as store, pytest.raises(Damaged, match="rebuild-index --force"):
        store.get(Name("tag", "a/b:c"))


@pytest.mark.parametrize("table", ["packs", "meta"])
def test_a_flipped_bit_in_a_row_that_opening_needs_is_told_at_once(table: str, tmp_path: Path) -> None:
    """With the remedy, not with a traceback."""
    with opened(tmp_path) as store:
        push(store, "x", prose(MIB))
    with opened(tmp_path) as store:  # closing sealed the packs, which changed their rows
        [(key, value), *_] = store._parts.index.read(lambda view: list(view.dump(table)))
    flip_all(tmp_path, key + value, at=len(key))
    with pytest.raises(Damaged, match="rebuild-index --force"):
        Store.open(tmp_path)


def test_a_flipped_bit_in_where_a_chunk_lies_sends_nobody_to_the_wrong_place(tmp_path: Path) -> None:
    """Neither a reader nor a push that would share it; the rebuilt index is right again."""
    data = noise(MIB)
    with opened(tmp_path) as store:
        digest = push(store, "x", data)
        [(key, value), *_] = store._parts.index.read(lambda view: list(view.dump("recipes")))
    flip_all(tmp_path, key + value, at=len(key) + len(value) - 8)
    with Store.open(tmp_path) as store, pytest.raises(Damaged, match="rebuild-index --force"):
        read(store, digest)
    rebuild_index(tmp_path, force=True)
    with Store.open(tmp_path) as store:
        assert read(store, digest) == data


def test_a_push_heals_a_blob_whose_recipe_is_damaged(tmp_path: Path) -> None:
    """The damaged row makes way for that of the proven bytes (I9)."""
    data = noise(MIB)
    with opened(tmp_path) as store:
        push(store, "x", data)
        [(key, value), *_] = store._parts.index.read(lambda view: list(view.dump("recipes")))
    flip_all(tmp_path, key + value, at=len(key) + len(value) - 8)
    with Store.open(tmp_path) as store:
        assert read(store, push(store, "again", data)) == data


@pytest.mark.parametrize("pages", [2, 3, 5])
def test_an_index_cut_short_is_told_at_once(pages: int, tmp_path: Path) -> None:
    """To touch a page that is gone would end the process by a signal, without a word."""
    with opened(tmp_path) as store:
        push(store, "kept", noise(200 * KIB))
    os.truncate(tmp_path / "index" / "data.mdb", pages * PAGE)
    with pytest.raises(Damaged, match=r"stop the server and run cas fsck --rebuild-index --force"):
        Store.open(tmp_path, SMALL)
    assert rebuild_index(tmp_path, SMALL, force=True).damaged == []


def test_an_index_that_lacks_free_pages_at_its_end_opens(tmp_path: Path) -> None:
    """LMDB itself may leave out a page that was taken and freed by one commit."""
    with opened(tmp_path) as store:
        push(store, "kept", noise(200 * KIB))

        def waste(edit: Edit) -> None:
            for number in range(2000):
                edit.set_number(f"wasted {number}", number)

        def save(edit: Edit) -> None:
            for number in range(2000):
                edit._tx.delete("meta", f"wasted {number}".encode())

        store._parts.index.write(waste)
        store._parts.index.write(save)
    data = tmp_path / "index" / "data.mdb"
    os.truncate(data, data.stat().st_size - PAGE)
    with opened(tmp_path) as store:
        assert read(store, push(store, "more", noise(200 * KIB, 1))) == noise(200 * KIB, 1)
