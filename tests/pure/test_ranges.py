"""Range headers: the protocol's table, and slices as a second opinion."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.ranges import UNSATISFIABLE, WHOLE, Part, Unsatisfiable, Whole, parse_range, parse_ranges, parse_specs

HUGE = "9" * 5000


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, WHOLE),
        ("", WHOLE),
        ("bytes", WHOLE),
        ("bytes=", WHOLE),
        ("bytes=-", WHOLE),
        ("bytes=a-b", WHOLE),
        ("bytes=1", WHOLE),
        ("bytes=1-2-3", WHOLE),
        ("bytes=-1-2", WHOLE),
        ("bytes=+1-2", WHOLE),
        ("bytes=1_0-", WHOLE),
        ("bytes=٣-", WHOLE),  # a digit to Python, none to HTTP
        ("items=0-4", WHOLE),
        ("bytes=0-1,3-4", WHOLE),
        ("bytes=0-9", Part(0, 10)),
        ("Bytes = 0-0", Part(0, 1)),
        ("bytes=5-", Part(5, 10)),
        ("bytes=9-", Part(9, 10)),
        ("bytes=4-10", Part(4, 10)),
        ("bytes=4-999", Part(4, 10)),
        (f"bytes=4-{HUGE}", Part(4, 10)),
        ("bytes=0004-0005", Part(4, 6)),
        ("bytes=-3", Part(7, 10)),
        ("bytes=-10", Part(0, 10)),
        (f"bytes=-{HUGE}", Part(0, 10)),
        ("bytes=-0", UNSATISFIABLE),
        ("bytes=10-", UNSATISFIABLE),
        ("bytes=10-10", UNSATISFIABLE),
        (f"bytes={HUGE}-", UNSATISFIABLE),
        ("bytes=5-4", UNSATISFIABLE),
    ],
)
def test_a_range_of_ten_bytes_is_what_the_table_says(
    header: str | None, expected: Whole | Part | Unsatisfiable
) -> None:
    """Anything but one plain range means everything; an end past the last byte is clamped."""
    assert parse_range(header, 10) == expected


def test_the_resume_of_an_old_engine_is_clamped_and_its_clean_end_is_unsatisfiable() -> None:
    """Old engines ask for N-TOTAL, one past the last byte; N == TOTAL must be a 416."""
    assert parse_range("bytes=111-222", 222) == Part(111, 222)
    assert parse_range("bytes=222-222", 222) is UNSATISFIABLE


@pytest.mark.parametrize("header", ["bytes=0-", "bytes=0-0", "bytes=-1"])
def test_nothing_of_an_empty_blob_can_be_asked_for(header: str) -> None:
    """A range of zero bytes has no first byte."""
    assert parse_range(header, 0) is UNSATISFIABLE


def test_an_answer_names_its_part_the_way_rfc_9110_writes_it() -> None:
    """With the unit, and with the last byte's index instead of the end."""
    assert Part(5, 10).content_range(12) == "bytes 5-9/12"
    assert UNSATISFIABLE.content_range(12) == "bytes */12"


def test_a_list_of_ranges_is_read_with_its_gaps() -> None:
    """A missing side is no number."""
    assert parse_specs("bytes=0-1, 5- ,-2") == [(0, 1), (5, None), (None, 2)]


@given(st.integers(0, 50), st.none() | st.integers(0, 60), st.none() | st.integers(0, 60))
def test_a_range_selects_what_a_slice_would(size: int, first: int | None, last: int | None) -> None:
    """Python's slices agree wherever both are defined."""
    data = bytes(range(size))
    found = parse_range(f"bytes={'' if first is None else first}-{'' if last is None else last}", size)
    if first is None and last is None:
        assert found is WHOLE
        return
    if first is None:
        expected = data[-last:] if last else b""
    else:
        expected = data[first:] if last is None else data[first : last + 1]
    assert (data[found.start : found.stop] if isinstance(found, Part) else b"") == expected
    assert isinstance(found, Part) == bool(expected)


@given(st.text())
def test_no_header_is_too_strange_to_be_read(header: str) -> None:
    """Whatever it says, there is an answer, and a part lies inside."""
    found = parse_range(header, 7)
    assert not isinstance(found, Part) or 0 <= found.start < found.stop <= 7


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, WHOLE),
        ("bytes=a", WHOLE),
        ("bytes=2-4", (Part(2, 5),)),
        ("bytes=0-", (Part(0, 10),)),
        ("bytes=0-1,8-", (Part(0, 2), Part(8, 10))),
        ("bytes=8-,0-1,99-", (Part(8, 10), Part(0, 2))),
        ("bytes=5-4,99-", UNSATISFIABLE),
        ("bytes=0-4,5-9", (Part(0, 5), Part(5, 10))),
        ("bytes=0-4,4-9", WHOLE),
        (f"bytes=0-{HUGE},0-0", WHOLE),
    ],
)
def test_several_ranges(header: str | None, expected: object) -> None:
    """In the order asked for, without the empty ones; more than the whole is the whole."""
    assert parse_ranges(header, 10) == expected


@given(st.text(alphabet="bytes=,-0123456789 ", max_size=40), st.integers(0, 100))
def test_one_range_among_several_is_as_one_by_itself(header: str, size: int) -> None:
    """And no number of them is ever longer than the whole."""
    alone, among = parse_range(header, size), parse_ranges(header, size)
    specs = parse_specs(header)
    if specs is not None and len(specs) == 1:
        assert among == ((alone,) if isinstance(alone, Part) else alone)
    if isinstance(among, tuple):
        assert sum(part.stop - part.start for part in among) <= size
