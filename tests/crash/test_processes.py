"""Any number of processes on one store, ended in any way, at any moment (I1, I2, I4, I7)."""

# ruff: noqa: SLF001 - what a promise rests on is looked at inside, not only from the front

from __future__ import annotations

import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from cas import Busy, Digest, IndexMissing, Name, Names, Record, Store, rebuild_index
from cas.records import BlobEntry
from tests.support.engine import KIB, MIB, SMALL, noise, opened, push, read, stage
from tests.support.processes import run_module, run_python, run_to_its_death, start_python
from tests.support.writer import script

Contents = dict[str, bytes]


def contents(store: Store) -> Contents:
    """Every name with the bytes it holds; proves on the way that all of them read and hash right."""
    found = {}
    for name, record in store.scan("thing"):
        (digest,) = record.holds
        found[name.path] = read(store, digest)
        assert Digest.of(found[name.path]) == digest
        assert record == Record(name.path.encode(), (digest,), len(found[name.path]))
    return found


def told(output: str, seed: int) -> tuple[Contents, Contents]:
    """What a writer acknowledged, and the same with the step it was at when it died."""
    acknowledged: Contents = {}
    steps = script(seed, 1000)
    started: Contents = acknowledged
    for line in output.splitlines():
        if line.startswith("try"):
            path, data = next(steps)
            started = {name: old for name, old in acknowledged.items() if name != path}
            started |= {} if data is None else {path: data}
        else:
            acknowledged = started
    return acknowledged, started


def rebuilt(root: Path) -> Contents:
    """What is there after the index was deleted and made anew."""
    shutil.rmtree(root / "index")
    assert rebuild_index(root, SMALL).damaged == []
    with opened(root) as store:
        return contents(store)


class TestKilledWriters:
    """`kill -9` at a numbered disk operation."""

    @pytest.mark.parametrize("kill_at", range(34))
    def test_a_writer_killed_anywhere_keeps_its_word(self, kill_at: int, tmp_path: Path) -> None:
        """Acknowledged is there, unacknowledged is whole or absent, no repair is asked for, and a rebuild agrees."""
        root = tmp_path / "root"
        writer = run_module("writer", root, 1, 8, kill_at)
        assert writer.returncode == -signal.SIGKILL, writer.stderr
        acknowledged, started = told(writer.stdout, 1)
        with opened(root) as store:
            there = contents(store)
            assert there in (acknowledged, started)
            assert store._parts.index.read(lambda view: view.uploads()) == []
        assert rebuilt(root) == there
        with opened(root) as store:
            push(store, "after", noise(300 * KIB, 77))
            assert contents(store) == there | {"after": noise(300 * KIB, 77)}

    def test_writers_at_the_same_time_all_keep_their_word(self, tmp_path: Path) -> None:
        """Three processes and this one on a store, one of them killed in the middle; the others never notice."""
        root, expected = tmp_path / "root", {}
        with opened(root) as store, ThreadPoolExecutor(3) as pool:
            others = [pool.submit(run_module, "writer", root, seed, 12) for seed in (1, 2)]
            killed = pool.submit(run_module, "writer", root, 3, 12, 20)
            for n in range(10):
                expected[f"own-{n}"] = noise(90 * KIB, n)
                push(store, f"own-{n}", expected[f"own-{n}"])
            for seed, other in enumerate(others, start=1):
                assert other.result().returncode == 0, other.result().stderr
                expected |= told(other.result().stdout, seed)[0]
            assert killed.result().returncode == -signal.SIGKILL
            store.tick()
            acknowledged, started = told(killed.result().stdout, 3)
            there = contents(store)
            assert there in (expected | acknowledged, expected | started)
        assert rebuilt(root) == there

    def test_the_remains_of_a_killed_process_are_put_in_order_by_a_survivor(self, tmp_path: Path) -> None:
        """Its lease, its open packs and its half upload go with the survivor's next tick; the living one's stay."""
        unfinished = """
import os, signal, sys
from pathlib import Path
from cas import Store
from tests.support.engine import KIB, SMALL, noise, push
store = Store.open(Path(sys.argv[1]), SMALL)
push(store, "acknowledged", noise(90 * KIB, 5))
upload = store.upload()
for n in range(8):
    upload.write(noise(1024 * KIB, n))
os.kill(os.getpid(), signal.SIGKILL)
"""
        with opened(tmp_path) as store:
            push(store, "own", noise(90 * KIB))
            mine = store._parts.owner

            shared = {"journal", "turns", "packs", "epochs", "uploads"}

            def owners() -> tuple[set[bytes], set[bytes], set[str]]:
                packs, uploads = store._parts.index.read(lambda view: (view.packs(), view.uploads()))
                leases = {path.name for path in (tmp_path / "locks").iterdir()} - shared
                return {row.owner for row in packs if row.state.name == "OPEN"}, {o for _, o in uploads}, leases

            run_to_its_death(unfinished, tmp_path)
            packs, uploads, leases = owners()
            assert (len(packs), len(uploads), len(leases)) == (2, 1, 2)
            store.tick()
            assert owners() == ({mine}, set(), {mine.hex()})
            assert contents(store) == {"own": noise(90 * KIB), "acknowledged": noise(90 * KIB, 5)}

    def test_reader_slots_of_killed_processes_come_back(self, tmp_path: Path) -> None:
        """More readers die in the middle of a read than the index has slots; a tick frees them."""
        settings = replace(SMALL, max_readers=4)
        script = """
import os, signal, sys
from dataclasses import replace
from pathlib import Path
from cas import Store
from tests.support.engine import SMALL
store = Store.open(Path(sys.argv[1]), replace(SMALL, max_readers=4))
store._parts.index.read(lambda view: os.kill(os.getpid(), signal.SIGKILL))
"""
        with opened(tmp_path, settings) as store:
            digest = push(store, "a", noise(90 * KIB))
            for _ in range(5):
                run_to_its_death(script, tmp_path)
                store.tick()
            assert read(store, digest) == noise(90 * KIB)
            assert store._parts.index.check_readers() == 0

    def test_a_reader_that_was_killed_does_not_let_the_index_grow_until_the_next_tick(self, tmp_path: Path) -> None:
        """What it saw is kept for it; so all that others change takes new pages, until it is known to be dead."""
        script = """
import os, signal, sys
from pathlib import Path
from cas import Store
from tests.support.engine import SMALL
store = Store.open(Path(sys.argv[1]), SMALL)
store._parts.index.read(lambda view: os.kill(os.getpid(), signal.SIGKILL))
"""
        data = tmp_path / "index" / "data.mdb"
        blob = BlobEntry(Digest.of(b"it"), 2, 1, 1, inline=noise(20 * KIB))
        with opened(tmp_path) as store:
            for _ in range(9):  # then enough is free
                store._parts.index.write(lambda edit: edit.put_blob(blob))
            for _ in range(3):
                run_to_its_death(script, tmp_path)
                before = data.stat().st_size
                for _ in range(100):
                    store._parts.index.write(lambda edit: edit.put_blob(blob))
                assert data.stat().st_size - before < MIB
            assert store._parts.index.check_readers() == 0

    def test_a_rebuild_that_was_killed_is_never_taken_for_an_index(self, tmp_path: Path) -> None:
        """Half an index would hide blobs: the opener says that it is missing, and the next rebuild is whole."""
        script = """
import os, signal, sys
from pathlib import Path
import cas.rebuild
from cas import rebuild_index
from tests.support.engine import SMALL
cas.rebuild._replay = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
rebuild_index(Path(sys.argv[1]), SMALL)
"""
        with opened(tmp_path) as store:
            push(store, "a", noise(90 * KIB))
            there = contents(store)
        shutil.rmtree(tmp_path / "index")
        run_to_its_death(script, tmp_path)
        with pytest.raises(IndexMissing, match="rebuild-index"):
            Store.open(tmp_path, SMALL)
        assert rebuild_index(tmp_path, SMALL).damaged == []
        with opened(tmp_path) as store:
            assert contents(store) == there


