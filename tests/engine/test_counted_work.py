"""What each verb of the engine costs, in work that can be counted: bounds that hold on a machine of any speed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import lmdb
import pytest

from cas import Digest, Name, Names, Record, Staged, Store
from cas.direct import BLOCK
from cas.disk import Counts, Disk
from cas.records import HEADER_SIZE
from tests.support.counting import IndexWork, counted_index
from tests.support.engine import MIB, file_ranges, noise, prose, push, read, stage, wait_for_jobs

PATIENCE_S = 60
LARGE = noise(40 * MIB, 7)  # more than a run, so that it takes a second one
CHUNKS = 2 * 40 * MIB // (512 << 10)  # twice as many as are to be expected of it


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def store(tmp_path: Path, disk: Disk) -> Iterator[Store]:
    """A store that has been pushed to, so that its packs are open and made durable."""
    with Store.open(tmp_path, create=True, disk=disk) as opened:
        push(opened, "first", noise(200_000))
        push(opened, "second", b"inline")
        yield opened


def cost(disk: Disk, work: Callable[[], Any]) -> tuple[IndexWork, Counts]:
    """Run some work; give what it asked of the index and of the disk."""
    before = replace(disk.counts)
    with counted_index() as index:
        work()
    after = disk.counts
    spent = {name: getattr(after, name) - getattr(before, name) for name in Counts.__dataclass_fields__}
    return index, Counts(**spent)


def test_a_small_blob_and_its_name_are_one_sync_and_one_commit(store: Store, disk: Disk) -> None:
    """A record of the journal, and a dozen rows; its bytes lie in the record and nowhere else."""
    index, spent = cost(disk, lambda: push(store, "small", noise(4096, 1)))
    assert (spent.syncs, spent.writes) == (1, 1)
    assert spent.bytes_written < 4096 + 512
    assert (index.reads, index.writes) == (0, 1)
    assert index.look_ups <= 9
    assert index.changes <= 10


def test_sixteen_changes_that_wait_together_are_one_sync_and_one_commit(store: Store, disk: Disk) -> None:
    """What comes while the committer is busy shares the next commit, however much it is."""
    begun, held = threading.Event(), threading.Event()

    def hold(_: Names) -> bool:
        begun.set()
        return held.wait(PATIENCE_S)

    def together() -> None:
        with ThreadPoolExecutor(17) as pool:
            first = pool.submit(store.change, hold)
            assert begun.wait(PATIENCE_S)
            staged = [stage(store, noise(4096, 100 + number)) for number in range(16)]
            rest = [pool.submit(store.change, lambda names, one=one: named(names, one)) for one in staged]
            wait_for_jobs(store, 16)
            held.set()
            assert first.result(PATIENCE_S)
            for one in rest:
                one.result(PATIENCE_S)

    def named(names: Names, one: Any) -> None:
        names.keep(one)
        names.put(Name("thing", str(one.digest)), Record(b"", (one.digest,), one.size))

    index, spent = cost(disk, together)
    assert spent.syncs == 1  # the held change named nothing, so it has no record
    assert index.writes == 2
    assert spent.bytes_written < 16 * (4096 + 512)


def test_a_large_layer_is_written_once_and_synced_once_a_run(store: Store, disk: Disk) -> None:
    """Two runs of data and the journal; what is written beside the layer is less than a thousandth."""
    index, spent = cost(disk, lambda: push(store, "large", LARGE, MIB))
    assert len(LARGE) < spent.bytes_written < 1.001 * len(LARGE)
    assert spent.bytes_read == 0
    assert spent.syncs <= 2 + 1
    assert index.writes <= 2 + 1
    assert index.reads <= 3 * len(LARGE) // MIB  # one for all chunks of a window, not one a chunk
    assert index.look_ups <= 2 * CHUNKS
    assert index.changes <= 2 * CHUNKS


def test_a_layer_that_is_drawn_is_looked_at_a_window_at_a_time(store: Store, disk: Disk) -> None:
    """One read of the index for the chunks of 4 MiB, another to see whether a collection waits, one write of them."""
    at = 0

    def fill(into: memoryview) -> int:
        nonlocal at
        into[:] = LARGE[at : at + len(into)]
        at += len(into)
        return len(into)

    def drawn() -> None:
        with store.upload() as upload:
            while at < len(LARGE):
                upload.draw(fill, len(LARGE) - at, len(LARGE))
            digest = upload.keep(None, named)
        assert store.stat(digest).size == len(LARGE)

    def named(names: Names, staged: Staged) -> Digest:
        names.put(Name("thing", "drawn"), Record(b"", (staged.digest,)))
        return staged.digest

    index, spent = cost(disk, drawn)
    windows = len(LARGE) // (4 * MIB)
    assert index.reads <= 2 * windows + 12
    assert index.look_ups <= 1.5 * CHUNKS + 2 * windows
    assert spent.writes <= 2 * windows
    assert spent.syncs <= 2 + 1


def test_a_layer_that_is_stored_is_compared_and_not_written(store: Store, disk: Disk) -> None:
    """Each of its bytes is read once, a window at a time in whole blocks; a run's record and its name are written."""
    push(store, "large", LARGE, MIB)
    index, spent = cost(disk, lambda: push(store, "again", LARGE, MIB))
    assert spent.bytes_written < 16_384
    assert spent.reads <= 2 * len(LARGE) // MIB
    assert spent.bytes_read <= len(LARGE) + 2 * BLOCK * spent.reads
    assert spent.syncs <= 2
    assert index.writes <= 2
    assert index.look_ups <= 3 * CHUNKS


