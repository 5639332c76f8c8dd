"""Blobs whose files are all open: read without the index, whatever becomes of them meanwhile, and in nobody's way."""

# ruff: noqa: SLF001 - what a promise rests on is looked at inside, not only from the front

from __future__ import annotations

import gc
import os
from dataclasses import replace
from pathlib import Path

import pytest

from cas import Damaged, Digest, Held, Places, Store
from cas.held import MOST_EXTENTS
from tests.engine.test_compact import drop, sweep
from tests.support.counting import counted_index
from tests.support.engine import KIB, MIB, SMALL, file_ranges, noise, opened, prose, push, read
from tests.wire.harness import open_descriptors

DATA = noise(300 * KIB, 1)


def places(store: Store, digest: Digest) -> Places:
    """Where a blob lies, if one look tells."""
    found = store.read(lambda reads: reads.content(digest))
    assert isinstance(found, Places)
    return found


def held(store: Store, digest: Digest) -> Held:
    """A blob with all its files open."""
    found = store.hold(places(store, digest))
    assert found is not None
    return found


def content(blob: Held, start: int = 0, stop: int | None = None) -> bytes:
    """The bytes of a held blob, from its files."""
    return b"".join(os.pread(piece.fd, piece.count, piece.offset) for piece in blob.pieces(start, stop))


def gone(store: Store, path: str) -> None:
    """Delete a blob and move what lies beside it, so that no file of it is left, and none is kept open unread."""
    drop(store, path)
    assert store.collect(wait_s=0).unfinished == ""
    assert store.compact(everything=True, wait_s=0).left == []
    store.tick()


def test_a_held_blob_is_read_whole_and_in_part_without_the_index(tmp_path: Path) -> None:
    """Of several runs, in several packs; exactly where a reader has it."""
    with opened(tmp_path) as store:
        digest = push(store, "blob", DATA)
        blob = held(store, digest)
        with counted_index() as index:
            assert (blob.digest, blob.size) == (digest, len(DATA))
            assert content(blob) == DATA
            for start, stop in ((0, 1), (1000, 200_000), (99 * KIB, len(DATA)), (5, 5), (len(DATA), None)):
                assert content(blob, start, stop) == DATA[start:stop]
        assert index.reads == 0
        there = {(piece.offset, piece.count) for piece in file_ranges(store, digest)}
        assert {(piece.offset, piece.count) for piece in blob.pieces()} == there
        blob.close()


def test_only_what_lies_in_few_pieces_as_it_is_has_places(tmp_path: Path) -> None:
    """The bytes of a small one are told at once; a reader reads all others."""
    with opened(tmp_path, replace(SMALL, segment_chunks=1)) as store:
        small, packed = push(store, "small", b"few"), push(store, "packed", prose(100 * KIB))
        many = push(store, "many", noise(MOST_EXTENTS * MIB, 5))
        assert len(file_ranges(store, many)) > MOST_EXTENTS
        assert store.read(lambda reads: reads.content(small)) == b"few"
        for other in (packed, many, Digest.of(b"nothing")):
            assert store.read(lambda reads, other=other: reads.content(other)) is None  # type: ignore[misc]


def test_a_held_blob_is_read_to_its_end_though_it_is_deleted_and_its_pack_gone(tmp_path: Path) -> None:
    """And whoever reads it holds no collection up: none waits, and nothing is left for the next."""
    with opened(tmp_path) as store:
        blob = held(store, push(store, "blob", DATA))
        packs = [store._parts.layout.pack(extent.pack) for extent in places(store, blob.digest).extents]
        assert all(pack.exists() for pack in packs)
        gone(store, "blob")
        assert not any(pack.exists() for pack in packs)
        assert content(blob) == DATA
        blob.close()


def test_places_that_lead_nowhere_any_more_hold_nothing(tmp_path: Path) -> None:
    """A blob that moved is found where it is now; one that was deleted is not."""
    with opened(tmp_path) as store:
        digest = push(store, "blob", DATA)
        push(store, "other", noise(200 * KIB, 2))
        before = places(store, digest)
        drop(store, "other")
        sweep(store)
        assert store.compact(everything=True).moved_bytes
        store.tick()
        assert store.hold(before) is None
        blob = held(store, digest)
        assert content(blob) == DATA
        blob.close()
        now = places(store, digest)
        gone(store, "blob")
        assert store.hold(now) is None


