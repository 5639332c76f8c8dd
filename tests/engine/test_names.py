"""Names change atomically, durably and in order; refusals leave nothing (I1, I2)."""

# ruff: noqa: SLF001 - what a promise rests on is looked at inside, not only from the front

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas import Busy, Closed, Digest, InvalidName, Missing, Name, Names, Record, Store
from cas.disk import Cell, Disk
from tests.support.engine import KIB, SMALL, noise, opened, push, stage, wait_for_jobs
from tests.support.processes import run_python

paths = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8) | st.text("ab/", max_size=4)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """One store for all examples of a property."""
    with opened(tmp_path_factory.mktemp("shared") / "root") as store:
        yield store


class TestOneChange:
    """All of it or nothing."""

    def test_a_change_sees_its_own_edits_and_others_see_them_after_it(self, tmp_path: Path) -> None:
        """Within: at once. Outside: not before it is done."""
        tag = Name("tag", "library/a:1")
        with opened(tmp_path) as store:

            def edit(names: Names) -> list[Record | None]:
                seen = [names.get(tag)]
                names.put(tag, Record(b"1"))
                seen += [names.get(tag), store.get(tag)]
                assert names.scan("tag") == [(tag, Record(b"1"))]
                assert names.delete(tag)
                assert not names.delete(tag)
                names.put(tag, Record(b"2"))
                return seen

            assert store.change(edit) == [None, Record(b"1"), None]
            assert store.get(tag) == Record(b"2")

    def test_a_refusal_leaves_nothing_while_others_of_its_group_go_through(self, tmp_path: Path) -> None:
        """Changes held together in one group: the one that raises is undone alone, and its caller gets its error."""
        started, gate = threading.Event(), threading.Event()

        def hold(names: Names) -> None:
            started.set()
            assert gate.wait(60)

        def work(store: Store, n: int) -> str:
            def edit(names: Names) -> None:
                names.put(Name("thing", str(n)), Record(b"x", logical_bytes=1))
                if n % 3 == 0:
                    raise KeyError(n)

            try:
                store.change(edit)
            except KeyError:
                return "refused"
            return "done"

        with opened(tmp_path) as store, ThreadPoolExecutor(10) as pool:
            first = pool.submit(store.change, hold)
            assert started.wait(60)
            answers = [pool.submit(work, store, n) for n in range(9)]
            gate.set()
            first.result()
            assert [answer.result() for answer in answers] == ["refused", "done", "done"] * 3
            assert [name.path for name, _ in store.scan("thing")] == ["1", "2", "4", "5", "7", "8"]
            assert store.stats().logical_bytes == 6

    def test_a_hold_on_an_unknown_blob_is_missing(self, tmp_path: Path) -> None:
        """A name cannot point at nothing, and the rest of its change does not happen either."""
        with opened(tmp_path) as store:

            def edit(names: Names) -> None:
                names.put(Name("thing", "good"), Record(b""))
                names.put(Name("thing", "bad"), Record(b"", (Digest.of(b"never pushed"),)))

            with pytest.raises(Missing, match=r"bad cannot hold sha256:.*upload it first"):
                store.change(edit)
            assert store.scan("thing") == []

    def test_a_name_that_moves_goes_on_holding_what_is_lost(self, tmp_path: Path) -> None:
        """Somebody holds it at any moment; no other name can come to hold it, and none what is not known at all."""
        with opened(tmp_path) as store:
            lost, other = push(store, "lost", noise(10 * KIB)), push(store, "other", noise(10 * KIB, 2))
            old, new, unknown = Name("thing", "lost"), Name("thing", "moved"), Digest.of(b"never pushed")
            store._parts.index.write(lambda edit: edit.lose_blob(lost))
            with pytest.raises(Missing):
                store.change(lambda names: names.put(new, Record(b"", (lost,))))
            with pytest.raises(Missing, match=r"moved cannot hold sha256:.*upload it first"):
                store.change(lambda names: names.move(old, new, Record(b"", (lost, unknown))))
            assert (store.get(new), store.get(old) is None) == (None, False)
            moved = Record(b"as it is", (lost, other), 7)
            store.change(lambda names: names.move(old, new, moved))
            assert (store.get(new), store.get(old)) == (moved, None)
            assert store.read(lambda reads: reads.names_of(lost)) == [new]
            assert {finding.check for finding in store.check()} == {"lost"}
            store.change(lambda names: names.move(new, new, Record(b"", (lost,))))
            assert store.read(lambda reads: (reads.names_of(lost), new in reads.names_of(other))) == ([new], False)
            store.collect()
            assert store.stats().lost == 1

    def test_a_blob_kept_by_the_same_change_may_be_held(self, tmp_path: Path) -> None:
        """But only after it was kept."""
        with opened(tmp_path) as store:
            staged = stage(store, noise(10 * KIB))
            record = Record(b"", (staged.digest,))

            def too_early(names: Names) -> None:
                names.put(Name("thing", "a"), record)
                names.keep(staged)

            def in_order(names: Names) -> None:
                names.keep(staged)
                names.put(Name("thing", "a"), record)

            with pytest.raises(Missing):
                store.change(too_early)
            store.change(in_order)
            assert store.get(Name("thing", "a")) == record

    def test_holders_follow_their_names(self, tmp_path: Path) -> None:
        """Overwriting and deleting a name let go of what it held; holding twice is holding once."""
        with opened(tmp_path) as store:
            one, two = push(store, "one", noise(10 * KIB)), push(store, "two", noise(10 * KIB, 2))
            name = Name("thing", "x")

            def holders() -> list[list[bytes]]:
                found = store._parts.index.read(lambda view: [view.holders(one), view.holders(two)])
                return [[key for key in keys if key == name.key()] for keys in found]

            store.change(lambda names: names.put(name, Record(b"", (one, one, two))))
            assert holders() == [[name.key()]] * 2
            store.change(lambda names: names.put(name, Record(b"", (two,))))
            assert holders() == [[], [name.key()]]
            store.change(lambda names: names.delete(name))
            assert holders() == [[], []]

    def test_a_change_run_again_because_the_map_grew_has_its_effect_once(self, tmp_path: Path) -> None:
        """The index's map is tiny and must double under way; what `edit` counts is counted once."""
        counter, runs = Name("n", "counter"), 0
        with opened(tmp_path) as store:
            size = store._parts.index._env._env.info()["map_size"]

            def edit(names: Names) -> int:
                nonlocal runs
                runs += 1
                old = names.get(counter)
                value = int(old.value) + 1 if old else 1
                names.put(counter, Record(b"%d" % value, logical_bytes=value))
                for n in range(40):
                    names.put(Name("filler", f"{value}-{n}"), Record(bytes(2000), logical_bytes=1))
                return value

            assert [store.change(edit) for _ in range(20)] == list(range(1, 21))
            assert store._parts.index._env._env.info()["map_size"] > size
            assert runs > 20
            assert len(store.scan("filler")) == 800
            assert store.stats().logical_bytes == 820
        with opened(tmp_path) as store:
            assert store.get(counter) == Record(b"20", logical_bytes=20)

    def test_a_change_after_close_is_told_so(self, tmp_path: Path) -> None:
        """Closed, from reads and writes alike."""
        with opened(tmp_path) as store:
            pass
        with pytest.raises(Closed):
            store.change(lambda names: None)
        with pytest.raises(Closed):
            store.get(Name("thing", "a"))

    def test_a_change_may_fail_and_be_tried_again(self, tmp_path: Path) -> None:
        """A refusal poisons nothing."""
        with opened(tmp_path) as store:
            for _ in range(3):
                with pytest.raises(ZeroDivisionError):
                    store.change(lambda names: 1 // 0)
            assert store.change(lambda names: 7) == 7


class TestManyChanges:
    """Group commit."""

    def test_many_changes_at_once_share_few_syncs(self, tmp_path: Path) -> None:
        """64 changes waiting behind one need a sync or two, not 64, and all are there after a reopening."""
        disk, started, gate = Disk(), threading.Event(), threading.Event()

        def hold(names: Names) -> None:
            names.put(Name("thing", "first"), Record(b""))
            started.set()
            assert gate.wait(60)

        with Store.open(tmp_path, SMALL, create=True, disk=disk) as store, ThreadPoolExecutor(65) as pool:
            first = pool.submit(store.change, hold)
            assert started.wait(60)
            jobs = [
                store._parts.committer.submit(
                    lambda edit, draft, n=n: Names(edit, draft).put(Name("thing", f"{n:02}"), Record(b"x"))  # type: ignore[misc]
                )
                for n in range(64)
            ]
            before = disk.counts.syncs
            gate.set()
            first.result()
            for job in jobs:
                job.wait(60)
            assert disk.counts.syncs - before <= 3
        with opened(tmp_path) as store:
            assert len(store.scan("thing")) == 65

    def test_who_finds_nobody_committing_commits_by_itself(self, tmp_path: Path) -> None:
        """On its own thread, whichever that is; what comes meanwhile is the committer's, on its own."""
        where, started, gate = dict[str, int](), threading.Event(), threading.Event()

        def put(names: Names, path: str) -> int:
            names.put(Name("thing", path), Record(b""))
            where[path] = threading.get_ident()
            if path == "held":
                started.set()
                assert gate.wait(60)
            return threading.get_ident()

        with Store.open(tmp_path, SMALL, create=True) as store, ThreadPoolExecutor(3) as pool:
            own = store.change(lambda names: put(names, "own"))
            held = pool.submit(lambda: (store.change(lambda names: put(names, "held")), threading.get_ident()))
            assert started.wait(60)
            others = [pool.submit(store.change, lambda names, n=n: put(names, f"{n}")) for n in range(2)]
            wait_for_jobs(store, 2)
            gate.set()
            committed, asked = held.result()
            assert {other.result() for other in others} == {store._parts.committer._thread.ident}
            with store._parts.committer._wake:  # it told them before it made way
                assert store._parts.committer._wake.wait_for(lambda: store._parts.committer._committing is None, 60)
            after = store.change(lambda names: put(names, "after"))
        assert (own, after, committed) == (threading.get_ident(), threading.get_ident(), asked)
        with opened(tmp_path) as store:
            assert {name.path for name, _ in store.scan("thing")} == set(where)

    def test_who_finds_another_process_committing_waits_as_long_as_it_may(self, tmp_path: Path) -> None:
        """Its own thread goes nowhere where it could not come back from; what it gave up never happens."""
        with Store.open(tmp_path, replace(SMALL, write_wait_s=0.1), create=True) as store:
            store.change(lambda names: names.put(Name("thing", "before"), Record(b"")))
            other = Cell(tmp_path / "locks" / "journal")  # as another process has it open
            assert other.lock_now()
            with pytest.raises(Busy, match="held the index"):
                store.change(lambda names: names.put(Name("thing", "given up"), Record(b"")))
            other.unlock()
            store.change(lambda names: names.put(Name("thing", "after"), Record(b"")))
            assert [name.path for name, _ in store.scan("thing")] == ["after", "before"]
            other.close()

    @pytest.mark.parametrize("step", ["commit.Job.settle", "disk.Cell.unlock", "gate.Gate.leave"])
    def test_a_process_interrupted_within_any_step_ends(self, step: str, tmp_path: Path) -> None:
        """By what interrupted it, with nothing left to wait for: Ctrl-C comes to whoever commits in the main thread."""
        script = f"""
import sys
from pathlib import Path
from cas import Name, Record, Store, commit, disk, gate
from tests.support.engine import SMALL
step = {step}

def interrupted(*arguments):
    step(*arguments)
    raise KeyboardInterrupt

def run():
    global store
    with Store.open(Path(sys.argv[1]), SMALL, create=True) as store:
        store.change(lambda names: names.put(Name("thing", "before"), Record(b"")))
        {step} = interrupted
        store.change(lambda names: names.put(Name("thing", "after"), Record(b"")))

try:
    run()
except KeyboardInterrupt:
    print("interrupted")
"""
        assert run_python(script, tmp_path).stdout == "interrupted\n"
        with opened(tmp_path) as store:
            assert store.get(Name("thing", "before")) is not None
            store.change(lambda names: names.put(Name("thing", "later"), Record(b"")))

    def test_a_change_of_nothing_writes_nothing(self, tmp_path: Path) -> None:
        """Asking under the write lock costs no journal record."""
        disk = Disk()
        with Store.open(tmp_path, SMALL, create=True, disk=disk) as store:
            store.change(lambda names: names.put(Name("thing", "a"), Record(b"")))
            before = disk.counts.bytes_written
            assert store.change(lambda names: names.get(Name("thing", "a"))) == Record(b"")
            assert not store.change(lambda names: names.delete(Name("thing", "b")))
            assert disk.counts.bytes_written == before

    def test_concurrent_increments_are_all_counted(self, tmp_path: Path) -> None:
        """Read, add one, write: a change is alone while it runs."""
        name = Name("n", "counter")

        def add(names: Names) -> None:
            old = names.get(name)
            names.put(name, Record(b"%d" % (int(old.value) + 1 if old else 1)))

        with opened(tmp_path) as store:
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(lambda _: store.change(add), range(200)))
            assert store.get(name) == Record(b"200")


