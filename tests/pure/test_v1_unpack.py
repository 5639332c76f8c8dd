"""Layers are unpacked by their first bytes, in bounded pieces, and honestly when they are broken."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.v1.unpack import PIECE_BYTES, TooMuch, Unpacked, Unreadable, unpack

Pack = Callable[[bytes], bytes]
PACKERS: list[Pack] = [gzip.compress, bz2.compress, lzma.compress]


def split(data: bytes, block: int) -> Iterator[bytes]:
    return (data[at : at + block] for at in range(0, len(data), block))


@given(st.sampled_from([*PACKERS, bytes]), st.binary(max_size=5000), st.integers(1, 700))
def test_every_format_comes_out_as_it_went_in(pack: Pack, data: bytes, block: int) -> None:
    """In any split, down to single bytes; anything unknown is plain."""
    if pack is bytes and data.startswith((b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\0")):
        return
    assert b"".join(unpack(split(pack(data), block))) == data


@pytest.mark.parametrize("pack", PACKERS, ids=["gzip", "bzip2", "xz"])
def test_several_members_are_one_stream(pack: Pack) -> None:
    """Parallel packers write many; a member may begin at any split."""
    packed = pack(b"one ") + pack(b"two ") + pack(b"three")
    for block in (1, 7, 30, 1 << 20):
        assert b"".join(unpack(split(packed, block))) == b"one two three"


@pytest.mark.parametrize("pack", PACKERS, ids=["gzip", "bzip2", "xz"])
def test_what_follows_the_last_member_is_ignored(pack: Pack) -> None:
    """Padding after the end is common on tapes and in old tools."""
    assert b"".join(unpack([pack(b"data") + bytes(100)])) == b"data"


@pytest.mark.parametrize("pack", PACKERS, ids=["gzip", "bzip2", "xz"])
def test_a_stream_that_ends_too_early_is_unreadable(pack: Pack) -> None:
    """Not silently short."""
    packed = pack(b"some data to be cut off " * 100)
    with pytest.raises(Unreadable):
        list(unpack([packed[:-9]]))


@pytest.mark.parametrize("pack", PACKERS, ids=["gzip", "bzip2", "xz"])
def test_a_damaged_stream_is_unreadable(pack: Pack) -> None:
    """Whichever library finds out."""
    packed = bytearray(pack(bytes(range(256)) * 100))
    packed[len(packed) // 2] ^= 0xFF
    packed[len(packed) // 2 + 1] ^= 0xFF
    with pytest.raises(Unreadable):
        list(unpack([bytes(packed)]))


@pytest.mark.parametrize("pack", PACKERS, ids=["gzip", "bzip2", "xz"])
def test_a_bomb_comes_in_small_pieces_and_stops_at_the_limit(pack: Pack) -> None:
    """64 MiB of zeros in a few kilobytes: never more than a piece in memory, and no further than allowed."""
    packed = pack(bytes(64 << 20))
    assert len(packed) < 100_000
    assert max(map(len, unpack([packed]))) <= PIECE_BYTES
    source = Unpacked(unpack([packed]), 1 << 20)
    with pytest.raises(TooMuch):
        list(iter(lambda: source.some(1 << 16), b""))


def test_reads_are_exact_until_the_end() -> None:
    """Pieces of any size are cut and joined to what is asked for."""
    source = Unpacked([b"abc", b"", b"defg", b"h"], 100)
    assert [source.exactly(2), source.exactly(4), source.some(10), source.exactly(5), source.some(1)] == [
        b"ab",
        b"cdef",
        b"g",
        b"h",
        b"",
    ]


def test_nothing_unpacks_to_nothing() -> None:
    """Neither an empty layer nor the gzip of nothing is an error."""
    assert list(unpack([])) == []
    assert list(unpack([gzip.compress(b"")])) == []