def test_text_is_stored_in_less_than_it_has_and_read_as_it_is_stored(store: Store, disk: Disk) -> None:
    """Compressed chunks: a read takes their stored bytes from the disk and not one more."""
    text = prose(4 * MIB)
    _, pushed = cost(disk, lambda: push(store, "text", text, MIB))
    assert pushed.bytes_written < 0.6 * len(text)
    digest = stage(store, text).digest
    index, spent = cost(disk, lambda: read(store, digest))
    assert spent.bytes_read <= pushed.bytes_written
    assert spent.reads <= 2 * len(text) // (512 << 10)  # chunks that lie back to back are read together
    assert index.look_ups <= 12


def test_a_chunk_takes_less_than_160_bytes_of_the_index(tmp_path: Path) -> None:
    """Pages of its row and of its place in a recipe, for chunks that are compressed, whose places cannot be joined."""
    with Store.open(tmp_path, create=True) as store:
        for number in range(3):
            push(store, f"text {number}", noise(24 * MIB, number).hex().encode(), MIB)
    with lmdb.open(str(tmp_path / "index"), max_dbs=20, readonly=True, lib_version=0) as environment:
        stats = {name: table_stats(environment, name) for name in ("chunks", "recipes")}
    pages = sum(its[kind] for its in stats.values() for kind in ("branch_pages", "leaf_pages", "overflow_pages"))
    assert stats["chunks"]["entries"] > 1000
    assert pages * stats["chunks"]["psize"] < 160 * stats["chunks"]["entries"]


def table_stats(environment: lmdb.Environment, name: str) -> Mapping[str, int]:
    with environment.begin() as transaction:
        found: Any = transaction.stat(environment.open_db(name.encode(), transaction, create=False))
    return dict(found)


def test_where_a_layer_lies_is_found_a_segment_at_a_time(store: Store, disk: Disk) -> None:
    """Extents are ready in the segment: no look-up for each chunk, and no byte of the layer is touched."""
    digest = push(store, "large", LARGE, MIB)
    index, spent = cost(disk, lambda: file_ranges(store, digest))
    assert index.reads <= 12
    assert index.look_ups <= 12
    assert spent.bytes_read == HEADER_SIZE, "of the file alone, to see that it is the pack it is named after"


def test_a_name_is_one_look_up(store: Store, disk: Disk) -> None:
    """In one read of the index."""
    index, spent = cost(disk, lambda: store.get(Name("thing", "first")))
    assert (index.reads, index.look_ups, spent.reads) == (1, 1, 0)


def test_a_small_blob_is_read_without_a_file(store: Store, disk: Disk) -> None:
    """It lies in the index."""
    digest = push(store, "small", noise(4096, 1))
    index, spent = cost(disk, lambda: read(store, digest))
    assert spent.reads == 0
    assert index.look_ups <= 6
