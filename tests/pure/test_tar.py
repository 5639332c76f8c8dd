"""The header walker against the standard library's reader, and against archives that lie."""

from __future__ import annotations

import random
import tarfile
from io import BytesIO
from typing import Literal

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from cas.tar import BLOCK, MEMBER_BYTES, NOWHERE, PAX_BYTES, TarWalk, read_header
from tests.pure.chunker_samples import cut, sample, text

GIB = 1024**3
FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
repeatable = settings(derandomize=True, deadline=None, max_examples=100)


def padded(size: int) -> int:
    """Rounded up to whole blocks."""
    return (size + BLOCK - 1) // BLOCK * BLOCK


def header(kind: bytes = b"0", size: bytes = b"00000000000\0") -> bytes:
    """A block with these fields and a good checksum."""
    block = bytearray(BLOCK)
    block[:5], block[257:265] = b"a.txt", b"ustar\x0000"
    block[124:136], block[148:156], block[156:157] = size.ljust(12, b"\0"), b" " * 8, kind
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def octal(size: int) -> bytes:
    """A size as nearly every archive writes it."""
    return b"%011o\0" % size


def pax(records: bytes) -> bytes:
    """A PAX header for the next member."""
    return header(b"x", octal(len(records))) + records.ljust(padded(len(records)), b"\0")


def walk(archive: bytes) -> list[int]:
    """All borders of an archive that is there as a whole."""
    return TarWalk().borders(memoryview(archive), 0)


def expected(archive: bytes) -> list[int]:
    """The same by the standard library."""
    borders = list[int]()
    with tarfile.open(fileobj=BytesIO(archive)) as reader:
        for member in reader:
            if member.isfile() and member.size > MEMBER_BYTES - BLOCK:
                borders += (member.offset_data, member.offset_data + padded(member.size))
    return borders


members = st.tuples(
    st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=30).filter(
        lambda name: name not in {".", ".."}
    ),
    st.integers(1, 12),  # how often the name repeats: long ones need extra headers
    st.sampled_from([0, 1, 511, 512, 3584, 3585, 4095, 4096, 4097, 9000, 70000]),
    st.sampled_from([tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE]),
    st.sampled_from([0, 12, 1.5]),
)


@repeatable
@given(entries=st.lists(members, max_size=8), fmt=st.sampled_from(FORMATS[1:]))
def test_the_walk_sees_the_members_the_standard_library_sees(
    entries: list[tuple[str, int, int, bytes, float]], fmt: int
) -> None:
    """An independent reader agrees about where every larger member begins and ends."""
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=fmt) as archive:
        for name, repeats, size, kind, mtime in entries:
            path = "/".join([name] * repeats)
            # The library takes a file for a directory if what its header holds of a long name ends in a slash.
            assume(kind != tarfile.AREGTYPE or "/" not in (path[99:100], path.encode()[99:100].decode("latin-1")))
            member = tarfile.TarInfo(path)
            member.type, member.mtime, member.linkname = kind, mtime, name * repeats
            member.size = size if member.isfile() else 0
            archive.addfile(member, BytesIO(text(size, size)))
    assert walk(buffer.getvalue()) == expected(buffer.getvalue())


@pytest.mark.parametrize("name", ["tar", "tar-pax", "tar-gnu", "tar-small-files"])
@pytest.mark.parametrize("step", [1000, 100_000])
def test_the_walk_goes_on_where_the_last_window_ended(name: str, step: int) -> None:
    """Borders do not depend on the windows, if each begins no later than the next header."""
    archive, walker, borders = sample(name), TarWalk(), list[int]()
    for end in range(0, len(archive) + step, step):
        start = min(walker.next_header, end)
        borders += walker.borders(memoryview(archive)[start:end], start)
    assert borders == walk(archive)
    assert walker.next_header == NOWHERE


