"""Stored bytes are read once, many chunks at a time, and a doubt ends with the chunk that gave rise to it (I9)."""

# ruff: noqa: SLF001 - what a promise rests on is looked at inside, not only from the front

from __future__ import annotations

from pathlib import Path

import pytest
import xxhash

from cas import Depth, Scope
from cas.codec import ChunkCodec
from cas.disk import Disk
from cas.errors import Damaged, DiskFailed
from cas.extent import Codec
from cas.proof import doubtful
from cas.records import ChunkEntry
from tests.support.engine import KIB, MIB, SMALL, noise, opened, prose, push, tar_of

_BYTES = 40 * KIB


def made(count: int, *, every: int = 3) -> tuple[bytearray, list[ChunkEntry]]:
    """A pack's bytes, and chunks back to back in it; each `every`-th is a frame."""
    codec, data, entries = ChunkCodec(3, 0.1), bytearray(64), []
    for number in range(count):
        raw = prose(_BYTES, number) if number % every == 0 else noise(_BYTES, number)
        how, stored = codec.encode(memoryview(raw))
        sums = xxhash.xxh3_128_digest(raw), xxhash.xxh3_64_intdigest(stored)
        entries.append(ChunkEntry(sums[0], number, len(data), len(stored), len(raw), how, sums[1]))
        data += stored
    return data, entries


def reading(data: bytearray, asked: list[int]) -> object:
    def read(size: int, offset: int) -> bytearray:
        asked.append(size)
        return data[offset : offset + size]

    return read


@pytest.mark.parametrize("deep", [False, True])
def test_whole_chunks_are_acquitted_with_few_reads(*, deep: bool) -> None:
    """Of about a MiB each, and every stored byte is told of once."""
    data, entries = made(90)
    asked, told = list[int](), list[int]()
    found = doubtful(reversed(entries), reading(data, asked), told.append, ChunkCodec(3, 0.1) if deep else None)  # type: ignore[arg-type]
    assert list(found) == []
    assert sum(asked) == sum(told) == len(data) - 64
    assert len(asked) <= len(data) // (MIB - _BYTES) + 1
    assert max(asked) <= MIB


@pytest.mark.parametrize("number", [0, 1, 44, 89])
def test_just_the_chunk_with_another_bit_is_doubted(number: int) -> None:
    """First and last of a read, compressed or not."""
    data, entries = made(90)
    data[entries[number].offset + 5] ^= 1
    assert list(doubtful(entries, reading(data, []))) == [entries[number]]  # type: ignore[arg-type]


def test_chunks_past_the_end_and_chunks_that_cannot_be_read_are_doubted() -> None:
    """Whoever asks finds out which of them are to be had."""
    data, entries = made(30)
    end = entries[20].offset + 1
    assert list(doubtful(entries, reading(data[:end], []))) == entries[20:]  # type: ignore[arg-type]

    def failing(size: int, offset: int) -> bytearray:
        raise DiskFailed("planted")

    assert list(doubtful(entries, failing)) == entries


@pytest.mark.parametrize("number", [3, 4])
def test_a_chunk_under_another_key_is_doubted_by_a_deep_look_alone(number: int) -> None:
    """Its checksum is that of its stored bytes, which are not those of its key; compressed, and not."""
    data, entries = made(9)
    entries[number] = entries[number]._replace(key=bytes(16))
    codec = ChunkCodec(3, 0.1)
    assert (entries[number].codec == Codec.ZSTD) == (number == 3)
    assert list(doubtful(entries, reading(data, []))) == []  # type: ignore[arg-type]
    assert list(doubtful(entries, reading(data, []), codec=codec)) == [entries[number]]  # type: ignore[arg-type]


def test_a_frame_that_cannot_be_decoded_hides_no_other() -> None:
    """It is doubted, and each of the others is judged by itself."""
    data, entries = made(9)
    broken = b"no frame" * 100
    entries[0] = entries[0]._replace(stored=len(broken), offset=len(data), checksum=xxhash.xxh3_64_intdigest(broken))
    with pytest.raises(Damaged):
        ChunkCodec(3, 0.1).decode(broken, _BYTES)
    entries[1] = entries[1]._replace(key=bytes(16))
    found = doubtful(entries, reading(data + broken, []), codec=ChunkCodec(3, 0.1))  # type: ignore[arg-type]
    assert sorted(found) == sorted(entries[:2])


def test_a_check_of_all_checksums_asks_the_disk_once_for_many_chunks(tmp_path: Path) -> None:
    """Each stored byte is read once, in pieces of about a MiB, not a chunk at a time."""
    with opened(tmp_path / "root", SMALL) as store:
        push(store, "tar", tar_of({str(n): noise(MIB, n) for n in range(4)}))
        disk: Disk = store._parts.disk
        reads, count = disk.counts.reads, disk.counts.bytes_read
        chunks = store._parts.index.read(lambda view: view.count("chunks"))
        assert list(store.check(Scope(Depth.DATA))) == []
        headers = sum(1 for _ in (tmp_path / "root" / "packs").rglob("*.pack"))  # each looked at when it is opened
        assert disk.counts.reads - reads - headers < chunks // 4
        assert 4 * MIB <= disk.counts.bytes_read - count < 5 * MIB
