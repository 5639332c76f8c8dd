"""What is pushed again is compared with bytes that are read ahead: only such as stay as they are, and never wrongly."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas import Digest, Store
from cas.direct import BLOCK, Buffers
from cas.disk import Disk
from cas.track import STEP_BYTES, STEPS, Track
from tests.support.engine import KIB, MIB, SMALL, noise, push, read

LONG = replace(SMALL, pack_bytes=32 * MIB, run_bytes=2 * MIB)  # several windows lie back to back
SIZE = 3 * STEP_BYTES + 5000
BYTES = noise(SIZE, 1)


@contextmanager
def on_track(folder: Path, start: int, stop: int, buffers: Buffers | None = None) -> Iterator[Track]:
    """Lay a track through a file of `BYTES`."""
    path, disk = folder / "pack", Disk()
    path.write_bytes(BYTES)
    with ThreadPoolExecutor(2) as pool, closing(Track(disk, pool, buffers or Buffers(STEPS))) as track:
        direct = disk.open_direct(path, reading=True)
        direct = direct if direct >= 0 else disk.open_read(path)  # not every filesystem can
        assert track.begin(direct, start, stop)
        try:
            yield track
        finally:
            track.close()
            disk.close(direct)


@given(
    start=st.integers(0, SIZE - 1),
    sizes=st.lists(st.integers(1, 400_000), min_size=1, max_size=12),
    wrong=st.lists(st.one_of(st.none(), st.integers(0, 400_000)), min_size=12, max_size=12),
)
def test_chunks_that_lie_back_to_back_are_told_from_others(
    start: int, sizes: list[int], wrong: list[int | None]
) -> None:
    """Whatever their sizes and wherever steps end; one that differs by a bit does not spoil those behind it."""
    with TemporaryDirectory() as folder, on_track(Path(folder), start, SIZE) as track:
        at = start
        for size, spoilt in zip(sizes, wrong, strict=False):
            chunk = bytearray(BYTES[at : at + size])
            if len(chunk) < size:
                break
            if spoilt is not None:
                chunk[spoilt % size] ^= 1
            assert track.reaches(at, at + size)
            assert track.is_same(memoryview(chunk), at) == (spoilt is None)
            at += size


def test_bytes_that_may_be_taken_back_are_not_read(tmp_path: Path) -> None:
    """Behind the last record of a pack others append, and take back, and append something else (I3)."""
    stop = 2 * STEP_BYTES + 777
    with on_track(tmp_path, 100, stop) as track:
        assert track.reaches(100, stop)
        assert not track.reaches(100, stop + 1)
        assert track.is_same(memoryview(bytearray(BYTES[100:stop])), 100)
        assert not track.is_same(memoryview(bytearray(BYTES[stop - 10 : stop + 10])), stop - 10)


def test_a_file_that_ends_early_proves_nothing(tmp_path: Path) -> None:
    """No error either: it is looked at chunk by chunk then, and told."""
    with on_track(tmp_path, 0, SIZE + STEP_BYTES) as track:
        assert track.is_same(memoryview(bytearray(BYTES)), 0)
        assert not track.is_same(memoryview(bytearray(BLOCK)), SIZE)


def test_who_finds_no_memory_has_no_track(tmp_path: Path) -> None:
    """Slow uploads keep theirs; nobody waits for it."""
    buffers = Buffers(1)
    with on_track(tmp_path, 0, SIZE, buffers) as track, ThreadPoolExecutor(1) as pool:
        assert not Track(Disk(), pool, buffers).begin(0, 0, SIZE)
        assert track.is_same(memoryview(bytearray(BYTES)), 0), "one step at a time will do"
    with on_track(tmp_path, 0, SIZE, buffers) as track:
        assert track.is_same(memoryview(bytearray(BYTES)), 0)


class Reading(Disk):
    """Notes which threads read past the page cache."""

    def __init__(self) -> None:
        super().__init__()
        self.ours = self.ahead = 0

    def read_direct(self, direct: int, memory: memoryview, offset: int) -> int:
        done = super().read_direct(direct, memory, offset)
        if threading.current_thread() is threading.main_thread():
            self.ours += done
        else:
            self.ahead += done
        return done


def test_a_layer_pushed_again_is_read_ahead(tmp_path: Path) -> None:
    """All of it but a window or two, by other threads than the one that compares; records between runs are passed."""
    data, disk = noise(8 * MIB), Reading()
    with Store.open(tmp_path, LONG, create=True, disk=disk) as store:
        push(store, "large", data)
        stored = store.stats().pack_bytes
        push(store, "again", data)
        assert store.stats().pack_bytes - stored < 16 * KIB
        assert read(store, Digest.of(data)) == data
    if disk.counts.bytes_past_cache:  # not every filesystem can
        assert disk.ahead > 2 * disk.ours
        assert disk.ahead + disk.ours <= len(data) + 2 * STEP_BYTES


@pytest.mark.parametrize("place", [SMALL.direct_bytes + 100_000, 5 * MIB, 8 * MIB - 1])
def test_rot_that_is_read_ahead_is_not_taken_for_what_is_pushed(tmp_path: Path, place: int) -> None:
    """A flipped bit: those bytes are stored anew, and the blob is whole again."""
    data = noise(8 * MIB, 5)
    with Store.open(tmp_path, LONG, create=True) as store:
        digest = push(store, "large", data)
    needle = data[place - 16 : place]
    [pack] = [path for path in tmp_path.rglob("*.pack") if needle in path.read_bytes()]
    spoilt = bytearray(pack.read_bytes())
    spoilt[spoilt.find(needle)] ^= 1
    pack.write_bytes(spoilt)
    with Store.open(tmp_path, LONG) as store:
        push(store, "again", data)
        assert read(store, digest) == data