class TestTheVoidRule:
    """A journal record that was synced and never committed must not come back from the dead (I2, I4)."""

    def _die(self, root: Path) -> Contents:
        writer = run_module("writer", root, 1, 4, "journal")
        assert writer.returncode == -signal.SIGKILL, writer.stderr
        assert writer.stdout.endswith("try never\n")
        return told(writer.stdout.replace("try never\n", ""), 1)[0]

    def test_the_record_is_really_there(self, tmp_path: Path) -> None:
        """Else the tests below would prove nothing: the dead process's journal holds the change that never was."""
        root = tmp_path / "root"
        self._die(root)
        assert any(b"never acknowledged" in path.read_bytes() for path in root.rglob("*.pack"))

    def test_a_survivor_that_commits_more_steps_over_it(self, tmp_path: Path) -> None:
        """Without ever having settled the dead process's remains."""
        root = tmp_path / "root"
        with opened(root) as survivor:
            acknowledged = self._die(root)
            push(survivor, "more", b"more")
            there = contents(survivor)
            assert there == acknowledged | {"more": b"more"}
        assert rebuilt(root) == there

    @pytest.mark.parametrize("cell", ["kept", "lost"])
    @pytest.mark.parametrize("more", [True, False])
    def test_the_next_opener_steps_over_it(self, cell: str, more: bool, tmp_path: Path) -> None:
        """By the shared cell, or, where a power cut took the cell, by what the dead process's journal says."""
        root = tmp_path / "root"
        acknowledged = self._die(root)
        if cell == "lost":
            (root / "locks" / "journal").unlink()
        with opened(root) as store:
            if more:
                push(store, "more", b"more")
                acknowledged |= {"more": b"more"}
            assert contents(store) == acknowledged
        assert rebuilt(root) == acknowledged

    def test_a_survivors_tick_steps_over_it_also_where_the_cell_was_lost(self, tmp_path: Path) -> None:
        """A survivor that commits nothing of its own."""
        root = tmp_path / "root"
        with opened(root) as survivor:
            acknowledged = self._die(root)
            survivor.tick()
            assert contents(survivor) == acknowledged
        assert rebuilt(root) == acknowledged

    def test_the_number_is_not_used_again_after_a_rebuild(self, tmp_path: Path) -> None:
        """Rebuild, commit, rebuild: the second rebuild sees the same history."""
        root = tmp_path / "root"
        acknowledged = self._die(root)
        for n in range(3):
            with opened(root) as store:
                push(store, f"more {n}", b"%d" % n)
                acknowledged |= {f"more {n}": b"%d" % n}
            if n == 1:
                (root / "locks" / "journal").unlink()
            assert rebuilt(root) == acknowledged


