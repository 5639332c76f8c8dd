"""Names and their records, as keys and bytes."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.digest import Digest
from cas.errors import InvalidName
from cas.names import MAX_HOLDS, MAX_LOGICAL_BYTES, MAX_NAME_BYTES, Name, Record

kinds = st.text("abcz019.-", min_size=1, max_size=32)
paths = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=100)
_digests = st.one_of(
    st.binary(min_size=32, max_size=32).map(lambda raw: Digest("sha256", raw)),
    st.binary(min_size=64, max_size=64).map(lambda raw: Digest("sha512", raw)),
)


@given(kind=kinds, path=paths)
def test_a_key_comes_back_as_the_same_name(kind: str, path: str) -> None:
    """Round trip, whatever the alphabet."""
    name = Name(kind, path)
    assert Name.from_key(name.key()) == name


@given(one=st.tuples(kinds, paths), two=st.tuples(kinds, paths))
def test_keys_of_one_kind_are_in_order_of_their_paths_bytes(one: tuple[str, str], two: tuple[str, str]) -> None:
    """And no two names share a key."""
    first, second = Name(*one), Name(*two)
    assert (first.key() == second.key()) == (first == second)
    if first.kind == second.kind:
        assert (first.key() < second.key()) == (first.path.encode() < second.path.encode())


@given(
    value=st.binary(max_size=200),
    holds=st.lists(_digests, max_size=8).map(tuple),
    logical=st.integers(0, MAX_LOGICAL_BYTES - 1),
)
def test_a_record_comes_back_equal(value: bytes, holds: tuple[Digest, ...], logical: int) -> None:
    """Round trip, holds of both algorithms mixed."""
    record = Record(value, holds, logical)
    assert Record.decode(record.encode()) == record


@given(text=st.text(max_size=20), path=st.text(max_size=20))
def test_no_text_makes_a_key_raise_anything_else(text: str, path: str) -> None:
    """A key that comes back, or InvalidName."""
    with contextlib.suppress(InvalidName):
        assert Name.from_key(Name(text, path).key()) == Name(text, path)


@pytest.mark.parametrize("kind", ["", "Tag", "tag ", "tag\n", "t\0", "ä", "t/x", "a" * 33])
def test_a_bad_kind_is_refused(kind: str) -> None:
    """Kinds are ours, so their grammar is narrow."""
    with pytest.raises(InvalidName, match="is not a kind of name"):
        Name(kind, "x").key()


@pytest.mark.parametrize("path", ["a\0b", "\0", "\udc80", "x" * (MAX_NAME_BYTES - 3), "é" * (MAX_NAME_BYTES // 2 - 1)])
def test_a_bad_path_is_refused(path: str) -> None:
    """NUL, lone surrogates, and too long in bytes, not in characters."""
    with pytest.raises(InvalidName):
        Name("tag", path).key()


def test_limits_are_what_they_say() -> None:
    """The longest path, the most holds and the largest size are taken; one more of each is not."""
    assert len(Name("tag", "x" * (MAX_NAME_BYTES - 4)).key()) == MAX_NAME_BYTES
    many = tuple(Digest.of(b"%d" % n) for n in range(MAX_HOLDS + 1))
    assert Record.decode(Record(b"", many[:-1]).encode()).holds == many[:-1]
    for record in (Record(b"", many), Record(b"", (), MAX_LOGICAL_BYTES), Record(b"", (), -1)):
        with pytest.raises(InvalidName):
            record.encode()
