"""Collection: what nothing needs goes, what anything needs stays, whoever does what meanwhile, and wherever it ends."""

# ruff: noqa: SLF001 - what a promise rests on is looked at inside, not only from the front

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from cas import CollectReport, Digest, InUse, Missing, Name, Names, Record, Staged, Store, collect, rebuild_index
from cas.receive import Upload
from cas.tables import ChunkState
from cas.view import View
from tests.support.engine import KIB, MIB, SMALL, noise, opened, packs_of, prose, push, read
from tests.support.processes import run_to_its_death

NOTHING = CollectReport()
SHARED = prose(400 * KIB, 1)  # what several blobs have in common


def drop(store: Store, path: str) -> None:
    """Delete a name."""
    store.change(lambda names: names.delete(Name("thing", path)))


def keep(upload: Upload, path: str, digest: Digest) -> Staged:
    """End an upload under a name."""

    def edit(names: Names, staged: Staged) -> Staged:
        names.put(Name("thing", path), Record(b"", (staged.digest,), staged.size))
        return staged

    return upload.keep(digest, edit)


def contents(store: Store) -> tuple[int, ...]:
    """How many blobs, segments and chunks there are, after a look that nothing is there in vain or missing."""

    def look(view: View) -> tuple[int, ...]:
        segments = view.named_chunks(b"", 100_000)
        rows = dict(view.stored_chunks(b"", 100_000))
        assert set(rows) == {chunk for _, _, chunks in segments for chunk in chunks}
        assert {row.state for row in rows.values()} <= {ChunkState.GOOD}
        assert (view.number("marking"), view.count("touched")) == (0, 0)
        return view.count("blobs"), len(segments), len(rows)

    return store._parts.index.read(look)


class AtStep:
    """Does something at one numbered step of a collection, and something else a few steps later."""

    def __init__(self, first: int, do: Callable[[], object], then: Callable[[], object] = bool, later: int = 1) -> None:
        self.step, self._do = 0, {first: do, first + later: then}

    def __call__(self) -> None:
        """Count a step."""
        do = self._do.pop(self.step, None)
        self.step += 1
        if do is not None:
            do()


def littered(root: Path) -> Store:
    """A store with two blobs that are held and two that are not, which share chunks with them and each other."""
    store = Store.open(root, SMALL, create=True)
    push(store, "kept", SHARED + prose(150 * KIB, 2))
    push(store, "text", prose(150 * KIB))
    push(store, "dropped", SHARED + prose(150 * KIB, 3))
    push(store, "small", b"few bytes")
    for path in ("dropped", "small"):
        drop(store, path)
    return store


def steps_of(root: Path) -> int:
    """How many steps a collection of such a store has."""
    count = AtStep(-1, bool)
    with littered(root) as store:
        store.collect(progress=count)
    return count.step


def test_what_no_name_holds_goes_and_all_else_stays(tmp_path: Path) -> None:
    """Blobs, recipes and chunks; the dry run said exactly what, and a second one finds nothing."""
    with littered(tmp_path) as store:
        before = store.stats()
        planned = store.collect(dry_run=True)
        assert store.stats() == before
        done = store.collect()
        assert done == planned
        assert (done.blobs, done.unfinished) == (2, "")
        assert 0 < done.chunks < before.chunks / 2
        assert store.stats().chunks == before.chunks - done.chunks
        assert contents(store)[0] == 2
        for seed, path in ((2, "kept"),):
            record = store.get(Name("thing", path))
            assert record is not None
            assert read(store, record.holds[0]) == SHARED + prose(150 * KIB, seed)
        assert read(store, Digest.of(prose(150 * KIB))) == prose(150 * KIB)
        with pytest.raises(Missing):
            store.stat(Digest.of(b"few bytes"))
        assert store.collect() == store.collect(dry_run=True) == NOTHING


