"""Promise: what would have to be waited for is known before anybody waits (`api/page_cache.py`)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from api import page_cache
from api.config import KIB
from api.page_cache import cached_pages, is_resident, read_far_ahead

SIZE = 1024 * KIB
# The kernel reads ahead of nobody who says that they read here and there: so a hole stays one.
HOLE = range(300 * KIB, 364 * KIB)


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    """Give a file on a disk, of which nothing is in memory."""
    file = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    try:
        os.write(file, os.urandom(SIZE))
        forget(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
        yield file
    finally:
        os.close(file)


def forget(fd: int) -> None:
    """Empty the cache of a file; what the kernel is just looking at it keeps, so it may be asked more than once."""
    os.fsync(fd)
    for _ in range(1000):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        if not cached_pages(fd, 0, SIZE):
            return
    pytest.fail("the kernel keeps pages of the file")


def read_around_the_hole(fd: int) -> None:
    os.pread(fd, HOLE.start, 0)
    os.pread(fd, SIZE - HOLE.stop, HOLE.stop)


@pytest.fixture(params=["counted", "touched"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give both ways of the kernel to tell: counts, and where it has none, bytes here and there."""
    if request.param == "touched":
        monkeypatch.setattr(page_cache, "cached_pages", lambda *_: 0)
    return str(request.param)


@pytest.mark.usefixtures("way")
def test_what_was_just_read_is_there(fd: int) -> None:
    """From its first byte to its last, and any part of it."""
    os.pread(fd, SIZE, 0)
    for start, stop in ((0, SIZE), (1, 2), (5000, 5001), (SIZE - 1, SIZE), (4095, 4097), (0, 70_000)):
        assert is_resident(fd, start, stop), (start, stop)


@pytest.mark.usefixtures("way")
def test_what_left_the_page_cache_is_away(fd: int) -> None:
    """Wherever it is asked for, the first time: to touch what is away has the kernel fetch it."""
    assert not is_resident(fd, 0, SIZE)
    for start, stop in ((0, SIZE), (1, 2), (SIZE - 1, SIZE)):
        os.pread(fd, SIZE, 0)
        forget(fd)
        assert not is_resident(fd, start, stop), (start, stop)


@pytest.mark.usefixtures("way")
def test_both_ends_have_to_be_there(fd: int) -> None:
    """A first or a last page that is missing would be waited for."""
    os.pread(fd, SIZE - 64 * KIB, 64 * KIB)
    assert not is_resident(fd, 0, SIZE)
    assert is_resident(fd, 64 * KIB, SIZE)
    forget(fd)
    os.pread(fd, SIZE - 64 * KIB, 0)
    assert not is_resident(fd, 0, SIZE)
    assert is_resident(fd, 0, SIZE - 64 * KIB)


def test_a_hole_of_a_few_pages_is_seen_where_the_kernel_counts(fd: int) -> None:
    """Between the places that would be touched; kernels before 6.5 do not count, and may wait for it."""
    read_around_the_hole(fd)
    counts = cached_pages(fd, 0, SIZE) > 0
    assert is_resident(fd, 0, SIZE) == (not counts)
    os.pread(fd, len(HOLE), HOLE.start)
    assert is_resident(fd, 0, SIZE)


def test_pages_that_are_counted_and_not_read_yet_are_waited_for_by_nobody(
    fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel counts what it only began to read: the last page has to be there as well."""
    monkeypatch.setattr(page_cache, "cached_pages", lambda *_: SIZE)
    assert not is_resident(fd, 0, SIZE)
    os.pread(fd, 4 * KIB, SIZE - 4 * KIB)
    assert is_resident(fd, 0, SIZE)


def test_a_descriptor_that_is_no_file_is_away() -> None:
    """So is one that is closed: whoever sends from it hears of it."""
    out, into = os.pipe()
    try:
        assert not is_resident(out, 0, 1)
    finally:
        os.close(out)
        os.close(into)
    assert not is_resident(out, 0, 1)


def test_to_read_far_ahead_is_advice() -> None:
    """What is no file cannot be read ahead of; whoever sends from it hears why."""
    out, into = os.pipe()
    read_far_ahead(out)
    for end in (out, into):
        os.close(end)
    read_far_ahead(out)
