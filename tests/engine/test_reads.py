"""Several look-ups at one moment, names alone, the last name before another, and records as large as manifests get."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas import Digest, InvalidName, Name, Names, Reads, Record, Store, rebuild_index
from cas.disk import Disk
from tests.support.engine import MIB, SMALL, noise, opened, push, wait_for_jobs

paths = st.text(st.sampled_from("ab/é\U0001f600"), max_size=4)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """One store for all examples."""
    with opened(tmp_path_factory.mktemp("shared")) as store:
        yield store


class TestReads:
    """`Store.read`, and the same verbs within a change."""

    def test_a_read_sees_one_moment(self, tmp_path: Path) -> None:
        """What is changed meanwhile is not seen by any of its look-ups, whole changes by the next."""
        a, b = Name("t", "a"), Name("t", "b")
        with opened(tmp_path) as store:
            store.change(lambda names: names.put(a, Record(b"1")))

            def look(reads: Reads) -> list[object]:
                before = reads.get(a), reads.get(b)
                with ThreadPoolExecutor(1) as other:
                    other.submit(store.change, lambda names: (names.delete(a), names.put(b, Record(b"2")))).result()
                digest = Digest.of(b"{}")
                return [before == (reads.get(a), reads.get(b)), reads.paths("t"), reads.stat(digest)]

            assert store.read(look) == [True, ["a"], None]
            assert store.read(lambda reads: reads.paths("t")) == ["b"]

    def test_a_blob_is_known_to_reads_and_changes_alike(self, tmp_path: Path) -> None:
        """None for one that is not stored; within a change also one that this change keeps."""
        with opened(tmp_path) as store:
            digest = push(store, "a", b"bytes")
            upload = store.upload()
            upload.write(b"other")
            staged = upload.finish()

            def edit(names: Names) -> list[bool]:
                before = names.stat(staged.digest)
                names.keep(staged)
                return [before is None, names.stat(staged.digest) is not None, names.stat(digest) == store.stat(digest)]

            assert store.change(edit) == [True, True, True]
            assert store.read(lambda reads: reads.stat(digest)) == store.stat(digest)

    @given(
        there=st.sets(st.tuples(st.sampled_from(["t", "ta", "s", "u"]), paths), max_size=12),
        kind=st.sampled_from(["t", "ta", "s"]),
        at_most=paths,
        prefix=paths,
        limit=st.none() | st.integers(0, 4),
    )
    def test_paths_and_the_last_name_before_another(
        self, shared: Store, there: set[tuple[str, str]], kind: str, at_most: str, prefix: str, limit: int | None
    ) -> None:
        """The paths are those of a scan; the last one is the greatest that is no greater, of that kind alone."""

        def fill(names: Names) -> None:
            for old in ("t", "ta", "s", "u"):
                for path in names.paths(old):
                    names.delete(Name(old, path))
            for one, path in there:
                names.put(Name(one, path), Record(path.encode()))

        shared.change(fill)
        mine = sorted((path.encode(), path) for one, path in there if one == kind)
        expected = [path for raw, path in mine if raw <= at_most.encode()][-1:]

        def look(reads: Reads) -> tuple[list[str], list[str], list[str]]:
            last = reads.last(kind, at_most)
            scanned = [name.path for name, _ in reads.scan(kind, prefix, after=at_most, limit=limit)]
            assert last is None or last[1] == Record(last[0].path.encode())
            return (
                [] if last is None else [last[0].path],
                scanned,
                reads.paths(kind, prefix, after=at_most, limit=limit),
            )

        last, scanned, listed = shared.read(look)
        assert last == expected
        assert listed == scanned
        assert shared.change(look) == (last, scanned, listed)

    def test_bad_names_are_refused_by_every_read(self, tmp_path: Path) -> None:
        """Kinds and paths outside the grammar, with InvalidName."""
        with opened(tmp_path) as store:
            for look in (
                lambda reads: reads.get(Name("T", "x")),
                lambda reads: reads.paths("t", "a\0"),
                lambda reads: reads.last("t", "\ud800"),
                lambda reads: reads.scan("t", after="x" * 500),
            ):
                with pytest.raises(InvalidName):
                    store.read(look)


class TestLargeRecords:
    """A manifest may have four MiB."""

    def test_a_record_of_four_mib_is_kept_like_any_other(self, tmp_path: Path) -> None:
        """Through index, journal, reopening and rebuild; replaced and deleted it is gone."""
        name, value = Name("manifest", "a/b@x"), noise(4 * MIB + 12345)
        with opened(tmp_path) as store:
            digest = push(store, "a", b"bytes")
            store.change(lambda names: names.put(name, Record(value, (digest,), 5)))
            assert store.get(name) == Record(value, (digest,), 5)
        for path in (tmp_path / "index").iterdir():
            path.unlink()
        assert rebuild_index(tmp_path, SMALL).damaged == []
        with opened(tmp_path) as store:
            assert store.get(name) == Record(value, (digest,), 5)
            assert store.read(lambda reads: reads.paths("manifest")) == [name.path]
            store.change(lambda names: names.put(name, Record(b"small")))
            assert store.get(name) == Record(b"small")
            assert store.change(lambda names: names.delete(name))
            assert store.get(name) is None

    def test_many_large_records_at_once_are_journalled_a_few_at_a_time(self, tmp_path: Path) -> None:
        """Thirty changes that wait together: no write to the journal is larger than a group may be and one record."""

        class Watched(Disk):
            largest = 0

            def write(self, fd: int, buffers: Sequence[bytes | bytearray | memoryview], offset: int) -> int:
                self.largest = max(self.largest, sum(map(len, buffers)))
                return super().write(fd, buffers, offset)

        disk, begun, held = Watched(), threading.Event(), threading.Event()

        def hold(_: Names) -> bool:
            begun.set()
            return held.wait(60)

        with Store.open(tmp_path, SMALL, create=True, disk=disk) as store, ThreadPoolExecutor(31) as pool:
            first = pool.submit(store.change, hold)
            assert begun.wait(60)  # alone in its group: all the others wait behind it
            rest = [
                pool.submit(store.change, lambda names, n=n: names.put(Name("m", f"{n:02}"), Record(noise(MIB, n))))
                for n in range(30)
            ]
            wait_for_jobs(store, len(rest))
            held.set()
            assert first.result()
            for one in rest:
                one.result()
            assert all(store.get(Name("m", f"{n:02}")) == Record(noise(MIB, n)) for n in range(30))
        assert 12 * MIB < disk.largest < 18 * MIB
