"""The same new blob pushed by many at once: one copy on the disk, and a damaged one is still healed."""

# ruff: noqa: SLF001 - what a promise rests on is looked at inside, not only from the front

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from cas import Digest, EngineSettings, Name, Names, Record, Staged, Store, Upload, rebuild_index
from cas.disk import Disk
from cas.locks import lock_byte
from cas.turns import Turn
from tests.support.engine import KIB, MIB, SMALL, HeldDisk, flip, noise, opened, packs_of, prose, push, read
from tests.support.processes import start_python

SAMPLES = {"noise": noise(3 * MIB), "text": prose(2 * MIB), "zeros": bytes(MIB)}


def keep(store: Store, path: str, content: bytes, ready: threading.Barrier | None = None) -> Staged:
    """Push in one call; with `ready`, write everything, then wait for all the others before ending it."""
    with store.upload() as upload:
        for start in range(0, len(content), 64 * KIB):
            upload.write(content[start : start + 64 * KIB])
        if ready is not None:
            ready.wait()

        def edit(names: Names, staged: Staged) -> Staged:
            names.put(Name("thing", path), Record(path.encode(), (staged.digest,), staged.size))
            return staged

        return upload.keep(Digest.of(content), edit)


def stored_bytes(root: Path) -> int:
    """What all packs take, less what the empty ones do."""
    return sum(path.stat().st_size for path in packs_of(root))


@pytest.mark.parametrize("kind", sorted(SAMPLES))
def test_twenty_threads_with_one_new_blob_leave_one_copy(kind: str, tmp_path: Path) -> None:
    """All have their bytes written when the first one ends; the others find them stored and give theirs back."""
    content, ready = SAMPLES[kind], threading.Barrier(20)
    with opened(tmp_path / "one", EngineSettings(reserve_bytes=0)) as store:
        keep(store, "only", content)
    with opened(tmp_path / "many", EngineSettings(reserve_bytes=0)) as store:
        with ThreadPoolExecutor(20) as pool:
            list(pool.map(lambda n: keep(store, str(n), content, ready), range(20)))
        assert len(store.scan("thing")) == 20
        assert read(store, Digest.of(content)) == content
    spare = 20 * (2 * KIB + 32 * len(content) // (16 * KIB))  # headers, footers, and names of a blob each
    assert stored_bytes(tmp_path / "many") < stored_bytes(tmp_path / "one") + spare


def test_a_blob_of_many_runs_pushed_in_step_is_stored_once(tmp_path: Path) -> None:
    """Runs are compared too: what one has filed the others need not, however long the blob."""
    content, ready = noise(8 * MIB), threading.Barrier(6)
    settings = replace(SMALL, run_bytes=MIB, segment_chunks=1000, pack_bytes=64 * MIB)
    with opened(tmp_path, settings) as store:
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(lambda n: keep(store, str(n), content, ready), range(6)))
        assert read(store, Digest.of(content)) == content
    assert stored_bytes(tmp_path) < 1.3 * len(content)


@pytest.mark.parametrize("size", [700 * KIB, 5 * MIB])  # less than a run, and several
def test_a_blob_suspended_by_many_at_once_is_stored_once(size: int, tmp_path: Path) -> None:
    """What the end of a request leaves is compared too, before it is filed; nobody named the blob yet."""
    content, ready = noise(size), threading.Barrier(8)
    settings = replace(SMALL, run_bytes=MIB, segment_chunks=1000, pack_bytes=64 * MIB)

    def patch(number: int) -> None:
        upload = store.resume(number)
        for start in range(0, size, 64 * KIB):
            upload.write(content[start : start + 64 * KIB])
        ready.wait()
        assert upload.suspend() == size

    with opened(tmp_path, settings) as store:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(patch, range(1, 9)))
        for number in range(1, 9):
            store.resume(number).keep(Digest.of(content), lambda _, staged: staged)
        assert read(store, Digest.of(content)) == content
    assert stored_bytes(tmp_path) < (1.05 if size < MIB else 2) * size  # runs written out of step may be there twice


def test_two_processes_with_one_new_blob_leave_one_copy(tmp_path: Path) -> None:
    """The kernel's lock reaches across processes; all begin to end their pushes at the same moment."""
    script = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from cas import EngineSettings, Store
from tests.engine.test_twins import SAMPLES, keep
class Told:
    def wait(self):
        print("ready"); sys.stdin.readline()
with Store.open(Path(sys.argv[1]), EngineSettings(reserve_bytes=0)) as store:
    keep(store, sys.argv[2], SAMPLES["noise"], Told())
