"""What comes out is what went in, once a change keeps it and not before (I1, I2, I3, I5, I6)."""

# ruff: noqa: SLF001 - what a promise rests on is looked at inside, not only from the front

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

import cas.runs
import cas.view
from cas import Closed, Digest, EngineSettings, Mismatch, Missing, Name, NoSpace, Record, Store
from cas.disk import Disk
from tests.support.engine import KIB, MIB, SMALL, file_ranges, noise, opened, prose, push, read, stage, tar_of

_GZIP_HEAD = b"\x1f\x8b\x08\x00"
SAMPLES = {
    "empty": b"",
    "one byte": b"x",
    "as long as is kept inline": noise(SMALL.inline_bytes),
    "one more": noise(SMALL.inline_bytes + 1),
    "text": prose(700 * KIB),
    "noise": noise(2 * MIB + 17),
    "packed": _GZIP_HEAD + noise(5 * MIB),
    "zeros": bytes(1 * MIB),
    "a tar": tar_of({f"dir/file-{n}": prose(n * 3000, n) for n in range(30)}),
    "a tar cut off": tar_of({"a": noise(300 * KIB), "b": prose(300 * KIB)})[:-70_000],
    "text, then noise": prose(300 * KIB) + noise(300 * KIB) + prose(100 * KIB, 5),
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """One store for all properties: what others left there must not matter."""
    with opened(tmp_path_factory.mktemp("shared") / "root") as store:
        yield store


class TestOneBlob:
    """A single blob on its way in and out."""

    @pytest.mark.parametrize("kind", SAMPLES)
    def test_a_blob_comes_out_as_it_went_in(self, kind: str, tmp_path: Path) -> None:
        """Every kind of content, whole and after a reopening."""
        data = SAMPLES[kind]
        with opened(tmp_path) as store:
            digest = push(store, kind, data)
            assert (digest, store.stat(digest).size) == (Digest.of(data), len(data))
            assert read(store, digest) == data
        with opened(tmp_path) as store:
            assert read(store, digest) == data

    @given(data=st.data())
    def test_any_splitting_gives_the_same_blob_and_any_range_is_exact(self, shared: Store, data: st.DataObject) -> None:
        """Where the pieces end on the way in, and where a range begins and ends on the way out, does not matter."""
        content = SAMPLES[data.draw(st.sampled_from(sorted(SAMPLES)))]
        cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=6)))
        with shared.upload() as upload:
            for start, stop in zip([0, *cuts], [*cuts, len(content)], strict=True):
                upload.write(memoryview(content)[start:stop])
            staged = upload.finish()
        assert (staged.digest, staged.size) == (Digest.of(content), len(content))
        shared.change(lambda names: names.keep(staged))
        start = data.draw(st.integers(-3, len(content) + 3))
        stop = data.draw(st.integers(-3, len(content) + 3))
        assert read(shared, staged.digest, start, stop) == content[max(start, 0) : max(stop, 0)]

    def test_a_blob_is_invisible_until_a_change_keeps_it(self, tmp_path: Path) -> None:
        """Proven and durable is not yet visible; a later change makes it so."""
        data = noise(500 * KIB)
        with opened(tmp_path) as store:
            staged = stage(store, data)
            with pytest.raises(Missing):
                store.stat(staged.digest)
            with pytest.raises(Missing):
                store.reader(staged.digest)
            assert store.stats().blobs == 0
            store.change(lambda names: names.keep(staged))
            assert read(store, staged.digest) == data

    @pytest.mark.parametrize("size", [100, 500 * KIB])
    def test_bytes_that_do_not_match_the_digest_leave_nothing(self, size: int, tmp_path: Path) -> None:
        """Mismatch: no blob, no recipe, no upload row; the very same bytes are welcome afterwards."""
        data = noise(size)
        with opened(tmp_path) as store:
            with store.upload() as upload:
                upload.write(data)
                with pytest.raises(Mismatch, match="send the right"):
                    upload.finish(Digest.of(b"something else"))
            store.change(lambda names: None)
            assert store.stats().blobs == 0
            assert store._parts.index.read(lambda view: (view.count("recipes"), view.count("uploads"))) == (0, 0)
            assert read(store, push(store, "again", data)) == data

    @pytest.mark.parametrize("size", [100, 500 * KIB])
    def test_an_abandoned_upload_leaves_nothing_visible(self, size: int, tmp_path: Path) -> None:
        """A layer cut off in the middle: no blob, no recipe, no upload row."""
        with opened(tmp_path) as store:
            with store.upload() as upload:
                upload.write(noise(size))
            store.change(lambda names: None)
            assert store._parts.index.read(lambda view: (view.count("recipes"), view.count("uploads"))) == (0, 0)
            assert store.stats().blobs == 0

    def test_an_upload_that_is_over_takes_no_more(self, tmp_path: Path) -> None:
        """After finish and after discard, writing and finishing say Closed."""
        with opened(tmp_path) as store:
            finished, dropped = store.upload(), store.upload()
            finished.finish()
            dropped.discard()
            for upload in (finished, dropped):
                with pytest.raises(Closed):
                    upload.write(b"more")
                with pytest.raises(Closed):
                    upload.finish()

    def test_an_upload_that_failed_once_is_over(self, tmp_path: Path) -> None:
        """Nobody can swallow a refusal, go on, and have a wrong recipe proven by a right hash (I3)."""

        class Full(Disk):
            full = False

            def free_bytes(self, path: Path) -> tuple[int, int]:
                return (0, 1 << 40) if self.full else (1 << 40, 1 << 40)

        disk, data = Full(), noise(3 * MIB)
        with Store.open(tmp_path, SMALL, create=True, disk=disk) as store:
            upload = store.upload()
            upload.write(data[:MIB])
            disk.full = True
            with pytest.raises(NoSpace):  # noqa: PT012 - somewhere on the way
                for start in range(MIB, len(data), 256 * KIB):
                    upload.write(data[start : start + 256 * KIB])
            disk.full = False
            with pytest.raises(Closed):
                upload.write(b"")
            with pytest.raises(Closed):
                upload.finish()

    def test_an_upload_outliving_its_store_is_told_so(self, tmp_path: Path) -> None:
        """Closed, and no foreign error, from every verb of an upload that needs its store, which was closed."""
        store = Store.open(tmp_path, SMALL, create=True)
        small, large, done = store.upload(), store.upload(), store.upload()
        large.write(noise(300 * KIB))
        done.write(noise(300 * KIB, 1))
        store.close()
        with pytest.raises(Closed):
            large.write(noise(3 * MIB))
        with pytest.raises(Closed):
            done.finish()
        small.discard()
        large.discard()

    @pytest.mark.parametrize("piece", [1000, 70_000, 5 * MIB])
    def test_taps_see_every_byte_once_and_in_order(self, piece: int, tmp_path: Path) -> None:
        """Two taps, fed in line or from the side, end with the hash of the whole."""
        data, taps = noise(5 * MIB), (hashlib.sha512(), hashlib.md5())
        with opened(tmp_path) as store, store.upload(taps=taps) as upload:
            for start in range(0, len(data), piece):
                upload.write(data[start : start + piece])
            assert upload.finish().digest == Digest.of(data)
        assert taps[0].digest() == hashlib.sha512(data).digest()
        assert taps[1].digest() == hashlib.md5(data).digest()

    @pytest.mark.parametrize("content", ["noise", "prose"])
    def test_memory_is_bounded_however_large_a_single_write_is(self, content: str, tmp_path: Path) -> None:
        """The window stays within 5 MiB: a huge write is taken in pieces (I5)."""
        data = noise(24 * MIB) if content == "noise" else prose(24 * MIB)
        seen: list[int] = []
        with opened(tmp_path, EngineSettings(reserve_bytes=0)) as store:
            upload = store.upload()
            cut = upload._inflow._cut

            def watched(*, final: bool) -> None:
                seen.append(len(upload._inflow._window))
                cut(final=final)

            upload._inflow._cut = watched  # type: ignore[method-assign]
            upload.write(data)
            staged = upload.finish()
            store.change(lambda names: names.keep(staged))
            assert max(seen) <= 5 * MIB
            assert read(store, staged.digest) == data

    def test_a_tar_of_very_many_tiny_files_in_one_write_is_taken(self, tmp_path: Path) -> None:
        """No limit of a segment is met by cutting finely: more members than a record could count at once."""
        data = tar_of({f"f{n}": n.to_bytes(4, "big") * 1024 for n in range(36_000)})
        with opened(tmp_path, EngineSettings(reserve_bytes=0)) as store:
            assert read(store, push(store, "tar", data, step=len(data))) == data

    def test_a_new_blob_lies_in_few_long_runs(self, tmp_path: Path) -> None:
        """At most 25 extents per 100 MB, each of which `sendfile` can serve, also beside another upload (I6)."""
        data = noise(50_000_000)
        with opened(tmp_path, EngineSettings(reserve_bytes=0)) as store, store.upload() as other:
            other.write(noise(8 * MIB, 1))
            digest = push(store, "large", data, step=MIB)
            ranges = file_ranges(store, digest)
        assert sum(piece.count for piece in ranges) == len(data)
        assert len(ranges) <= 25 * len(data) // 100_000_000

    def test_what_compresses_is_kept_as_frames_and_what_does_not_is_kept_raw(self, tmp_path: Path) -> None:
        """Text takes a fraction of its size and noise exactly its size."""
        with opened(tmp_path) as store:
            text, random_ = push(store, "text", prose(MIB)), push(store, "noise", noise(MIB))
            assert file_ranges(store, text) == []
            assert sum(piece.count for piece in file_ranges(store, random_)) == MIB
            assert store.stats().pack_bytes < 1.7 * MIB


