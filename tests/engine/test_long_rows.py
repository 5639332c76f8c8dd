"""Rows of the index that are longer than a page: whole again when they are read, and never pages in a row (I9)."""

# ruff: noqa: SLF001 - what a promise rests on is looked at inside, not only from the front

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import lmdb
import pytest

from cas import Damaged, Digest, EngineSettings, Store, rebuild_index
from cas.index import Index
from cas.records import BlobEntry
from cas.rows import HEAD_BYTES, LONG, PIECES, sealed
from cas.tables import BLOB, INLINE, TABLES
from tests.engine.test_index_damage import flip_all
from tests.support.engine import KIB, noise, opened, push, read

T = TypeVar("T")
AROUND = HEAD_BYTES - BLOB.size - len(sealed(b"", b""))  # bytes of a blob whose row is as long as a head
SIZES = [1, AROUND - 1, AROUND, AROUND + 1, 2 * HEAD_BYTES, 2 * HEAD_BYTES + 1, 64 * KIB]


def entry(data: bytes) -> BlobEntry:
    return BlobEntry(Digest.of(data), len(data), 1, 1, inline=data)


def looked_at(root: Path, look: Callable[[lmdb.Environment, lmdb.Transaction], T], *, write: bool = False) -> T:
    """Look at the tables beside the engine, which must not have them open."""
    with lmdb.open(str(root / "index"), max_dbs=len(TABLES), lib_version=0) as env, env.begin(write=write) as txn:
        return look(env, txn)


def statistics(root: Path, table: str) -> tuple[int, int]:
    """Count a table's rows, and the pages that hold what does not fit beside others."""
    told = looked_at(root, lambda env, txn: txn.stat(env.open_db(table.encode(), txn)))
    return told["entries"], told["overflow_pages"]


def test_rows_of_every_length_come_back_and_take_pages_one_by_one(tmp_path: Path) -> None:
    """To find pages that follow each other would mean to look through all that are free."""
    with opened(tmp_path, EngineSettings()) as store:
        digests = {push(store, str(size), noise(size)): noise(size) for size in SIZES}
        for digest, data in digests.items():
            assert read(store, digest) == data
    for table in (*LONG, PIECES):
        rows, pages = statistics(tmp_path, table)
        assert pages <= rows
    assert statistics(tmp_path, PIECES)[0] == 1 + 1 + 2 + 2 + 16


def test_a_row_that_changes_or_goes_leaves_no_piece_behind(tmp_path: Path) -> None:
    """Also where it becomes shorter, or is lost and found."""
    index = Index(tmp_path, EngineSettings())
    long, other = entry(noise(64 * KIB)), entry(noise(20 * KIB, 1))
    index.write(lambda edit: edit.put_blob(long))
    index.write(lambda edit: edit.put_blob(other))
    index.write(lambda edit: edit.lose_blob(long.digest))
    assert index.read(lambda view: (view.blob(long.digest), view.lost_after(None, 9))) == (None, [long])
    index.write(lambda edit: edit.put_blob(long))
    index.write(lambda edit: edit._tx.put("blobs", long.digest.pack(), b"short"))
    assert index.read(lambda view: view.count(PIECES)) == 5
    index.write(lambda edit: edit.delete_blob(long.digest))
    index.write(lambda edit: edit.delete_blob(other.digest))
    assert index.read(lambda view: view.count(PIECES)) == 0
    index.close()


@pytest.mark.parametrize("size", SIZES)
def test_rows_that_an_older_version_wrote_in_one_are_read_and_go(tmp_path: Path, size: int) -> None:
    """Whatever their length, that of a head among them."""
    data = noise(size)
    with opened(tmp_path):
        pass

    def as_before(env: lmdb.Environment, txn: lmdb.Transaction) -> None:
        key = Digest.of(data).pack()
        row = sealed(key, BLOB.pack(size, 1, 1, INLINE) + data)
        txn.put(key, row, db=env.open_db(b"blobs", txn))

    looked_at(tmp_path, as_before, write=True)
    index = Index(tmp_path / "index", EngineSettings())
    assert index.read(lambda view: view.blob(Digest.of(data))) == entry(data)
    assert index.read(lambda view: view.blobs_after(None, 9)) == [entry(data)]
    index.write(lambda edit: edit.put_blob(entry(data)))
    assert index.read(lambda view: view.blob(Digest.of(data))) == entry(data)
    index.write(lambda edit: edit.delete_blob(Digest.of(data)))
    assert index.read(lambda view: (view.blob(Digest.of(data)), view.count(PIECES))) == (None, 0)
    index.close()


@pytest.mark.parametrize("at", [10, 5000, 64 * KIB - 1])
def test_a_flipped_bit_or_a_lost_piece_is_never_served(tmp_path: Path, at: int) -> None:
    """It is damage, told as such by readers and checks, and an index made anew has the blob whole."""
    data = noise(64 * KIB)
    with opened(tmp_path, EngineSettings()) as store:
        digest = push(store, "it", data)
    flip_all(tmp_path, data[at : at + 8] if at + 8 <= len(data) else data[-8:])
    with Store.open(tmp_path) as store:
        with pytest.raises(Damaged, match="rebuild-index"):
            store.reader(digest)
        assert [finding.check for finding in store.check()] == ["rows"] * (1 if at == 10 else 2)
    rebuild_index(tmp_path, force=True)
    looked_at(tmp_path, _without_a_piece, write=True)
    with Store.open(tmp_path) as store, pytest.raises(Damaged, match="rebuild-index"):
        store.reader(digest)
    rebuild_index(tmp_path, force=True)
    with Store.open(tmp_path) as store:
        assert read(store, digest) == data


def _without_a_piece(env: lmdb.Environment, txn: lmdb.Transaction) -> None:
    with txn.cursor(env.open_db(PIECES.encode(), txn)) as cursor:
        assert cursor.last()
        assert cursor.delete()
