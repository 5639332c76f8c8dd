"""What stays bounded when a caller gives up, a client makes collisions, or a neighbour is stopped (I7, I10)."""

# ruff: noqa: SLF001 - what a promise rests on is looked at inside, not only from the front

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cas import Busy, Digest, Name, Names, Record, Store
from cas.disk import Disk
from cas.locks import lock_folder
from cas.tables import MOST_CANDIDATES
from tests.support.engine import KIB, MIB, SMALL, noise, push, read


class SameKeys:
    """XXH3 in the hands of somebody who can make collisions: every chunk has one key."""

    @staticmethod
    def xxh3_128_digest(_chunk: memoryview) -> bytes:
        return bytes(16)

    @staticmethod
    def xxh3_64_intdigest(_chunk: bytes | memoryview) -> int:
        return 0


class LoadedDice(Disk):
    """Draws the same salt every time."""

    def random(self, size: int) -> bytes:
        return bytes(4) if size == 4 else super().random(size)


def rows(store: Store, table: str) -> int:
    """Count a table's entries once the committer has done all that was asked before."""
    store.change(lambda _: None)
    return store._parts.index.read(lambda view: view.count(table))


def test_a_finished_upload_whose_change_was_refused_leaves_no_rows_behind(tmp_path: Path) -> None:
    """Its segments were filed while it arrived; the error that leads out of the block takes them away again."""

    def refuse(names: Names) -> None:
        raise KeyError(names)

    def push_in_vain(store: Store) -> None:
        with store.upload() as upload:
            upload.write(noise(900 * KIB))
            upload.finish()
            store.change(refuse)

    with Store.open(tmp_path / "root", SMALL, create=True) as store:
        with pytest.raises(KeyError):
            push_in_vain(store)
        assert (rows(store, "uploads"), rows(store, "recipes"), rows(store, "blobs")) == (0, 0, 0)


def test_discarding_a_finished_upload_spares_what_a_change_kept(tmp_path: Path) -> None:
    """A handler that cleans up after an error further on takes nothing acknowledged with it."""
    data = noise(900 * KIB)
    with Store.open(tmp_path / "root", SMALL, create=True) as store:
        with store.upload() as upload:
            upload.write(data)
            staged = upload.finish()

            def keep(names: Names) -> None:
                names.keep(staged)
                names.put(Name("thing", "kept"), Record(b"", (staged.digest,)))

            store.change(keep)
        upload.discard()
        assert rows(store, "uploads") == 0
        with store.reader(Digest.of(data)) as reader:
            assert reader.read() == data


def test_two_chunks_never_share_an_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal keys can be made; should the salts be equal too, the second push is refused and the first stays right."""
    monkeypatch.setattr("cas.runs.xxhash", SameKeys)
    first = noise(20 * KIB)
    with Store.open(tmp_path / "root", SMALL, create=True, disk=LoadedDice()) as store:
        push(store, "first", first)
        with pytest.raises(Busy, match="send it again"):
            push(store, "second", noise(20 * KIB, seed=1))
        with store.reader(Digest.of(first)) as reader:
            assert reader.read() == first


def test_made_collisions_do_not_slow_a_push_without_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many chunks lie under one key, a push compares itself with few of them."""
    monkeypatch.setattr("cas.runs.xxhash", SameKeys)
    with Store.open(tmp_path / "root", SMALL, create=True) as store:
        for seed in range(MOST_CANDIDATES + 8):
            push(store, f"{seed}", noise(20 * KIB, seed=seed))
        before = store._parts.disk.counts.reads
        push(store, "last", noise(20 * KIB, seed=999))
        looks = 3  # when it is cut, before it is recorded, and at the end: somebody may have stored it meanwhile
        assert store._parts.disk.counts.reads - before <= looks * (MOST_CANDIDATES + 1)


def test_opening_beside_a_stopped_opener_ends_and_says_why(tmp_path: Path) -> None:
    """The folder's lock is waited for with a bound; a tick does not wait at all."""
    impatient = replace(SMALL, write_wait_s=0.05)
    with Store.open(tmp_path / "root", SMALL, create=True) as store, lock_folder(tmp_path / "root", 0):
        store.tick()
        with pytest.raises(Busy, match="is it stopped"):
            Store.open(tmp_path / "root", impatient)