class TestDeduplication:
    """The same bytes are written once, and only ever taken for the same after comparing them."""

    @pytest.mark.parametrize("kind", ["text", "noise", "packed", "zeros", "a tar", "text, then noise"])
    def test_the_same_content_pushed_again_writes_no_data(self, kind: str, tmp_path: Path) -> None:
        """A second push costs one journal record: the bytes written do not depend on the blob's size."""
        disk = Disk()
        with Store.open(tmp_path, SMALL, create=True, disk=disk) as store:
            push(store, "once", SAMPLES[kind])
            before, chunks = disk.counts.bytes_written, store.stats().chunks
            push(store, "twice", SAMPLES[kind])
            assert store.stats().chunks == chunks
            recipe = 28 * (len(SAMPLES[kind]) // (4 * KIB) + 1)
            assert disk.counts.bytes_written - before < 1000 + recipe

    def test_chunks_repeated_within_one_upload_are_stored_once(self, tmp_path: Path) -> None:
        """Within a window, across windows and across runs."""
        block = noise(2 * MIB)
        with opened(tmp_path) as store:
            digest = push(store, "repeated", block * 6)
            assert read(store, digest) == block * 6
            assert store.stats().pack_bytes < 2.6 * len(block)

    def test_a_second_version_of_a_tar_stores_little(self, tmp_path: Path) -> None:
        """2 % of the files changed and every mtime new: the rest is recognised at member borders."""
        files = {f"usr/lib/file-{n:03}": noise(40 * KIB + 97 * n, n) for n in range(200)}
        with opened(tmp_path, EngineSettings(reserve_bytes=0)) as store:
            push(store, "v1", tar_of(files, mtime=1))
            before = store.stats().pack_bytes
            files |= {f"usr/lib/file-{n:03}": noise(40 * KIB, 1000 + n) for n in range(0, 200, 50)}
            second = tar_of(files, mtime=2)
            assert read(store, push(store, "v2", second)) == second
            assert store.stats().pack_bytes - before < 0.08 * len(second)

    @pytest.mark.parametrize("bits", [0, 8])
    def test_chunks_with_equal_keys_are_told_apart(
        self, bits: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A forced collision, of all keys and of most: a key is a hint, the comparison is the proof (I3)."""

        def short(data: memoryview) -> bytes:
            return (xxhash.xxh3_64_intdigest(data) % (1 << bits)).to_bytes(16, "big")

        colliding = SimpleNamespace(xxh3_128_digest=short, xxh3_64_intdigest=xxhash.xxh3_64_intdigest)
        monkeypatch.setattr(cas.runs, "xxhash", colliding)
        monkeypatch.setattr(cas.view, "MOST_CANDIDATES", 1000)  # the bound has a test of its own
        blobs = [noise(300 * KIB, n) for n in range(4)] + [prose(400 * KIB, n) for n in range(4)]
        blobs += [bytes(600 * KIB), blobs[0] + blobs[4], blobs[1][:-1] + b"\0"]
        with opened(tmp_path) as store:
            digests = [push(store, str(n), blob) for n, blob in enumerate(blobs)]
            chunks = store.stats().chunks
            digests += [push(store, f"again {n}", blob) for n, blob in enumerate(blobs)]
            assert store.stats().chunks == chunks
            assert [read(store, digest) == blob for digest, blob in zip(digests, blobs * 2, strict=True)] == [True] * 22

    def test_uploads_at_the_same_time_do_not_mix(self, tmp_path: Path) -> None:
        """Eight threads, alike and different content, all there and equal."""
        common = noise(400 * KIB, 99)
        start = threading.Barrier(8)

        def work(worker: int) -> list[tuple[Digest, bytes]]:
            start.wait()
            blobs = [common + noise(200 * KIB, 10 * worker + n) for n in range(4)] + [common, prose(500 * KIB)]
            random.Random(worker).shuffle(blobs)
            return [(push(store, f"{worker}-{n}", blob), blob) for n, blob in enumerate(blobs)]

        with opened(tmp_path) as store:
            with ThreadPoolExecutor(8) as pool:
                pushed = [item for done in pool.map(work, range(8)) for item in done]
            assert all(read(store, digest) == blob for digest, blob in pushed)
            assert len(store.scan("thing")) == 48

    def test_a_reader_goes_on_while_the_same_blob_is_pushed_anew(self, tmp_path: Path) -> None:
        """Two uploads of one blob race; the recipe of the first makes way while somebody reads along it."""
        data = noise(9 * MIB)
        with opened(tmp_path, replace(SMALL, run_bytes=1 << 30, segment_chunks=2)) as store:
            first, second = stage(store, data), stage(store, data)
            assert second.wrote, "its last run has to be new, or it would make way itself"
            store.change(lambda names: names.keep(first))
            with store.reader(first.digest) as reader:
                pieces = reader.pieces()
                head = reader._load(next(pieces))  # type: ignore[arg-type]
                store.change(lambda names: names.keep(second))
                rest = b"".join(reader._load(piece) for piece in pieces)  # type: ignore[arg-type]
            assert bytes(head) + rest == data

    def test_a_staged_blob_may_be_kept_by_several_changes(self, tmp_path: Path) -> None:
        """Keeping twice, in one change and in another, is keeping once."""
        data = noise(500 * KIB)
        with opened(tmp_path) as store:
            staged = stage(store, data)
            for path in "abc":

                def edit(names: cas.Names, path: str = path) -> None:
                    names.keep(staged)
                    names.keep(staged)
                    names.put(Name("thing", path), Record(b"", (staged.digest,)))

                store.change(edit)
            assert read(store, staged.digest) == data
            assert store.stats().blobs == 1
