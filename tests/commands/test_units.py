"""Sizes as people write and read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.units import counted, exact_size, human_duration, human_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("65536", 65536),
        ("64KiB", 65536),
        ("64k", 65536),
        ("64kb", 65536),
        (" 1.5 GiB ", 3 << 29),
        ("2T", 2 << 40),
        ("10B", 10),
    ],
)
def test_a_size_is_read_as_people_write_it(text: str, size: int) -> None:
    """Powers of 1024, whatever the spelling."""
    assert parse_size(text) == size


@pytest.mark.parametrize(("number", "text"), [(0, "0 blobs"), (1, "1 blob"), (2, "2 blobs"), (2303, "2,303 blobs")])
def test_one_of_something_is_no_plural(number: int, text: str) -> None:
    """As people say it."""
    assert counted(number, "blob") == text


@pytest.mark.parametrize("text", ["", "GiB", "-1", "1,5", "1e3", "0x10", "1 GiB GiB", "1i", "1iB", "٣"])
def test_what_is_no_size_is_refused(text: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", 0), ("90", 90), ("90s", 90), ("1.5m", 90), (" 12 H ", 43_200), ("7d", 604_800)]
)
def test_a_time_is_read_as_people_write_it(text: str, seconds: float) -> None:
    """Seconds, or with a unit."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "d", "-1", "1,5h", "1e3", "1 week", "nan", "inf", "٣", "9" * 10])
def test_what_is_no_time_is_refused(text: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(ValueError, match="is not a time"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.9, "59 s"), (60, "1 minute"), (7200, "2 hours"), (604_800, "7 days")]
)
def test_a_time_for_eyes_has_one_unit(seconds: float, text: str) -> None:
    """The largest that fits, rounded down: nothing is promised that is not kept."""
    assert human_duration(seconds) == text


@given(st.integers(min_value=0, max_value=1 << 70))
def test_an_exact_size_reads_back(size: int) -> None:
    """What the help and the documentation show can be typed."""
    assert parse_size(exact_size(size)) == size


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (1536, "1.50 KiB"),
        (10 * 1024, "10.0 KiB"),
        (123 << 20, "123 MiB"),
        ((1 << 30) - 1, "1.00 GiB"),
        (5 << 60, "5.00 EiB"),
    ],
)
def test_a_size_for_eyes_is_short(size: int, text: str) -> None:
    """Three digits and a unit."""
    assert human_size(size) == text