class TestPastTheCache:
    """What of a large upload lies beyond `direct_bytes` leaves the page cache to what is pulled."""

    def test_the_far_part_of_a_large_blob_is_written_past_the_page_cache(self, tmp_path: Path) -> None:
        """All but ragged ends of it; and it comes out as it went in."""
        disk = Disk()
        with Store.open(tmp_path / "root", SMALL, create=True, disk=disk) as store:
            data = noise(2 * MIB, 7)
            digest = push(store, "large", data)
            assert read(store, digest) == data
        beyond = len(data) - SMALL.direct_bytes
        assert disk.counts.bytes_past_cache > beyond // 2
        assert disk.counts.bytes_past_cache < beyond + SMALL.run_bytes

    @pytest.mark.parametrize("place", ["at once", "in two requests"])
    def test_of_a_blob_that_is_known_to_be_large_every_part_is(self, tmp_path: Path, place: str) -> None:
        """Its first pull reads the disk anyway; a fresh page of the cache is dear."""
        disk, data = Disk(), noise(2 * MIB, 8)
        with Store.open(tmp_path / "root", SMALL, create=True, disk=disk) as store:
            first = 0
            if place == "in two requests":
                first = 100_000
                with store.resume(1) as upload:
                    upload.write(data[:first])
                    upload.suspend()
            with store.upload() if place == "at once" else store.resume(1) as upload:
                upload.announce(len(data) - first)
                for at in range(first, len(data), 100_000):
                    upload.write(data[at : at + 100_000])
                named = Record(b"", (digest := Digest.of(data),))
                upload.keep(digest, lambda names, _: names.put(Name("thing", "large"), named))
            assert read(store, digest) == data
        assert disk.counts.bytes_past_cache > 0.9 * (len(data) - first - SMALL.run_bytes)

    def test_a_filesystem_that_cannot_do_it_gets_the_bytes_the_ordinary_way(self, tmp_path: Path) -> None:
        """Whether it says so when the file is opened or only when it is written."""

        class Refusing(Disk):
            def write_direct(self, fd: int, direct: int, data: memoryview, offset: int) -> None:
                super().write_direct(fd, -1, data, offset)  # EBADF, as good as any other refusal

            def read_direct(self, direct: int, memory: memoryview, offset: int) -> int:
                return super().read_direct(-1, memory, offset)

        class Unable(Disk):
            def open_direct(self, path: Path, *, reading: bool = False) -> int:
                return -1

        for number, disk in enumerate((Refusing(), Unable())):
            with Store.open(tmp_path / str(number), SMALL, create=True, disk=disk) as store:
                data = noise(MIB, number)
                assert read(store, push(store, "large", data)) == data
                stored = store.stats().pack_bytes
                push(store, "again", data)
                assert store.stats().pack_bytes - stored < 4096, "what is stored is found to be"
            assert disk.counts.bytes_past_cache == 0

    def test_what_was_written_past_the_page_cache_is_compared_past_it(self, tmp_path: Path) -> None:
        """A large layer that is pushed again leaves in the cache what others pull, and is stored once."""

        class Watched(Disk):
            past = 0

            def read_direct(self, direct: int, memory: memoryview, offset: int) -> int:
                done = super().read_direct(direct, memory, offset)
                self.past += done
                return done

        disk, data = Watched(), noise(8 * MIB)
        with Store.open(tmp_path, SMALL, create=True, disk=disk) as store:
            push(store, "large", data)
            written, read_before = disk.counts.bytes_written, disk.counts.bytes_read
            push(store, "again", data)
            assert disk.counts.bytes_written - written < 16 * KIB
            beyond = len(data) - 2 * MIB  # the first window is read before it is known how much there is
            rest = disk.counts.bytes_read - read_before - disk.past
            assert disk.past >= beyond if disk.counts.bytes_past_cache else rest >= len(data)
            assert read(store, push(store, "large", data)) == data
