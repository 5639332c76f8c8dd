"""Whose bytes are whose: against an oracle that knows every chunk, and against the disk."""

# ruff: noqa: SLF001 - the oracle looks into the index

from __future__ import annotations

import random
import tracemalloc
from collections import Counter
from functools import reduce
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cas.usage
from cas import Digest, Holder, Holders, Name, Store, Usage
from cas.records import Role
from cas.view import View
from tests.support.engine import KIB, MIB, SMALL, noise, opened, packs_of, prose, push, tar_of

OWNERS = 3
MEMBERS = [noise(20 * KIB, 100), noise(30 * KIB, 101), prose(40 * KIB, 102), noise(5 * KIB, 103), prose(25 * KIB, 104)]

# Which members each blob has, and whose it is: bits of owners, of others, of what is kept; 0 is nobody's.
Blobs = list[tuple[frozenset[int], int]]
blobs = st.lists(
    st.tuples(
        st.frozensets(st.integers(0, len(MEMBERS) - 1), min_size=1),
        st.integers(0, (1 << (OWNERS + 2)) - 1).map(lambda bits: bits << 1),
    ),
    min_size=1,
    max_size=6,
)


KEPT, OTHERS = 2, 4  # as bits


def owner(number: int) -> int:
    return 1 << (number + 3)


def holders(masks: dict[Digest, int]) -> dict[Digest, list[int]]:
    """Say the same by numbers, some of them twice."""
    bits = {KEPT: Holder.KEPT, OTHERS: Holder.OTHERS} | {owner(number): number for number in range(OWNERS)}
    return {digest: [who for bit, who in bits.items() if mask & bit] * 2 for digest, mask in masks.items()}


def on_disk(root: Path) -> int:
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())


def total(found: Usage) -> int:
    parts = (found.among, found.beyond, found.others, found.uploads, found.kept, found.garbage)
    return sum(found.unique) + sum(parts) + found.records + found.journal + found.index + found.rest


def fill(store: Store, made: Blobs) -> dict[Digest, int]:
    """Push the blobs; nobody's are named and unnamed again."""
    owners: dict[Digest, int] = {}
    for number, (members, mask) in enumerate(made):
        data = tar_of({f"{member}": MEMBERS[member] for member in sorted(members)}, mtime=number)
        digest = push(store, str(number), data)
        owners[digest] = mask
        if not mask:
            store.change(lambda names, number=number: names.delete(Name("thing", str(number))))  # type: ignore[misc]
    return owners


def chunks_of(store: Store, digest: Digest) -> dict[tuple[bytes, int], int]:
    """Each chunk of a blob and what it takes."""

    def look(view: View) -> dict[tuple[bytes, int], int]:
        blob = view.blob(digest)
        assert blob is not None
        found = {}
        for stretch in view.segments(blob.recipe):
            for ref in stretch.refs:
                row = view.chunk(ref)
                assert row is not None
                found[ref.key, ref.salt] = row.extent.stored
        return found

    return store._parts.index.read(look)


def oracle(store: Store, owners: dict[Digest, int]) -> Counter[int]:
    """What each set of holders takes."""
    masks: Counter[tuple[bytes, int]] = Counter()
    sizes: dict[tuple[bytes, int], int] = {}
    for digest, mask in owners.items():
        for chunk, size in chunks_of(store, digest).items():
            masks[chunk] |= mask
            sizes[chunk] = size
    found: Counter[int] = Counter()
    for chunk, size in sizes.items():
        found[masks[chunk]] += size
    return found


@settings(max_examples=15, deadline=None)
@given(made=blobs)
def test_every_byte_is_whose_it_is(tmp_path_factory: pytest.TempPathFactory, made: Blobs) -> None:
    """Unique, shared, kept, garbage as an oracle finds them; and all lines sum up to the disk."""
    root = tmp_path_factory.mktemp("usage") / "root"
    with opened(root) as store:
        owners = fill(store, made)
        found = store.usage(holders(owners), OWNERS)
        sets = oracle(store, owners)
        for number in range(OWNERS):
            bit = owner(number)
            assert found.unique[number] == sets[bit] + sets[bit | KEPT]
            having = sum(size for mask, size in sets.items() if mask & bit)
            assert found.shared[number] == having - found.unique[number]
        assert found.kept == sets[KEPT]
        assert found.garbage == sets[0]
        assert found.others == sets[OTHERS] + sets[OTHERS | KEPT]
        assert found.uploads == 0
        assert total(found) == found.disk == on_disk(root)
        inside = [size for mask, size in sets.items() if mask > OTHERS + KEPT and not mask & OTHERS]
        assert found.inside == sum(inside)


