"""JSON keeps its owner's spelling, but for blanks and five characters."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.bridge import spelling

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), JSON, max_size=6), st.sampled_from([None, 1, "\t"]), st.booleans())
def test_members_put_together_again_mean_the_same(value: dict[str, Any], indent: int | None, ascii_only: bool) -> None:
    """Whatever blanks and escapes there were; no blank is left between tokens."""
    spelled = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    found = spelling.members(spelled)
    assert {name: json.loads(text) for name, text in found.items()} == value
    written = spelling.write(found)
    assert json.loads(written) == value
    assert not {b"<", b">", b"&"} & {bytes([byte]) for byte in written}
    assert spelling.compact(written.decode()) == written.decode()


@pytest.mark.parametrize(
    ("spelled", "compact"),
    [
        ('{ "a" : 1.50e+3 , "b":[ 1 , 2 ] }', '{"a":1.50e+3,"b":[1,2]}'),
        ('"a \\" b  <"', '"a \\" b  \\u003c"'),
        ('"\\u00e9 é \\/"', '"\\u00e9 é \\/"'),
        ('"\u2028\u2029>&"', '"\\u2028\\u2029\\u003e\\u0026"'),
        ('[\n\t"\\\\" ,\r\n"x"]', '["\\\\","x"]'),
    ],
)
def test_values_keep_their_spelling(spelled: str, compact: str) -> None:
    """Numbers, escapes, blanks within texts."""
    assert spelling.compact(spelled) == compact


def test_of_members_called_the_same_the_last_one_counts() -> None:
    """As clients read them."""
    assert spelling.members('{"a": 1, "b": 2, "\\u0061": 3}') == {"a": "3", "b": "2"}


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a":NaN}', '{"a":1}}', "\ufeff{}", '{"a" 1}', "null", "{'a': 1}"])
def test_what_is_no_object_is_refused(text: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(ValueError, match=r".+"):
        spelling.members(text)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("2020-01-02T03:04:05Z", "2020-01-02T03:04:05Z"),
        ("2020-01-02T03:04:05.120000000Z", "2020-01-02T03:04:05.12Z"),
        ("2020-01-02T03:04:05.000Z", "2020-01-02T03:04:05Z"),
        ("2020-01-02T03:04:05.1234567891Z", "2020-01-02T03:04:05.123456789Z"),
        ("2020-01-02T03:04:05+02:00", "2020-01-02T03:04:05+02:00"),
        ("2020-01-02T03:04:05+00:00", "2020-01-02T03:04:05Z"),
        ("2020-13-02T03:04:05Z", None),
        ("2020-01-02T25:04:05Z", None),
        ("2020-01-02 03:04:05Z", None),
        ("yesterday", None),
        (None, None),
        (5, None),
    ],
)
def test_times_have_no_more_digits_than_they_need(text: object, written: str | None) -> None:
    """And are times."""
    assert spelling.moment(text) == written