def test_a_dry_run_can_take_names_for_gone(tmp_path: Path) -> None:
    """It says what a collection would take after these were deleted, and that is what one then takes."""
    with littered(tmp_path) as store:
        planned = store.collect(dry_run=True, without=[Name("thing", "kept")])
        drop(store, "kept")
        assert store.collect() == planned
        assert planned.blobs == 3


def test_many_passes_find_what_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However few ids are held in memory at once."""
    with littered(tmp_path / "one") as store:
        expected = store.collect()
    monkeypatch.setattr(collect, "MOST_MARKS", 2)
    monkeypatch.setattr(collect, "_ROWS", 3)
    with littered(tmp_path / "many") as store:
        planned = store.collect(dry_run=True)
        assert store.collect() == planned
        assert (planned.blobs, planned.recipes) == (expected.blobs, expected.recipes)
        assert contents(store)[0] == 2


def test_what_was_collected_can_be_pushed_again(tmp_path: Path) -> None:
    """The bytes are stored anew, and a rebuild knows nothing else."""
    data = SHARED + prose(150 * KIB, 3)
    with littered(tmp_path) as store:
        store.collect()
        assert read(store, push(store, "again", data)) == data
        found = contents(store)
    for path in (tmp_path / "index").iterdir():
        path.unlink()
    assert rebuild_index(tmp_path, SMALL).damaged == []
    with opened(tmp_path) as store:
        assert read(store, Digest.of(data)) == data
        store.collect()
        assert contents(store)[0] == found[0]


def test_resumable_uploads_wait_through_any_number_of_collections(tmp_path: Path) -> None:
    """What is filed of one is needed, though no blob has it; once it is cancelled, it goes."""
    data = noise(500 * KIB, 7)
    with opened(tmp_path) as store:
        for number in (1, 2):
            upload = store.resume(number)
            upload.write(data[: 300 * KIB])
            upload.suspend()
        assert [store.collect() for _ in range(2)] == [NOTHING, NOTHING]
        upload = store.resume(1)
        upload.write(data[300 * KIB :])
        keep(upload, "a", Digest.of(data))
        store.cancel(2)
        store.collect()
        assert read(store, Digest.of(data)) == data
        assert contents(store)[0] == 1
        drop(store, "a")
        store.collect()
        assert contents(store) == (0, 0, 0)


def test_a_reader_reads_a_deleted_blob_to_its_end(tmp_path: Path) -> None:
    """The collection leaves to the next one what somebody is reading, says so, and waits no longer than it was told."""
    data = SHARED + prose(300 * KIB, 2)
    with opened(tmp_path) as store:
        digest = push(store, "a", data)
        with store.reader(digest) as reader:
            drop(store, "a")
            assert "the next collection" in store.collect(wait_s=0).unfinished
            assert reader.read() == data
        assert not store.collect(wait_s=0).unfinished
        assert contents(store) == (0, 0, 0)


def test_a_reader_of_what_stays_holds_nobody_up_for_longer_than_a_segment(tmp_path: Path) -> None:
    """Reading on, it relies on the present; so a slow client does not keep all garbage alive."""
    data = noise(600 * KIB, 2)
    with opened(tmp_path) as store:
        digest = push(store, "a", data)
        push(store, "b", noise(300 * KIB, 3))
        drop(store, "b")
        with store.reader(digest) as reader, ThreadPoolExecutor(1) as pool:
            assert store.collect(wait_s=0).unfinished
            collecting = pool.submit(store.collect, wait_s=20)
            while not collecting.done():
                assert reader.read(0, KIB) == data[:KIB]
            assert not collecting.result().unfinished
            assert reader.read() == data


def test_two_collections_at_once_are_one(tmp_path: Path) -> None:
    """The second is told that there is one."""

    def second() -> None:
        with pytest.raises(InUse, match="under way"):
            store.collect()

    with littered(tmp_path) as store:
        store.collect(progress=AtStep(5, second))
        assert contents(store)[0] == 2


@pytest.mark.parametrize("later", [1, 4, 100])
def test_a_push_of_what_is_being_collected_stays_whole(tmp_path: Path, later: int) -> None:
    """It begins at any step and ends some steps later: it is stored, read back equal, and nothing is left over."""
    data = SHARED + prose(150 * KIB, 3)
    for first in range(steps_of(tmp_path / "count")):
        with littered(tmp_path / str(first)) as store:
            upload = store.upload()
            begin, end = partial(upload.write, data), partial(keep, upload, "new", Digest.of(data))
            whole = AtStep(first, begin, end, later)
            store.collect(wait_s=0, progress=whole)
            if store.get(Name("thing", "new")) is None:
                end()
            store.collect(wait_s=0)
            assert contents(store)[0] == 3, first
            assert read(store, Digest.of(data)) == data, first


@pytest.mark.parametrize("later", [1, 2, 3, 4])
def test_a_chunk_condemned_after_an_upload_matched_it_stays(tmp_path: Path, later: int) -> None:
    """The upload has compared itself with it and files that later: from then on it is in use again."""
    dead = prose(500 * KIB, 3)
    data = dead + prose(100 * KIB, 5)  # what comes last is looked up last
    one_run = replace(SMALL, segment_chunks=1000, run_bytes=8 * MIB, pack_bytes=8 * MIB)
    with opened(tmp_path, one_run) as store:
        for first in itertools.count():
            push(store, "dead", dead)
            drop(store, "dead")
            upload = store.upload()
            begin, end = partial(upload.write, data), partial(keep, upload, "new", Digest.of(data))
            whole = AtStep(first, begin, end, later)
            store.collect(wait_s=0, progress=whole)
            if whole.step <= first:
                upload.discard()
                break
            if store.get(Name("thing", "new")) is None:
                end()
            store.collect(wait_s=0)
            assert contents(store)[0] == 1
            assert read(store, Digest.of(data)) == data, first
            drop(store, "new")
            store.collect(wait_s=0)
            assert contents(store) == (0, 0, 0)


def test_a_collection_killed_at_any_step_is_finished_by_the_next(tmp_path: Path) -> None:
    """It leaves nothing that needs a human, and in the end the store is what it is after one that ran through."""
    script = """