def test_the_answer_does_not_depend_on_how_many_chunks_fit_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One pass or dozens, large slices or tiny ones."""
    with opened(tmp_path / "root") as store:
        dice = random.Random(5)
        made = [(frozenset(dice.sample(range(5), 3)), dice.choice([2, 4, 8, 16, 24, 32])) for _ in range(8)]
        owners = fill(store, made)
        whole = store.usage(holders(owners), OWNERS)
        monkeypatch.setattr(cas.usage, "_MOST_CHUNKS", 3)
        monkeypatch.setattr(cas.usage, "_ROWS", 2)
        monkeypatch.setattr(cas.usage, "_SEGMENTS", 1)
        assert store.usage(holders(owners), OWNERS) == whole
        assert whole.among
        assert reduce(max, whole.unique)


def test_who_holds_what_takes_memory_in_proportion_to_what_is_held() -> None:
    """A repository of 100,000 tags, of which each has a blob of its own and all share one, and 20 have some more."""
    tags = 100_000
    tracemalloc.start()
    try:
        held = Holders[int]()
        for number in range(tags):
            held.add(number, number)
            held.add(tags, number)
        for shared in range(1000):
            for number in range(20):
                held.add(tags + 1 + shared, number)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 300 * tags
    assert list(held[tags]) == list(range(tags))
    assert [list(held[number]) for number in (0, tags - 1)] == [[0], [tags - 1]]
    assert list(held[tags + 1]) == list(range(20))


def test_what_is_an_owners_alone_is_garbage_once_its_names_are_gone(tmp_path: Path) -> None:
    """Deleting it frees what was said, to the byte."""
    with opened(tmp_path / "root") as store:
        one, two = owner(0), owner(1)
        made = [(frozenset({0, 1, 2}), one), (frozenset({1, 3}), two), (frozenset({4}), one), (frozenset({2}), 2)]
        owners = fill(store, made)
        before = store.usage(holders(owners), 2)
        store.change(lambda names: [names.delete(Name("thing", path)) for path in ("0", "2", "3")])
        after = store.usage(holders({digest: mask for digest, mask in owners.items() if mask == two}), 2)
        assert before.unique[0] > 0
        assert after.garbage - before.garbage == before.unique[0] + before.kept
        assert after.unique[0] == after.shared[0] == after.kept == 0
        assert after.unique[1] == before.unique[1] + before.shared[1]


@settings(max_examples=8, deadline=None)
@given(made=blobs)
def test_a_collection_frees_what_was_said_to_the_byte(tmp_path_factory: pytest.TempPathFactory, made: Blobs) -> None:
    """Packs shrink by what an owner had alone, and by what their records said of it."""
    root = tmp_path_factory.mktemp("usage") / "root"
    with opened(root) as store:
        made = [(members, mask & ~KEPT) for members, mask in made]
        owners = fill(store, made)
        before = cleaned(store, owners)
        size = data_bytes(store)
        for number, (_, mask) in enumerate(made):
            if mask == owner(0):
                store.change(lambda names, number=number: names.delete(Name("thing", str(number))))  # type: ignore[misc]
        alone = {digest: mask for digest, mask in owners.items() if mask != owner(0)}
        expected = store.usage(holders({**alone}), OWNERS).garbage
        after = cleaned(store, alone)
        assert before.garbage == after.garbage == 0
        assert size - data_bytes(store) == expected + before.records - after.records
        if not any(mask & owner(0) and mask != owner(0) for _, mask in made):
            assert expected == before.unique[0]


def cleaned(store: Store, owners: dict[Digest, int]) -> Usage:
    """Collect and compact all there is, then measure."""
    store.collect()
    store.compact(everything=True)
    return store.usage(holders(owners), OWNERS)


def data_bytes(store: Store) -> int:
    rows = store._parts.index.read(lambda view: view.packs())
    paths = [store._parts.layout.pack(row.pack) for row in rows if row.role is Role.DATA]
    return sum(path.stat().st_size for path in paths if path.exists())


def test_an_upload_under_way_is_neither_garbage_nor_anybodys(tmp_path: Path) -> None:
    """Filed or not yet; and what it shares with an owner does not go with that owner."""
    with opened(tmp_path / "root") as store:
        data = noise(3 * MIB, 7)
        digest = push(store, "one", data)
        owners = {digest: owner(0)}
        with store.upload() as upload:
            upload.write(data[: 2 * MIB] + noise(MIB, 8))
            upload.finish()  # nobody keeps it yet, and nothing of it moves any more
            found = store.usage(holders(owners), 1)
            assert MIB // 2 < found.uploads <= 2 * MIB
            assert found.garbage == 0
            assert 0 < found.beyond == found.shared[0] <= 2 * MIB
            assert found.unique[0] + found.beyond == 3 * MIB
            assert total(found) == found.disk
        with store.resume(77) as session:
            session.write(noise(200 * KIB, 10))
            session.suspend()
        assert store.usage(holders(owners), 1).uploads >= 200 * KIB


def test_what_packs_hold_and_no_row_names_is_garbage(tmp_path: Path) -> None:
    """A pack without a row, bytes behind the last record of a closed pack, chunks whose row is gone."""
    with opened(tmp_path / "root") as store:
        digest = push(store, "one", noise(300 * KIB, 1))
    with opened(tmp_path / "root") as store:
        before = store.usage(holders({digest: owner(0)}), 1)
        stray = packs_of(tmp_path / "root")[0].with_name("00000000000000ff.pack")
        stray.write_bytes(bytes(1000))
        gone = chunks_of(store, digest)
        store._parts.index.write(lambda edit: edit._tx.delete("chunks", _id(next(iter(gone)))))
        after = store.usage(holders({digest: owner(0)}), 1)
        assert after.garbage - before.garbage == 1000 + next(iter(gone.values()))
        assert total(after) == after.disk == on_disk(tmp_path / "root")


def _id(chunk: tuple[bytes, int]) -> bytes:
    return chunk[0] + chunk[1].to_bytes(4, "big")


def test_a_closed_packs_tail_is_garbage(tmp_path: Path) -> None:
    """What a killed process wrote and never filed."""
    with opened(tmp_path / "root") as store:
        digest = push(store, "one", noise(300 * KIB, 1))
        before = store.usage(holders({digest: owner(0)}), 1)
        (pack,) = [path for path in packs_of(tmp_path / "root") if path.stat().st_size > 200 * KIB]
        with pack.open("ab") as file:
            file.write(bytes(5000))
        assert store.usage(holders({digest: owner(0)}), 1).uploads - before.uploads == 5000
        assert SMALL.pack_bytes > pack.stat().st_size
