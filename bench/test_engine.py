"""The engine by itself, without HTTP: `python -m pytest bench --benchmark-only`.

Times are for people; what is asserted is counted work, which does not depend on the machine.
"""

from __future__ import annotations

import io
import itertools
import os
import random
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from cas import Digest, FileRange, Name, Names, Record, Store
from cas.disk import Disk

MIB = 1 << 20
SIZE = 64 * MIB
_COUNT = itertools.count()


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def store(tmp_path: Path, disk: Disk) -> Iterator[Store]:
    with Store.open(tmp_path / "root", create=True, disk=disk) as opened:
        yield opened


def push(store: Store, data: bytes) -> Digest:
    """Push a blob in pieces of a MiB, as the server does, and hold it by a name of its own."""
    with store.upload() as upload:
        for start in range(0, len(data), MIB):
            upload.write(data[start : start + MIB])
        staged = upload.finish()

    def edit(names: Names) -> None:
        names.keep(staged)
        names.put(Name("bench", str(next(_COUNT))), Record(b"", (staged.digest,), staged.size))

    store.change(edit)
    return staged.digest


def plain_tar() -> bytes:
    """A tar of text files, as an uncompressed layer is."""
    dice, packed = random.Random(1), io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for number in range(SIZE // 40_000):
            text = dice.randbytes(10_000).hex().encode() * 2
            member = tarfile.TarInfo(f"usr/lib/file{number}.py")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
    return packed.getvalue()


def test_push_of_new_incompressible_bytes(benchmark: BenchmarkFixture, store: Store, disk: Disk) -> None:
    benchmark.extra_info["mib"] = SIZE // MIB
    benchmark.pedantic(push, setup=lambda: ((store, os.urandom(SIZE)), {}), rounds=5)
    pushed = 5 * SIZE
    assert disk.counts.bytes_written < 1.001 * pushed
    assert disk.counts.bytes_read == 0


def test_push_of_a_new_plain_tar(benchmark: BenchmarkFixture, store: Store, disk: Disk) -> None:
    tar = plain_tar()
    benchmark.extra_info["mib"] = len(tar) // MIB
    benchmark.pedantic(push, args=(store, tar), rounds=1)
    assert disk.counts.bytes_written < 0.6 * len(tar)


def test_push_of_what_is_stored(benchmark: BenchmarkFixture, store: Store, disk: Disk) -> None:
    data = os.urandom(SIZE)
    push(store, data)
    before = disk.counts.bytes_written
    benchmark.extra_info["mib"] = SIZE // MIB
    benchmark.pedantic(push, args=(store, data), rounds=5)
    assert disk.counts.bytes_written - before < 5 * 16_384


def test_push_of_a_small_blob(benchmark: BenchmarkFixture, store: Store, disk: Disk) -> None:
    before = disk.counts.syncs
    benchmark.pedantic(push, setup=lambda: ((store, os.urandom(4096)), {}), rounds=200)
    assert disk.counts.syncs - before <= 200 + 2  # one of the journal each, and the new pack with its folder


def test_where_a_layer_is_sent_from(benchmark: BenchmarkFixture, store: Store) -> None:
    digest = push(store, os.urandom(SIZE))

    def resolve() -> int:
        with store.reader(digest) as reader:
            return sum(isinstance(piece, FileRange) for piece in reader.pieces())

    assert benchmark(resolve) <= 25 * SIZE / 100_000_000


def test_read_of_a_compressed_layer(benchmark: BenchmarkFixture, store: Store) -> None:
    tar = plain_tar()
    digest = push(store, tar)
    benchmark.extra_info["mib"] = len(tar) // MIB

    def read() -> int:
        with store.reader(digest) as reader:
            return sum(len(piece) for piece in reader.pieces() if isinstance(piece, bytes))

    assert benchmark.pedantic(read, rounds=3) > 0.9 * len(tar)


def test_look_up_of_a_small_blob(benchmark: BenchmarkFixture, store: Store) -> None:
    digest = push(store, b"{}")

    def read() -> bytes:
        with store.reader(digest) as reader:
            return reader.read()

    assert benchmark(read) == b"{}"


def test_look_up_of_a_name(benchmark: BenchmarkFixture, store: Store) -> None:
    store.change(lambda names: names.put(Name("tag", "library/python:3"), Record(b"x")))
    assert benchmark(store.get, Name("tag", "library/python:3")) == Record(b"x")