@pytest.mark.parametrize("fmt", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_member_past_eight_gibibytes_is_measured_right(fmt: Literal[1, 2]) -> None:
    """Eleven octal digits are not enough: GNU writes base 256, PAX a record of its own."""
    member = tarfile.TarInfo("huge")
    member.size = 9 * GIB + 1
    head = member.tobuf(fmt)
    assert walk(head) == [len(head), len(head) + padded(9 * GIB + 1)]


def test_a_size_record_counts_for_the_next_member_only() -> None:
    """It belongs to one member: the one after has its own size again."""
    archive = pax(b"14 size=8192\n") + header(size=octal(0)) + bytes(8192) + header(size=octal(5000))
    assert walk(archive) == [1536, 9728, 10240, 15360]


def test_a_size_record_is_waited_for() -> None:
    """A window that ends within a PAX header tells nothing of the member yet."""
    archive = pax(b"14 size=8192\n") + header(size=octal(0))
    walker = TarWalk()
    assert walker.borders(memoryview(archive)[:520], 0) == []
    assert walker.next_header == 0
    assert walker.borders(memoryview(archive), 0) == [1536, 9728]


def test_a_pax_header_too_long_to_read_is_stepped_over() -> None:
    """Its size record is missed, its length is not."""
    records = b"%d comment=" % (PAX_BYTES + 1)
    archive = pax(records.ljust(PAX_BYTES, b"c") + b"\n") + header(size=octal(5000))
    assert walk(archive) == [len(archive), len(archive) + 5120]


@pytest.mark.parametrize("kind", [b"1", b"2", b"3", b"4", b"5", b"6"])
def test_members_without_data_have_none_whatever_their_size_says(kind: bytes) -> None:
    """Links, devices, directories and fifos: the next header follows at once."""
    assert walk(header(kind, octal(1 << 20)) + header(size=octal(5000))) == [1024, 6144]


@pytest.mark.parametrize("kind", [b"0", b"\0", b"7", b"V", b"S", b"?"])
def test_members_of_any_other_kind_have_data(kind: bytes) -> None:
    """An unknown type is a file, as the standards say."""
    assert walk(header(kind, octal(5000))) == [512, 5632]


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
def test_headers_about_the_next_member_are_no_members(kind: bytes) -> None:
    """However long, they stay in the run with the header that they speak of."""
    assert walk(header(kind, octal(8000)) + bytes(8192) + header(size=octal(5000))) == [9216, 14336]


@pytest.mark.parametrize(
    "block",
    [
        bytes(BLOCK),
        b"\xff" * BLOCK,
        header()[:-1] + b"x",
        header(size=b"-0000000777\0"),
        header(size=b"\xff" * 12),
        header(size=b"99999999999\0"),
        header(size=b"12345 67890\0"),
        header()[:148] + b"zzzzzz\0 " + header()[156:],
    ],
    ids=["zeros", "ones", "checksum", "negative", "negative base 256", "decimal", "space", "no checksum"],
)
def test_the_walk_stops_for_good_at_what_is_no_header(block: bytes) -> None:
    """One doubt ends it, even if something like a header follows."""
    walker = TarWalk()
    assert walker.borders(memoryview(block + header(size=octal(5000))), 0) == []
    assert walker.next_header == NOWHERE
    assert walker.borders(memoryview(header(size=octal(5000))), 1024) == []


def test_a_block_that_is_too_short_is_no_header() -> None:
    """The end of a stream is not read past."""
    assert read_header(header()[:511]) is None
    assert read_header(b"") is None


sizes = st.one_of(
    st.binary(min_size=12, max_size=12),
    st.integers(0, 8**11 - 1).map(octal),
    st.integers(0, 2**88 - 1).map(lambda size: b"\x80" + size.to_bytes(11, "big")),
    st.sampled_from([b"\xff" * 12, b"-1", b"", b" " * 12, b"0o17", b"1_0", b"77777777777\0", octal(9000)]),
)
hostile = st.lists(
    st.one_of(
        st.builds(header, st.binary(min_size=1, max_size=1), sizes),
        st.builds(header, st.sampled_from([b"0", b"x", b"L", b"g"]), st.integers(0, 20000).map(octal)),
        st.builds(pax, st.integers(0, 10**21).map(lambda size: b"30 size=%d\n" % size)),
        st.integers(0, 300_000).map(bytes),
        st.integers(0, 300_000).map(lambda size: random.Random(size).randbytes(size)),
    ),
    min_size=1,
    max_size=12,
).map(lambda pieces: header() + b"".join(pieces))


@repeatable
@given(archive=hostile, piece=st.sampled_from([1000, 66_000, 1 << 20]))
@example(archive=header(size=b"\x80" + b"\xff" * 11) + bytes(400_000), piece=66_000)
@example(archive=header(b"x", octal(0)) * 3000, piece=1000)
def test_an_archive_that_lies_costs_no_byte_and_no_crash(archive: bytes, piece: int) -> None:
    """Sizes of any kind, cut off anywhere: borders rise, the chunks cover the stream and agree."""
    borders = walk(archive)
    assert borders == sorted(set(borders))
    lengths = cut(archive, [piece] * (len(archive) // piece))
    assert sum(lengths) == len(archive)
    assert min(lengths) > 0
    assert lengths == cut(archive)