class TestOrder:
    """Scanning against a sorted list."""

    @given(
        there=st.dictionaries(st.tuples(st.sampled_from(["tag", "tag-x", "a.b"]), paths), st.binary(max_size=5)),
        kind=st.sampled_from(["tag", "tag-x", "a.b", "none"]),
        prefix=paths,
        after=paths,
        limit=st.none() | st.integers(0, 5),
    )
    def test_a_scan_gives_what_a_sorted_list_would(
        self,
        shared: Store,
        there: dict[tuple[str, str], bytes],
        kind: str,
        prefix: str,
        after: str,
        limit: int | None,
    ) -> None:
        """Byte order, one kind only, from the prefix, behind `after`, up to the limit; the same within a change."""

        def edit(names: Names) -> list[tuple[Name, Record]]:
            for old_kind in ("tag", "tag-x", "a.b"):
                for name, _ in names.scan(old_kind):
                    names.delete(name)
            for (new_kind, path), value in there.items():
                names.put(Name(new_kind, path), Record(value))
            return names.scan(kind, prefix, after=after, limit=limit)

        inside = shared.change(edit)
        expected = sorted(
            (
                (Name(k, path), Record(value))
                for (k, path), value in there.items()
                if k == kind and path.startswith(prefix) and (not after or path.encode() > after.encode())
            ),
            key=lambda item: item[0].path.encode(),
        )[:limit]
        assert shared.scan(kind, prefix, after=after, limit=limit) == inside == expected

    def test_paging_with_after_meets_every_name_once(self, tmp_path: Path) -> None:
        """Also when names come and go between the pages."""
        with opened(tmp_path) as store:
            for n in range(100):
                store.change(lambda names, n=n: names.put(Name("t", f"{n:03}"), Record(b"")))  # type: ignore[misc]
            seen, after = [], ""
            while page := store.scan("t", after=after, limit=7):
                seen += [name.path for name, _ in page]
                after = seen[-1]
                store.change(lambda names, after=after: names.delete(Name("t", after)))  # type: ignore[misc]
            assert seen == [f"{n:03}" for n in range(100)]


