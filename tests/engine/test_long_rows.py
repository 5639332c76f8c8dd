"""Rows of the index that are longer than a page: whole again when they are read, and never pages in a row (I9)."""

# ruff: noqa: SLF001 - what a promise rests on is looked at inside, not only from the front

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

import lmdb
import pytest

from cas import Damaged, Depth, Digest, EngineSettings, Missing, Store, rebuild_index, rows
from cas.finding import REBUILD
from cas.index import Index
from cas.records import BlobEntry, Role
from cas.rows import HEAD_BYTES, LONG, PIECES, sealed
from cas.tables import BLOB, INLINE, TABLES
from tests.engine.test_index_damage import flip_all
from tests.support.engine import KIB, SMALL, flip, noise, opened, packs_of, push, read

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
        there, pages = statistics(tmp_path, table)
        assert pages <= there
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
    _in_one(tmp_path, data)
    index = Index(tmp_path / "index", EngineSettings())
    assert index.read(lambda view: view.blob(Digest.of(data))) == entry(data)
    assert index.read(lambda view: view.blobs_after(None, 9)) == [entry(data)]
    index.write(lambda edit: edit.put_blob(entry(data)))
    assert index.read(lambda view: view.blob(Digest.of(data))) == entry(data)
    index.write(lambda edit: edit.delete_blob(Digest.of(data)))
    assert index.read(lambda view: (view.blob(Digest.of(data)), view.count(PIECES))) == (None, 0)
    index.close()


def test_a_row_in_one_that_is_as_long_as_a_head_is_told_by_one_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sum stands where a head says how many pieces follow: 65,535 at the worst, looked for by each reader."""
    data, counts, keys = noise(AROUND), list[int](), rows._keys

    def noted(table: str, key: bytes, count: int) -> list[bytes]:
        counts.append(count)
        return keys(table, key, count)

    monkeypatch.setattr(rows, "_keys", noted)
    with opened(tmp_path):
        pass
    _in_one(tmp_path, data)
    index = Index(tmp_path / "index", EngineSettings())
    assert index.read(lambda view: view.blob(Digest.of(data))) == entry(data)
    index.write(lambda edit: edit.delete_blob(Digest.of(data)))
    assert counts == [1]
    index.close()


def _in_one(root: Path, data: bytes) -> None:
    """Store a row as an older version did."""

    def put(env: lmdb.Environment, txn: lmdb.Transaction) -> None:
        key = Digest.of(data).pack()
        row = sealed(key, BLOB.pack(len(data), 1, 1, INLINE) + data)
        txn.put(key, row, db=env.open_db(b"blobs", txn))

    looked_at(root, put, write=True)


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


def _exchanged(env: lmdb.Environment, txn: lmdb.Transaction) -> None:
    _, _, (one, first), (other, second), *_ = _pieces(env, txn)
    _put(env, txn, {one: second, other: first})


def _of_another(env: lmdb.Environment, txn: lmdb.Transaction) -> None:
    (one, first), *_, (other, _) = _pieces(env, txn)
    _put(env, txn, {other[:-2] + one[-2:]: first})


def _too_long(env: lmdb.Environment, txn: lmdb.Transaction) -> None:
    (one, first), *_ = _pieces(env, txn)
    _put(env, txn, {one: sealed(one, first[:-4] + b"more")})


def _left_over(env: lmdb.Environment, txn: lmdb.Transaction) -> None:
    (one, _), *_ = _pieces(env, txn)
    key = one[:-2] + b"\0\xff"
    _put(env, txn, {key: sealed(key, b"more")})


def _of_none(env: lmdb.Environment, txn: lmdb.Transaction) -> None:
    _put(env, txn, {key: sealed(key, b"more") for key in (b"b" + bytes(35), b"x", b"zz" + bytes(35), b"s" + bytes(10))})


def _without_the_first(env: lmdb.Environment, txn: lmdb.Transaction) -> None:
    (one, _), *_ = _pieces(env, txn)
    txn.delete(one, db=env.open_db(PIECES.encode(), txn))


def _without_a_head(env: lmdb.Environment, txn: lmdb.Transaction) -> None:
    (one, _), *_ = _pieces(env, txn)
    txn.delete(one[1:-2], db=env.open_db(b"blobs", txn))


def _miscounted(env: lmdb.Environment, txn: lmdb.Transaction) -> None:
    (one, _), *_ = _pieces(env, txn)
    blobs = env.open_db(b"blobs", txn)
    head = txn.get(one[1:-2], db=blobs)
    assert isinstance(head, bytes)
    txn.put(one[1:-2], head[:-2] + b"\0\1", db=blobs)


def _pieces(env: lmdb.Environment, txn: lmdb.Transaction) -> list[tuple[bytes, bytes]]:
    with txn.cursor(env.open_db(PIECES.encode(), txn)) as cursor:
        return cast("list[tuple[bytes, bytes]]", list(cursor))


def _put(env: lmdb.Environment, txn: lmdb.Transaction, pieces: dict[bytes, bytes]) -> None:
    for key, row in pieces.items():
        txn.put(key, row, db=env.open_db(PIECES.encode(), txn))


HARMFUL = [_exchanged, _of_another, _too_long, _without_a_piece, _without_the_first, _without_a_head, _miscounted]


@pytest.mark.parametrize("spoil", [*HARMFUL, _left_over, _of_none])
def test_pieces_that_are_not_those_of_their_rows_are_named_and_mended(
    tmp_path: Path, spoil: Callable[[lmdb.Environment, lmdb.Transaction], None]
) -> None:
    """Nobody is served what they make of it; a push takes the place of what it can, and an index made anew is right."""
    blobs = [noise(64 * KIB), noise(20 * KIB, 1)]
    with opened(tmp_path, EngineSettings()) as store:
        digests = [push(store, str(len(data)), data) for data in blobs]
    looked_at(tmp_path, spoil, write=True)
    with Store.open(tmp_path) as store:
        found = list(store.check())
        assert found
        assert REBUILD in {finding.remedy for finding in found}
        if spoil in (_left_over, _of_none):
            assert [(finding.check, finding.where) for finding in found] == [("rows", f"index table {PIECES}")]
        whole = [given(store, digest) for digest in digests]
        assert all(data in (None, blob) for data, blob in zip(whole, blobs, strict=True))
        assert (whole == blobs) is (spoil not in HARMFUL)
        for data in blobs:
            push(store, "again", data)
        assert [read(store, digest) for digest in digests] == blobs
    rebuild_index(tmp_path, force=True)
    with Store.open(tmp_path) as store:
        assert list(store.check(Depth.DEEP)) == []
        assert [read(store, digest) for digest in digests] == blobs
    assert statistics(tmp_path, PIECES)[0] == 16 + 5


def given(store: Store, digest: Digest) -> bytes | None:
    try:
        return read(store, digest)
    except (Damaged, Missing):
        return None


def test_pieces_of_no_row_keep_nobody_from_mending_the_rest(tmp_path: Path) -> None:
    """Nothing rests on them: a check goes on to the packs, and a repair does what it can."""
    with opened(tmp_path) as store:
        digest = push(store, "it", noise(200 * KIB))
    looked_at(tmp_path, _of_none, write=True)
    flip(packs_of(tmp_path, Role.DATA)[0], 100 * KIB)
    with Store.open(tmp_path, SMALL) as store:
        assert [finding.check for finding in store.check(Depth.DATA)] == ["rows", "chunks"]
        assert store.repair().lost == (digest,)
