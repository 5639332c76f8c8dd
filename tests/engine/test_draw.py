"""Bytes that an upload draws straight to where it cuts them: the same blob as when they are handed to it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from cas import Closed, Digest, Name, Names, NoSpace, Record, Store, Upload
from cas.disk import Disk
from tests.support.engine import KIB, MIB, SMALL, noise, prose, push, read, tar_of


def source(data: bytes, *steps: int) -> Callable[[memoryview], int]:
    """Fill memory with the next bytes, at most so many at a time, in turns."""
    at, turn = 0, 0

    def fill(into: memoryview) -> int:
        nonlocal at, turn
        size = min(len(into), len(data) - at, steps[turn % len(steps)])
        into[:size] = data[at : at + size]
        at, turn = at + size, turn + 1
        return size

    return fill


def draw(upload: Upload, data: bytes, *steps: int, most: int = MIB) -> None:
    fill, left = source(data, *steps), len(data)
    while left:
        left -= upload.draw(fill, left, most)


def kept(store: Store, upload: Upload, path: str, digest: Digest) -> None:
    def edit(names: Names, staged: object) -> None:
        names.put(Name("thing", path), Record(b"", (digest,)))

    upload.keep(digest, edit)


@pytest.mark.parametrize("settings", [SMALL, None], ids=["small", "usual"])
@pytest.mark.parametrize("steps", [(MIB,), (1, 70_000), (0, 500 * KIB, 0, 3)])
@pytest.mark.parametrize("size", [1, 900, 65 * KIB, MIB + 1, 3 * MIB])
@pytest.mark.parametrize("kind", [noise, prose])
def test_what_is_drawn_is_what_is_written(
    tmp_path: Path, settings: object, steps: tuple[int, ...], size: int, kind: Callable[[int], bytes]
) -> None:
    """However little comes at a time, also nothing; and what was written so before is found again."""
    data = kind(size)
    with Store.open(tmp_path, **({} if settings is None else {"settings": settings}), create=True) as store:  # type: ignore[arg-type]
        with store.upload() as upload:
            draw(upload, data, *steps)
            assert upload.size == size
            kept(store, upload, "drawn", Digest.of(data))
        assert read(store, Digest.of(data)) == data
        with store.upload() as upload:
            upload.write(data)
            assert not upload.finish(Digest.of(data)).wrote


def of_tar(size: int) -> bytes:
    """A tar of small and large files."""
    return tar_of({f"{at}": noise(at % 7 * 100 * KIB + at, at) for at in range(size // (300 * KIB))})


@pytest.mark.parametrize("settings", [SMALL, None], ids=["small", "usual"])
@pytest.mark.parametrize("steps", [(4 * MIB,), (4 * MIB, 0, 1, 3 * MIB, 700_001)])
@pytest.mark.parametrize("kind", [noise, prose, of_tar])
def test_what_comes_while_the_last_bytes_are_cut_goes_on_where_they_ended(
    tmp_path: Path, settings: object, steps: tuple[int, ...], kind: Callable[[int], bytes]
) -> None:
    """Many bytes at a time: cut as they are when they come in pieces, by whoever they are brought between."""
    data = kind(30 * MIB)
    with Store.open(tmp_path, **({} if settings is None else {"settings": settings}), create=True) as store:  # type: ignore[arg-type]
        with store.upload() as upload:
            draw(upload, data[: 21 * MIB], *steps, most=4 * MIB)
            upload.write(data[21 * MIB : 22 * MIB])
            draw(upload, data[22 * MIB :], *steps, most=4 * MIB)
            kept(store, upload, "drawn", Digest.of(data))
        assert read(store, Digest.of(data)) == data
        with store.upload() as upload:
            for start in range(0, len(data), MIB):
                upload.write(data[start : start + MIB])
            assert not upload.finish(Digest.of(data)).wrote


def test_a_resumable_upload_can_end_while_its_last_bytes_are_cut(tmp_path: Path) -> None:
    """What was told to be safe is, and the next request goes on there."""
    data = noise(25 * MIB)
    with Store.open(tmp_path, create=True) as store:
        for start, stop in ((0, 10 * MIB), (10 * MIB, 25 * MIB)):
            with store.resume(1) as upload:
                assert upload.size == start
                upload.draw(source(data[start:], 4 * MIB), 1 << 62, 4 * MIB)
                fill = source(data[start + 4 * MIB : stop], 4 * MIB)
                while upload.size < stop:
                    upload.draw(fill, 1 << 62, 4 * MIB)
                assert upload.suspend() == stop
        with store.resume(1) as upload:
            kept(store, upload, "drawn", Digest.of(data))
        assert read(store, Digest.of(data)) == data


class FullDisk(Disk):
    """No window can be written once it is full."""

    is_full = False

    def check_room(self, path: Path, size: int, reserve: Callable[[int], int]) -> None:
        """Refuse."""
        if self.is_full:
            raise NoSpace("the disk is full")
        super().check_room(path, size, reserve)


def test_what_cannot_be_stored_of_the_last_bytes_ends_the_upload_at_the_next(tmp_path: Path) -> None:
    """And leaves nothing, whether they were asked for or the upload is given up."""
    data, disk = noise(20 * MIB), FullDisk()
    with Store.open(tmp_path, create=True, disk=disk) as store:
        upload, fill = store.upload(), source(data, 4 * MIB)
        for _ in range(2):
            upload.draw(fill, len(data), 4 * MIB)
        disk.is_full = True
        with pytest.raises(NoSpace):
            draw(upload, data[8 * MIB :], 4 * MIB, most=4 * MIB)
        with pytest.raises(Closed):
            upload.finish()
        disk.is_full = False
        with store.upload() as upload:
            draw(upload, data[: 16 * MIB], 4 * MIB, most=4 * MIB)  # given up while it is cut
        assert store.stats().pack_bytes < MIB
        assert read(store, push(store, "again", data)) == data


def test_taps_see_what_is_drawn(tmp_path: Path) -> None:
    """In order and whole, as bytes of their own."""
    data, seen, tap = noise(3 * MIB), list[bytes](), hashlib.sha512()

    class Keeper:
        def update(self, piece: bytes) -> None:
            assert isinstance(piece, bytes)
            seen.append(piece)

    with Store.open(tmp_path, create=True) as store, store.upload(taps=[tap, Keeper()]) as upload:
        draw(upload, data, 100_000, 600_000)
        upload.finish()
    assert tap.digest() == hashlib.sha512(data).digest()
    assert b"".join(seen) == data


def test_memory_that_is_used_again_shows_nothing_of_another_upload(tmp_path: Path) -> None:
    """Short reads into memory that is full of other bytes."""
    first, second = noise(3 * MIB, 1), noise(MIB + 77, 2)
    with Store.open(tmp_path, create=True) as store:
        with store.upload() as upload:
            draw(upload, first, MIB)
            kept(store, upload, "first", Digest.of(first))
        with store.upload() as upload:
            draw(upload, second, 1000, 0, 50_001)
            kept(store, upload, "second", Digest.of(second))
        assert read(store, Digest.of(second)) == second
        assert read(store, Digest.of(first)) == first


def test_what_cannot_be_read_ends_the_upload(tmp_path: Path) -> None:
    """Half taken, it must not be gone on with."""

    def fail(_: memoryview) -> int:
        raise ConnectionError("the peer")

    with Store.open(tmp_path, create=True) as store, store.upload() as upload:
        draw(upload, noise(2 * MIB), MIB)
        with pytest.raises(ConnectionError):
            upload.draw(fail, 10, 10)
        with pytest.raises(Closed):
            upload.finish()
        assert push(store, "other", noise(100)) == Digest.of(noise(100))