class TestLimits:
    """Each limit has an error of its own."""

    @pytest.mark.parametrize(
        ("kind", "path"),
        [
            ("", "x"),
            ("Tag", "x"),
            ("tag\0", "x"),
            ("tag", "a\0b"),
            ("tag", "x" * 477),
            ("tag", "ä" * 239),
            ("tag", "\ud800"),
            ("t" * 33, "x"),
        ],
    )
    def test_a_name_outside_the_grammar_is_refused_everywhere(self, kind: str, path: str, tmp_path: Path) -> None:
        """By get, put, delete and scan, with InvalidName and no trace."""
        name = Name(kind, path)
        with opened(tmp_path) as store:
            for verb in (
                lambda: store.get(name),
                lambda: store.scan(kind, path),
                lambda: store.change(lambda names: names.put(name, Record(b""))),
                lambda: store.change(lambda names: names.delete(name)),
            ):
                with pytest.raises(InvalidName):
                    verb()
            assert store.stats().names == 0

    def test_the_longest_name_and_the_most_holds_are_kept(self, tmp_path: Path) -> None:
        """At the limit is within it, through a reopening; one more is refused."""
        name = Name("tag", "x" * 476)
        with opened(tmp_path) as store:
            digests = tuple(push(store, str(n), b"%d" % n) for n in range(256))
            store.change(lambda names: names.put(name, Record(b"v" * 100_000, digests[:255])))
            with pytest.raises(InvalidName, match="can hold 255 blobs, not 256"):
                store.change(lambda names: names.put(name, Record(b"", digests)))
        with opened(tmp_path) as store:
            assert store.get(name) == Record(b"v" * 100_000, digests[:255])

    @pytest.mark.parametrize("size", [-1, 1 << 64])
    def test_an_impossible_size_is_refused_as_a_bad_name(self, size: int, tmp_path: Path) -> None:
        """No foreign error, and nothing of that change."""
        with opened(tmp_path) as store:
            with pytest.raises(InvalidName):
                store.change(lambda names: names.put(Name("t", "a"), Record(b"", logical_bytes=size)))
            assert store.stats().names == 0

    def test_logical_bytes_add_up(self, tmp_path: Path) -> None:
        """Put, overwrite, delete and refusal: the sum is that of what stands there."""
        with opened(tmp_path) as store:
            for path, size in (("a", 5), ("b", 1 << 40), ("a", 7)):
                store.change(lambda names, p=path, s=size: names.put(Name("t", p), Record(b"", logical_bytes=s)))  # type: ignore[misc]
            assert store.stats().logical_bytes == (1 << 40) + 7
            store.change(lambda names: names.delete(Name("t", "b")))
            assert (store.stats().logical_bytes, store.stats().names) == (7, 1)
