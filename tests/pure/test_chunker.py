"""What the chunker promises: cuts of the content alone, sizes in bounds, few changes for few changes."""

from __future__ import annotations

import itertools
import random
import tarfile
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cas.chunker import LONGEST_WANT, Chunker
from cas.profile import HEAD_BYTES, PACKED, PLAIN
from cas.tar import TarWalk
from tests.pure.chunker_samples import KIB, MIB, SAMPLES, cut, parts, sample, tar, text, tree

repeatable = settings(derandomize=True, deadline=None, max_examples=25)


def shared(old: bytes, new: bytes) -> float:
    """How much of new, by bytes, lies in chunks that old has too."""
    have = set(parts(old, cut(old)))
    return sum(len(chunk) for chunk in parts(new, cut(new)) if chunk in have) / len(new)


@pytest.mark.parametrize("name", SAMPLES)
@repeatable
@given(seed=st.integers(0, 2**32), longest=st.sampled_from([700, 70 * KIB, MIB]))
def test_chunks_do_not_depend_on_how_the_stream_was_split(name: str, seed: int, longest: int) -> None:
    """The same bytes in other pieces are the same chunks."""
    dice, data = random.Random(seed), sample(name)
    sizes = [dice.randint(1, longest) for _ in range(2000)]
    assert cut(data, sizes) == cut(data)


@pytest.mark.parametrize("name", ["tar", "tar-long-headers", "text", "random"])
def test_an_offer_shorter_than_wanted_changes_nothing(name: str) -> None:
    """A caller too eager loses time only: it gets the same chunks."""
    data, chunker, lengths, start = sample(name)[: 3 * MIB], Chunker(), list[int](), 0
    for end in range(0, len(data), 5000):
        new = chunker.cut(memoryview(data)[start:end], final=False)
        lengths += new
        start += sum(new)
    lengths += chunker.cut(memoryview(data)[start:], final=True)
    assert lengths == cut(data)