"""
    content = SAMPLES["noise"]
    with opened(tmp_path, EngineSettings(reserve_bytes=0)) as store:
        others = [start_python(script, tmp_path, str(n)) for n in range(3)]
        for other in others:
            assert other.stdout is not None
            assert other.stdout.readline() == "ready\n"
        for other in others:
            assert other.stdin is not None
            other.stdin.write("\n")
            other.stdin.flush()
        assert [other.wait() for other in others] == [0, 0, 0]
        for other in others:
            other.communicate()
        assert len(store.scan("thing")) == 3
        assert read(store, Digest.of(content)) == content
    assert stored_bytes(tmp_path) < 1.1 * len(content)


@pytest.mark.parametrize("has_twin", [False, True])
def test_twins_of_which_one_found_a_part_stored_leave_one_copy(
    has_twin: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is new of each ends elsewhere, and is wholly in the other's, which is at its last sync."""
    content, middle, seen, disk = noise(3 * MIB), 1 * MIB, threading.Event(), HeldDisk()
    digest, pause = Digest.of(content), threading.Event()

    def look_around(seconds: float) -> None:
        seen.set()
        pause.wait(seconds)

    def ending(upload: Upload) -> Staged:
        return upload.keep(digest, lambda _, staged: staged)

    monkeypatch.setattr("cas.locks.time", SimpleNamespace(sleep=look_around, monotonic=time.monotonic))
    settings = EngineSettings(reserve_bytes=0)
    with Store.open(tmp_path, settings, create=True, disk=disk) as store, ThreadPoolExecutor(2) as pool:
        first, twin, late = store.resume(1), store.upload(), store.upload()
        first.write(content[:middle])
        first.suspend()
        late.write(content[: 2 * MIB])
        twin.write(content)
        first = store.resume(1)  # its first chunk now begins where no other's does
        first.write(content[middle:])
        ending(first)
        late.write(content[2 * MIB :])
        disk.holds = True
        ends = [pool.submit(ending, late)]
        assert disk.reached.wait(60)
        if has_twin:
            seen.clear()
            ends.append(pool.submit(ending, twin))
            ends[-1].add_done_callback(lambda _: seen.set())
            assert seen.wait(60)
        disk.gate.set()
        for end in ends:
            end.result(60)
        twin.discard()
        assert read(store, digest) == content
    assert stored_bytes(tmp_path) < len(content) + 1.2 * MIB  # with what the first has for itself


def test_a_late_twin_heals_a_damaged_first(tmp_path: Path) -> None:
    """What is stored is compared byte by byte: a rotten copy is no reason to give the good one back (I9)."""
    content = noise(3 * MIB)
    with opened(tmp_path, EngineSettings(reserve_bytes=0)) as store:
        late = store.upload()
        late.write(content)
        push(store, "first", content)
        (pack,) = (path for path in packs_of(tmp_path) if path.stat().st_size > len(content) and _holds(path, content))
        flip(pack, 1 * MIB)
        assert read(store, Digest.of(content)) != content
        late.keep(Digest.of(content), lambda names, _: names.delete(Name("thing", "nothing")))
        assert read(store, Digest.of(content)) == content


def _holds(path: Path, content: bytes) -> bool:
    return content[-2000:] in path.read_bytes()


def test_a_push_of_what_is_whole_already_writes_a_name_and_nothing_else(tmp_path: Path) -> None:
    """Known bytes that arrive again cost one journal record, however they are pushed."""
    disk, content = Disk(), noise(2 * MIB)
    with Store.open(tmp_path, EngineSettings(reserve_bytes=0), create=True, disk=disk) as store:
        keep(store, "first", content)
        before = disk.counts.bytes_written
        assert keep(store, "second", content).relies
        upload = store.resume(7)
        upload.write(content)
        assert upload.keep(Digest.of(content), lambda _, staged: staged).relies
        assert disk.counts.bytes_written - before < 1000


def test_who_stops_in_the_middle_of_a_turn_holds_nobody_up_for_good(tmp_path: Path) -> None:
    """Waiting is bounded: without the turn the content is stored twice, and both are right."""
    content = noise(300 * KIB)
    with opened(tmp_path) as store:
        layout = store._parts.layout
        stopped = Turn(layout, Digest.of(content).raw)
        assert lock_byte(layout.turns, int.from_bytes(Digest.of(content).raw[:7], "big"), 0) is None
        impatient = Turn(layout, Digest.of(content).raw, wait_s=0.01)
        impatient.end()
        stopped.end()
        next_one = Turn(layout, Digest.of(content).raw, wait_s=0)
        assert lock_byte(layout.turns, int.from_bytes(Digest.of(content).raw[:7], "big"), 0) is None
        next_one.end()
        next_one.end()


def test_a_push_needs_no_lock_to_be_right(tmp_path: Path) -> None:
    """Where the file of turns cannot be opened, pushes go on without."""
    content = noise(300 * KIB)
    with opened(tmp_path) as store:
        (tmp_path / "locks" / "turns").mkdir()
        keep(store, "a", content)
        assert read(store, Digest.of(content)) == content


def test_twins_survive_a_rebuild(tmp_path: Path) -> None:
    """Whichever of the copies was given back, no recipe leads to it."""
    content, ready = SAMPLES["text"], threading.Barrier(8)
    with opened(tmp_path) as store, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: keep(store, str(n), content, ready), range(8)))
    for path in (tmp_path / "index").iterdir():
        path.unlink()
    assert rebuild_index(tmp_path, SMALL).damaged == []
    with opened(tmp_path) as store:
        assert read(store, Digest.of(content)) == content
        assert len(store.scan("thing")) == 8