def test_a_blob_is_had_again_while_its_files_are_open_and_holds_none_by_that(tmp_path: Path) -> None:
    """Nothing is opened for it; when the file is gone and nobody reads it, its space is free."""
    with opened(tmp_path) as store:
        blob = held(store, push(store, "blob", DATA))
        packs = {extent.pack for extent in places(store, blob.digest).extents}
        blob.close()
        again = blob.again()
        assert again is not None
        assert content(again) == DATA
        gone(store, "blob")
        last = blob.again()
        assert last is not None  # since `again` still reads
        again.close()
        last.close()
        store.tick()
        assert blob.again() is None
        assert not packs & set(store._parts.files._open)


def test_a_file_that_was_removed_while_it_was_read_is_closed_by_its_last_reader(tmp_path: Path) -> None:
    """A collection may wait for its space: not until somebody looks again."""
    with opened(tmp_path) as store:
        blob = held(store, push(store, "blob", DATA))
        packs = {extent.pack for extent in places(store, blob.digest).extents}
        gone(store, "blob")
        store.let_go()
        assert packs & set(store._parts.files._open)
        assert content(blob) == DATA
        blob.close()
        assert not packs & set(store._parts.files._open)


def test_files_are_given_back_once_however_the_blob_is_let_go(tmp_path: Path) -> None:
    """Closed twice, or forgotten."""
    with opened(tmp_path) as store:
        digest = push(store, "blob", DATA)
        for _ in range(3):
            blob = held(store, digest)
            blob.close()
            blob.close()
            del blob
            held(store, digest)
        assert [entry.users for entry in store._parts.files._open.values()] == [0] * len(store._parts.files._open)
    assert not [link for link in open_descriptors() if str(tmp_path) in link]


def test_a_blob_may_be_forgotten_at_any_moment(tmp_path: Path) -> None:
    """Also while its thread is busy with the books of the packs, if the memory of a circle is looked for just then."""
    with opened(tmp_path) as store:
        files, circle = store._parts.files, list[object]()
        circle += [circle, held(store, push(store, "blob", DATA))]
        del circle
        with files._lock:
            gc.collect()
        assert not any(entry.users for entry in files._open.values())


def test_stored_bytes_are_read_into_given_memory_whole_or_not_at_all(tmp_path: Path) -> None:
    """No more than it takes; and the pack is given back, however that ends."""
    with opened(tmp_path) as store:
        (extent, *_), files = places(store, push(store, "blob", DATA)).extents, store._parts.files
        memory = bytearray(2 * KIB)
        files.read_into(extent.pack, extent.offset, memoryview(memory)[:KIB])
        assert bytes(memory) == files.read(extent.pack, extent.offset, KIB) + bytes(KIB)
        end = store._parts.layout.pack(extent.pack).stat().st_size
        with pytest.raises(Damaged, match=rf"ends before byte {end + KIB}"):
            files.read_into(extent.pack, end - KIB, memoryview(memory))
        assert not any(entry.users for entry in files._open.values())


def test_few_packs_stay_open_however_many_were_held(tmp_path: Path) -> None:
    """As many as the setting says, and those that somebody reads."""
    with opened(tmp_path, replace(SMALL, pack_bytes=50 * KIB)) as store:
        blobs = [push(store, f"{number}", noise(60 * KIB, number + 10)) for number in range(8)]
        for digest in blobs:
            held(store, digest).close()
        assert len(store._parts.files._open) == SMALL.open_packs
        assert read(store, blobs[0]) == noise(60 * KIB, 10)


@pytest.mark.parametrize("is_there", [True, False])
def test_a_file_that_cannot_be_opened_leaves_nothing_half_held(tmp_path: Path, is_there: bool) -> None:
    """All files of a blob, or none."""
    with opened(tmp_path, replace(SMALL, pack_bytes=50 * KIB)) as store:
        halves = noise(2 * MIB, 7), noise(2 * MIB, 8)
        for number, half in enumerate(halves):
            push(store, f"{number}", half)
        found = places(store, push(store, "blob", b"".join(halves)))
        assert len({extent.pack for extent in found.extents}) > 1
        last = store._parts.layout.pack(found.extents[-1].pack)
        if not is_there:
            last.rename(tmp_path / "elsewhere")
        store._parts.files.forget_unlinked()
        blob = store.hold(found)
        assert (blob is not None) == is_there
        if blob is not None:
            blob.close()
        else:
            (tmp_path / "elsewhere").rename(last)
        assert not any(entry.users for entry in store._parts.files._open.values())
