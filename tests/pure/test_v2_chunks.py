"""Which bytes of an upload a request brings: every spelling that clients have, and no other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.v2.chunks import Chunk, held, parse_chunk


@given(st.integers(0, 10**17), st.integers(0, 10**17))
def test_a_range_is_read_as_it_is_written(start: int, size: int) -> None:
    """Both ends are inclusive, so that nothing ends one before it begins."""
    assert parse_chunk(f"{start}-{start + size - 1}") == Chunk(start, start + size)
    assert Chunk(start, start + size).size == size


@pytest.mark.parametrize("text", ["bytes 3-5", "bytes=3-5", "3-5/6", "3-5/*", "bytes 3-5/600", " 3-5\t"])
def test_old_spellings_mean_the_same(text: str) -> None:
    """A unit and a total are what downloads have; some clients send them."""
    assert parse_chunk(text) == Chunk(3, 6)


@pytest.mark.parametrize(
    "text", ["", "3", "3-", "-5", "5-3", "0--2", "3-5-7", "3 - 5", "x3-5", "3-5/", "3-5/x", "\u0663-\u0665"]
)
def test_what_is_no_range_is_none(text: str) -> None:
    """Never a guess: bytes in the wrong place are worse than a refusal."""
    assert parse_chunk(text) is None


@given(st.text(max_size=40))
def test_any_text_may_be_asked_about(text: str) -> None:
    """None, or bytes in order; never an error, however many digits there are."""
    chunk = parse_chunk(text)
    assert chunk is None or 0 <= chunk.start <= chunk.stop
    assert parse_chunk("9" * 5000 + "-" + "9" * 5000) is None


@given(st.integers(0, 10**18))
def test_one_more_than_the_end_is_where_to_go_on(size: int) -> None:
    """For an upload without a byte as well."""
    assert int(held(size).removeprefix("0-")) + 1 == size