import os, signal, sys
from pathlib import Path
from tests.engine.test_collect import AtStep, littered
with littered(Path(sys.argv[1])) as store:
    store.collect(progress=AtStep(int(sys.argv[2]), lambda: os.kill(os.getpid(), signal.SIGKILL)))
"""
    with littered(tmp_path / "whole") as store:
        store.collect()
        expected = contents(store)
    for step in range(0, steps_of(tmp_path / "count"), 3):
        run_to_its_death(script, tmp_path / str(step), str(step))
        with opened(tmp_path / str(step)) as store:
            assert not store.collect().unfinished
            assert contents(store) == expected, step
            assert read(store, Digest.of(prose(150 * KIB))) == prose(150 * KIB)


def test_an_upload_keeps_its_own_when_what_it_relied_on_was_collected(tmp_path: Path) -> None:
    """The blob was here when the upload ended and gone when it was kept: nobody has to send it again."""
    data = SHARED + prose(150 * KIB, 3)
    with opened(tmp_path) as store:
        push(store, "a", data)
        drop(store, "a")
        upload = store.upload()
        upload.write(data)
        original = upload._change
        tries = itertools.count()

        def after_a_collection(staged: Staged, edit: Callable[[Names, Staged], Staged]) -> Staged:
            if not next(tries):
                assert staged.relies
                assert store.collect(wait_s=0).blobs == 1
            return original(staged, edit)

        upload._change = after_a_collection  # type: ignore[method-assign, assignment]
        assert not keep(upload, "b", Digest.of(data)).relies
        assert next(tries) == 2
        store.collect(wait_s=0)
        assert read(store, Digest.of(data)) == data
        assert contents(store)[0] == 1
    assert packs_of(tmp_path)