@pytest.mark.parametrize("name", SAMPLES)
def test_chunks_cover_the_stream_and_keep_the_bounds(name: str) -> None:
    """No byte is left out or told twice; none but a region's last chunk is smaller than the smallest."""
    data, chunker = sample(name), Chunker()
    lengths = cut(data, itertools.repeat(MIB, len(data) // MIB), chunker=chunker)
    profile = chunker.profile
    assert profile is not None
    assert sum(lengths) == len(data)
    assert all(0 < length <= profile.largest for length in lengths)
    ends = set(itertools.accumulate(lengths))
    walked = TarWalk().borders(memoryview(data), 0) if name.startswith("tar") else []
    borders = {border for border in walked if border <= len(data)}
    assert borders <= ends
    position = 0
    for length in lengths:
        position += length
        assert length >= profile.smallest or position in borders or position == len(data)


# The first cuts, how many there are, and a checksum of all. Written down from one run: a library that
# cut elsewhere would end all sharing with what stores already hold, and nothing else would tell.
GOLDEN: dict[str, tuple[list[int], int, int]] = {
    "random": ([876678, 645098, 582614, 1048576, 554823], 10, 3353812849),
    "text": ([78206, 104287, 72408, 67483, 87737, 69455, 51572, 96106], 27, 3858142632),
    "tar": ([512, 37376, 512, 9728, 512, 30208, 1536, 18831, 88180, 1533], 181, 2587374569),
    "tar-small-files": ([92848, 167266, 67889, 98275, 78232, 98481], 12, 4276474539),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_the_cuts_of_known_streams_never_change(name: str) -> None:
    """New pushes keep sharing with blobs that were stored by older releases."""
    first, count, checksum = GOLDEN[name]
    lengths = cut(sample(name))
    assert lengths[: len(first)] == first
    assert (len(lengths), zlib.crc32(repr(lengths).encode())) == (count, checksum)


@pytest.mark.parametrize("name", ["random", "text", "tar-small-files"])
@repeatable
@given(where=st.floats(0, 1), size=st.integers(1, 5000))
def test_an_insert_changes_few_chunks(name: str, where: float, size: int) -> None:
    """The cuts find themselves again soon behind an edit."""
    old = sample(name)
    at = HEAD_BYTES + int(where * (len(old) - HEAD_BYTES))  # the head decides the profile
    new = old[:at] + random.Random(size).randbytes(size) + old[at:]
    have = set(parts(old, cut(old)))
    fresh = [chunk for chunk in parts(new, cut(new)) if chunk not in have]
    assert 1 <= len(fresh) <= 8


@pytest.mark.parametrize("fmt", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_tree_with_every_mtime_changed_shares_its_contents(fmt: int) -> None:
    """Members are cut from their headers, so a rebuild that touched everything adds little."""
    files = [(name, data) for name, data in tree() if len(name) < 100]
    assert shared(tar(files, mtime=1, fmt=fmt), tar(files, mtime=1_700_000_000, fmt=fmt)) >= 0.8
    if fmt == tarfile.PAX_FORMAT:
        assert shared(tar(files, mtime=1, fmt=fmt), tar(files, mtime=1_700_000_000.25, fmt=fmt)) >= 0.8


def test_a_member_is_found_again_among_other_members() -> None:
    """The same files in another order, with other neighbours, are the same chunks."""
    files = tree()
    assert shared(tar(files), tar([("new.txt", text(9000, 77)), *reversed(files)])) >= 0.8


@pytest.mark.parametrize(
    ("size", "chunks"),
    [(4 * KIB, [4 * KIB]), (5000, [5120]), (64 * KIB, [64 * KIB]), (3000, [])],
)
def test_a_member_up_to_the_average_is_one_chunk(size: int, chunks: list[int]) -> None:
    """From the threshold to the average: its data and padding, whole. Below: with its neighbours."""
    data = tar([("one", text(size, 4)), ("two", text(100 * KIB, 5))], fmt=tarfile.USTAR_FORMAT)
    lengths = cut(data)
    assert lengths[: len(chunks) + 1] == ([512, *chunks] if chunks else [512 + 3072 + 512])


def test_a_run_of_small_members_is_cut_by_content() -> None:
    """No border for megabytes: the run is cut all the same, and within the bounds."""
    lengths = cut(sample("tar-small-files"))
    assert len(lengths) > 10
    assert max(lengths) <= PLAIN.largest


def test_an_unfinished_region_is_not_told_too_early() -> None:
    """What later bytes could still move is held back until they came or never will."""
    zeros, chunker = bytes(PLAIN.largest), Chunker()
    assert chunker.cut(memoryview(zeros)[:-1], final=False) == []
    assert chunker.profile is PLAIN
    assert chunker.cut(memoryview(zeros), final=False) == [PLAIN.largest]
    assert chunker.cut(memoryview(b"end"), final=True) == [3]


def test_the_profile_waits_for_enough_of_the_head() -> None:
    """A short first piece must not decide: the next bytes could make it another profile."""
    chunker, noise = Chunker(), memoryview(random.Random(9).randbytes(HEAD_BYTES))
    assert chunker.cut(noise[:-1], final=False) == []
    assert (chunker.profile, chunker.wants) == (None, HEAD_BYTES)
    assert chunker.cut(noise, final=False) == []
    assert (chunker.profile, chunker.wants) == (PACKED, LONGEST_WANT)


def test_many_streams_may_be_cut_at_once() -> None:
    """The library lets go of the interpreter lock: chunkers in other threads must not disturb each other."""
    names = ["random", "text", "tar", "gzip"] * 4
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(cut, map(sample, names))) == [cut(sample(name)) for name in names]


@repeatable
@given(data=st.binary(max_size=2000), at=st.integers(0, 3 * MIB))
@example(data=b"\xff" * 512, at=0)
def test_a_damaged_tar_is_cut_like_any_bytes(data: bytes, at: int) -> None:
    """Rubbish written over an archive costs sharing; the chunks still cover every byte."""
    archive = sample("tar")
    damaged = archive[:at] + data + archive[at + len(data) :]
    lengths = cut(damaged, [MIB] * 3)
    assert sum(lengths) == len(damaged)
    assert lengths == cut(damaged)