class TestLivingNeighbours:
    """Processes that disturb without dying."""

    def test_another_process_may_grow_the_map(self, tmp_path: Path) -> None:
        """Reads and writes here go on, before and after; what it wrote is seen at once."""
        grow = """
import sys
from pathlib import Path
from cas import Name, Record, Store
from tests.support.engine import SMALL
with Store.open(Path(sys.argv[1]), SMALL) as store:
    for n in range(40):
        store.change(lambda names: names.put(Name("big", f"{n}"), Record(bytes(100_000))))
"""
        with opened(tmp_path) as store:
            digest = push(store, "a", noise(90 * KIB))
            for turn in range(2):
                run_python(grow, tmp_path)
                assert len(store.scan("big")) == 40
                assert read(store, digest) == noise(90 * KIB)
                store.change(lambda names, turn=turn: names.put(Name("own", str(turn)), Record(b"")))  # type: ignore[misc]
            assert len(store.scan("own")) == 2

    def test_a_stopped_process_holds_up_writes_for_a_bounded_time_and_no_reads(self, tmp_path: Path) -> None:
        """Busy says why; what was refused never happens, not even when the stopped process goes on."""
        script = """
import sys
from pathlib import Path
from cas import Name, Record, Store
from tests.support.engine import SMALL
def edit(names):
    names.put(Name("thing", "theirs"), Record(b"x"))
    print("inside", flush=True)
    sys.stdin.readline()
with Store.open(Path(sys.argv[1]), SMALL) as store:
    store.change(lambda names: names.put(Name("thing", "before"), Record(b"")))
    store.change(edit)
    print("committed", flush=True)
"""
        settings = replace(SMALL, write_wait_s=0.2)
        with opened(tmp_path, settings) as store:
            digest = push(store, "a", noise(90 * KIB))
            with start_python(script, tmp_path) as other:
                assert other.stdin is not None
                assert other.stdout is not None
                assert other.stdout.readline() == "inside\n"
                os.kill(other.pid, signal.SIGSTOP)
                with pytest.raises(Busy, match=r"another process has held the index for 0\.2 s"):
                    store.change(lambda names: names.put(Name("thing", "refused"), Record(b"")))
                with pytest.raises(Busy), store.upload() as first, store.upload() as second:  # noqa: PT012 - somewhere on the way
                    for n in range(3):  # a second pack has to be entered into the index
                        first.write(noise(1024 * KIB, 10 + n))
                        second.write(noise(1024 * KIB, 20 + n))
                assert read(store, digest) == noise(90 * KIB)
                assert store.get(Name("thing", "theirs")) is None
                os.kill(other.pid, signal.SIGCONT)
                other.stdin.write("\n")
                other.stdin.close()
                assert other.stdout.read().endswith("committed\n")
                assert other.wait() == 0
            store.change(lambda names: names.put(Name("thing", "welcome"), Record(b"")))
            assert [name.path for name, _ in store.scan("thing")] == ["a", "before", "theirs", "welcome"]
            assert read(store, push(store, "b", noise(400 * KIB, 3))) == noise(400 * KIB, 3)

    def test_a_staged_blob_is_kept_although_a_neighbour_pushed_the_same(self, tmp_path: Path) -> None:
        """Two processes prove the same new blob; the first to keep it wins and both read it."""
        push_it = """
import sys
from pathlib import Path
from cas import Store
from tests.support.engine import KIB, SMALL, noise, push
with Store.open(Path(sys.argv[1]), SMALL) as store:
    push(store, "theirs", noise(400 * KIB))
"""
        with opened(tmp_path) as store:
            staged = stage(store, noise(400 * KIB))
            run_python(push_it, tmp_path)

            def edit(names: Names) -> None:
                names.keep(staged)
                names.put(Name("thing", "ours"), Record(b"ours", (staged.digest,), staged.size))

            store.change(edit)
            assert contents(store) == {"ours": noise(400 * KIB), "theirs": noise(400 * KIB)}
        assert rebuilt(tmp_path) == {"ours": noise(400 * KIB), "theirs": noise(400 * KIB)}
