"""Extents against a model so naive that it cannot be wrong: every byte with its own address."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from cas.extent import Codec, Extent, coalesce, overlap

Byte = tuple[int, int] | tuple[Extent, int]


def _bytes(extent: Extent, first: int, last: int) -> list[Byte]:
    if extent.codec is Codec.RAW:
        return [(extent.pack, extent.offset + at) for at in range(first, last)]
    return [(extent, at) for at in range(first, last)]


def _all(extents: list[Extent]) -> list[Byte]:
    return [byte for extent in extents for byte in _bytes(extent, 0, extent.raw)]


@st.composite
def rows(draw: st.DrawFn) -> list[Extent]:
    """Extents that often, not always, continue each other."""
    found: list[Extent] = []
    at = {1: 0, 2: 0}
    for _ in range(draw(st.integers(0, 12))):
        pack, size = draw(st.sampled_from([1, 2])), draw(st.integers(1, 9))
        at[pack] += draw(st.sampled_from([0, 0, 0, 5]))
        codec = draw(st.sampled_from([Codec.RAW, Codec.RAW, Codec.ZSTD]))
        raw = size if codec is Codec.RAW else draw(st.integers(1, 20))
        found.append(Extent(pack, at[pack], size, raw, codec))
        at[pack] += size
    return found


@given(extents=rows())
def test_coalescing_keeps_every_byte_in_its_place(extents: list[Extent]) -> None:
    """The same bytes in the same order, frames untouched, and nothing left that could still be joined."""
    joined = coalesce(extents)
    assert _all(joined) == _all(extents)
    assert [e for e in joined if e.codec is Codec.ZSTD] == [e for e in extents if e.codec is Codec.ZSTD]
    for one, two in itertools.pairwise(joined):
        raw = one.codec is two.codec is Codec.RAW
        assert not (raw and one.pack == two.pack and one.offset + one.stored == two.offset)
    assert coalesce(joined) == joined


@given(extents=rows(), start=st.integers(0, 120), stop=st.integers(0, 120))
def test_an_overlap_is_exactly_the_range(extents: list[Extent], start: int, stop: int) -> None:
    """Every byte of the range once, none outside, no empty piece; past the end is nothing."""
    pieces = list(overlap(extents, start, stop))
    assert [byte for extent, first, last in pieces for byte in _bytes(extent, first, last)] == _all(extents)[start:stop]
    assert all(0 <= first < last <= extent.raw for extent, first, last in pieces)


def test_a_joined_extent_never_outgrows_its_field() -> None:
    """Stored lengths have 32 bits on disk."""
    half = 1 << 31
    extents = [Extent(1, n * half, half, half, Codec.RAW) for n in range(4)]
    joined = coalesce(extents)
    assert len(joined) > 1
    assert all(extent.stored < 1 << 32 for extent in joined)
