"""Paths are decoded once, and every spelling that somebody might read differently is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.errors import ApiError
from api.paths import decode_path


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"/", "/"),
        (b"/v1/_ping", "/v1/_ping"),
        (b"/v1/repositories/foo%2Dbar/tags", "/v1/repositories/foo-bar/tags"),
        (b"/a%20b", "/a b"),
        (b"/%C3%A9", "/é"),
        (b"/%252e%252e", "/%2e%2e"),
        (b"/a+b", "/a+b"),
        (b"http://other:1/v1/_ping", "/v1/_ping"),
        (b"/...", "/..."),
        (b"/.hidden/x..y", "/.hidden/x..y"),
    ],
)
def test_good_paths(raw: bytes, path: str) -> None:
    """Decoded exactly once."""
    assert decode_path(raw) == path


@pytest.mark.parametrize(
    "raw",
    [
        b"/a%2fb",
        b"/a%2Fb",
        b"/a%5cb",
        b"/a\\b",
        b"/..",
        b"/a/../b",
        b"/a/.",
        b"/./a",
        b"/%2e%2e/a",
        b"/a/%2E",
        b"/%00",
        b"/a%0a",
        b"/a%0d%0aX:1",
        b"/%7f",
        b"/%ff",
        b"/%c3",
        b"/%c0%ae",
        b"/%",
        b"/%4",
        b"/%zz",
        b"/%u0041",
    ],
)
def test_bad_paths(raw: bytes) -> None:
    """Hidden separators, dot segments, control characters, bad escapes, bad UTF-8."""
    with pytest.raises(ApiError) as caught:
        decode_path(raw)
    assert caught.value.status == 400


@given(st.binary(max_size=60))
def test_whatever_passes_is_harmless(tail: bytes) -> None:
    """No dot segment, no control character, no backslash ever comes out."""
    try:
        path = decode_path(b"/" + tail)
    except ApiError:
        return
    assert not {".", ".."} & set(path.split("/"))
    assert all(char.isprintable() or char > "\x7f" for char in path)
    assert "\\" not in path
