"""What LMDB keeps of how a tree is ordered is looked at before LMDB goes by it (I9).

One such bit turns the order of a table round, and whoever pages through it never ends; another makes LMDB end the
process as soon as something is written.
"""

# ruff: noqa: SLF001 - what a promise rests on is looked at inside, not only from the front

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import pytest

from cas import Damaged, Digest, Name, Record, Store, inspect_index, rebuild_index
from cas.pages import META_BYTES, read_meta
from cas.tables import TABLES
from tests.support.engine import MIB, SMALL, flip, noise, opened, push

PAGE = 4096
SHARERS = 200  # names of one blob: their keys get a tree of their own, within the tree of `holders`
FREE_FLAGS, MAIN_FLAGS = 44, 92  # bytes of a meta page
RECORD = struct.Struct("<IHHQQQQQ")  # of a tree: pad, flags, depth, counts of pages and entries, root
KNOWN_TO_LMDB = 0x7E  # bits that turn an order round, or say what values look like


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed store in which every table that can be of several pages is."""
    root = tmp_path_factory.mktemp("flags") / "root"
    with opened(root) as store:
        for number in range(SHARERS):
            record = Record(b"%d" % number, (push(store, "small", b"small"),))
            store.change(lambda edits, n=number, record=record: edits.put(Name("sharer", f"{n:04}"), record))  # type: ignore[misc]
            push(store, f"many {number:04}", b"%d" % number * 20)
        push(store, "large", noise(2 * MIB))
    return root


@pytest.fixture
def root(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "root"))


def newer_meta(root: Path) -> int:
    """Where the meta page begins by which LMDB goes."""
    data = (root / "index" / "data.mdb").read_bytes()
    metas = [read_meta(data[slot * PAGE :][:META_BYTES], slot) for slot in (0, 1)]
    return PAGE * max((0, 1), key=lambda slot: metas[slot].number)


def node(key: bytes) -> bytes:
    """How the entry begins that says where a tree is and what it is like."""
    flags = 2 if key.decode("latin-1") in TABLES else 6
    return struct.pack("<HHHH", RECORD.size, 0, flags, len(key)) + key


def places_of_flags(root: Path) -> dict[str, list[int]]:
    """Tree → the first byte of its flags, wherever a page has them, in use or not."""
    data, meta = (root / "index" / "data.mdb").read_bytes(), newer_meta(root)
    found = {"the free pages": [meta + FREE_FLAGS], "the main tree": [meta + MAIN_FLAGS]}
    keys = {name: name.encode() for name in TABLES} | {"within holders": Digest.of(b"small").pack()}
    for tree, key in keys.items():
        places, at = [], data.find(node(key))
        while at >= 0:
            places.append(at + len(node(key)) + 4)
            at = data.find(node(key), at + 1)
        assert places, tree
        found[tree] = places
    return found


def flip_flag(root: Path, tree: str, bit: int) -> None:
    for place in places_of_flags(root)[tree]:
        flip(root / "index" / "data.mdb", place + bit // 8, bit % 8)


TREES = ["the free pages", "the main tree", "within holders", *TABLES]


@pytest.mark.parametrize("tree", TREES)
def test_every_bit_of_every_trees_flags_is_looked_at(tree: str, root: Path) -> None:
    """Whichever is flipped, a check names it and the remedy before LMDB walks anything."""
    for bit in range(16):
        flip_flag(root, tree, bit)
        finding = inspect_index(root, SMALL)
        assert finding is not None, f"bit {bit}"
        assert (finding.check, finding.invariant, "flags" in finding.what) == ("structure", "I9", True), finding
        assert "--rebuild-index --force" in finding.remedy
        flip_flag(root, tree, bit)
    assert inspect_index(root, SMALL) is None


@pytest.mark.parametrize("tree", [tree for tree in TREES if tree != "within holders"])
def test_no_store_opens_on_a_table_that_is_read_another_way_than_it_was_written(tree: str, root: Path) -> None:
    """Neither to serve nor to collect garbage; an index made anew is as it should be."""
    for bit in (bit for bit in range(16) if KNOWN_TO_LMDB >> bit & 1):
        flip_flag(root, tree, bit)
        with pytest.raises(Damaged, match="rebuild-index --force"):
            Store.open(root, SMALL)
        flip_flag(root, tree, bit)
    flip_flag(root, tree, 1)
    assert rebuild_index(root, SMALL, force=True).damaged == []
    with Store.open(root, SMALL) as store:
        assert list(store.check()) == []


@pytest.mark.parametrize("table", TABLES)
def test_a_check_of_an_open_store_sees_flags_that_changed_meanwhile(table: str, root: Path) -> None:
    """A disk does not wait for a process to begin."""
    with Store.open(root, SMALL) as store:
        flip_flag(root, table, 1)
        assert [finding.check for finding in store.check()] == ["structure"]
        flip_flag(root, table, 1)


@pytest.mark.parametrize("flags", [0, 1, 3, 4, 6, 10])
def test_an_entry_of_the_main_tree_is_a_table(flags: int, root: Path) -> None:
    """LMDB asks the node whether it is; so does the check."""
    data = root / "index" / "data.mdb"
    content = data.read_bytes()
    data.write_bytes(content.replace(node(b"blobs"), node(b"blobs").replace(b"\2", bytes([flags]), 1)))
    finding = inspect_index(root, SMALL)
    assert finding is not None
    assert finding.check == "structure"


def test_a_table_whose_name_changed_is_missed(root: Path) -> None:
    """To open a store makes the tables that are not there, empty."""
    data = root / "index" / "data.mdb"
    data.write_bytes(data.read_bytes().replace(node(b"lost"), node(b"lost").replace(b"lost", b"lort")))
    finding = inspect_index(root, SMALL)
    assert finding is not None
    assert "lort" in finding.what


def swap_first_two(root: Path, table: str) -> None:
    """Let the first two entries of each leaf of a table change places: their rows are whole, their order is not."""
    data = root / "index" / "data.mdb"
    with opened(root) as store:
        keys = store._parts.index.read(lambda view: {key for key, _ in view.dump(table)})
    content = bytearray(data.read_bytes())
    swapped = 0
    for page in range(2 * PAGE, len(content), PAGE):
        first, second = struct.unpack_from("<HH", content, page + 16)
        there = [bytes(content[page + at + 8 :][: content[page + at + 6]]) for at in (first, second)]
        if content[page + 10] & 2 and keys.issuperset(there):
            struct.pack_into("<HH", content, page + 16, second, first)
            swapped += 1
    assert swapped
    data.write_bytes(content)


@pytest.mark.parametrize("table", ["refs", "blobs", "chunks", "recipes"])
def test_nobody_pages_through_a_table_for_ever(table: str, root: Path) -> None:
    """A key that does not follow the one before would be where the next look begins, again and again."""
    swap_first_two(root, table)
    with Store.open(root, SMALL) as store:
        index = store._parts.index
        looks = {
            "refs": lambda view: view.keys(b"", b"", None),
            "blobs": lambda view: view.prove_after("blobs", b"", 1000),
            "chunks": lambda view: view.chunk_places(b"", 1000),
            "recipes": lambda view: view.named_chunks(b"", 1000),
        }
        with pytest.raises(Damaged, match=r"out of order.*rebuild-index --force"):
            index.read(looks[table])
