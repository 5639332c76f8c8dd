"""What a collection and a compaction would do, said beforehand, is what they then do."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from cas import Name, Store
from cas.doomed import Doomed
from cas.records import ChunkRef
from tests.engine.test_compact import contents, drop, filled
from tests.support.engine import noise, opened, packs_of, push


def littered(store: Store, dice: random.Random) -> list[Name]:
    """Fill a store at random, and choose names to delete; some are gone already, some blobs were never named."""
    expected = filled(store, dice.randrange(1000), 24)
    for path in sorted(expected)[:1]:
        drop(store, path)
    upload = store.upload()
    upload.write(noise(dice.randrange(1, 400_000), dice.randrange(1000)))
    upload.finish()  # kept by nobody
    names = [name for name, _ in store.scan("thing")]
    return dice.sample(names, dice.randint(0, len(names)))


@pytest.mark.parametrize("everything", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_a_dry_run_of_both_says_what_they_then_do(tmp_path: Path, seed: int, everything: bool) -> None:
    """Whatever lies in the store, and whichever names go: every figure of content, and the files agree."""
    dice = random.Random(seed)
    for _ in range(2):
        with opened(tmp_path) as store:
            gone = littered(store, dice)
            before = {path: path.read_bytes() for path in packs_of(tmp_path)}
            collected = store.collect(dry_run=True, without=gone)
            compacted = store.compact(everything=everything, dry_run=True, doomed=collected.doomed)
            assert {path: path.read_bytes() for path in packs_of(tmp_path)} == before
            drop(store, *(name.path for name in gone))
            size = store.stats().pack_bytes
            assert store.collect() == collected
            done = store.compact(everything=everything)
            assert (done.data, done.left) == (compacted.data, compacted.left)
            assert done.freed_bytes == size - store.stats().pack_bytes
            contents(store)


def test_a_pack_whose_chunks_would_all_go_is_counted_whole(tmp_path: Path) -> None:
    """Nothing is written for it: the sizes are those of the file."""
    with opened(tmp_path) as store:
        push(store, "gone", noise(300_000))
    with opened(tmp_path) as store:
        before = store.stats().pack_bytes
        doomed = store.collect(dry_run=True, without=[Name("thing", "gone")]).doomed
        said = store.compact(everything=True, dry_run=True, doomed=doomed).data
        assert (said.before, said.after, said.moved_bytes) == (1, 0, 0)
        assert 300_000 <= said.freed_bytes < before


def test_what_is_doomed_is_found_and_nothing_else() -> None:
    """The first, the last, and none beside or between them."""
    ids = [bytes([n]) * 16 + n.to_bytes(4, "big") for n in range(10, 90, 2)]
    doomed = Doomed([7])
    assert not doomed.has(ids[0])
    doomed.add(ids[:20])
    doomed.add(ids[20:])
    assert all(map(doomed.has, ids))
    assert not any(doomed.has(bytes([n]) * 16 + n.to_bytes(4, "big")) for n in range(9, 91, 2))
    assert doomed.names(ChunkRef(bytes([12]) * 16, 12, 5))
    assert not doomed.names(ChunkRef(bytes([12]) * 16, 13, 5))
