"""A digest is parsed once, at the border, and refuses whatever is none."""

from __future__ import annotations

import contextlib
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.digest import LENGTHS, Digest
from cas.errors import InvalidDigest

digests = st.sampled_from(sorted(LENGTHS)).flatmap(
    lambda name: st.binary(min_size=LENGTHS[name], max_size=LENGTHS[name]).map(lambda raw: Digest(name, raw))
)
_HEX = "ab" * 32


@given(digest=digests)
def test_text_and_disk_form_come_back_as_the_same_digest(digest: Digest) -> None:
    """Round trips of both forms."""
    assert Digest.parse(str(digest)) == digest
    assert Digest.unpack(digest.pack()) == digest
    assert str(digest) == f"{digest.algorithm}:{digest.hex}"


@given(data=st.binary(max_size=100))
def test_a_digest_is_the_hash_of_its_bytes(data: bytes) -> None:
    """By `of`, and by a hasher of its algorithm."""
    assert Digest.of(data).hex == hashlib.sha256(data).hexdigest()
    hasher = Digest("sha512", bytes(64)).hasher()
    hasher.update(data)
    assert hasher.digest() == hashlib.sha512(data).digest()


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "sha256",
        "sha256:",
        f":{_HEX}",
        _HEX,
        f"sha256:{_HEX[:-1]}",
        f"sha256:{_HEX[:-2]}",
        f"sha256:{_HEX}ab",
        f"sha256:{_HEX.upper()}",
        f"SHA256:{_HEX}",
        f"sha256:{_HEX}\n",
        f" sha256:{_HEX}",
        f"sha256:{_HEX[:-1]}g",
        f"sha256:{_HEX[:-1]}٣",
        f"sha512:{_HEX}",
        f"md5:{_HEX[:32]}",
        f"sha256+x:{_HEX}",
        f"sha256:{_HEX}:{_HEX}",
        "sha256:../../etc/passwd",
        "sha256:" + "a" * 1_000_000,
    ],
)
def test_what_is_no_digest_is_refused(text: str) -> None:
    """Wrong lengths, cases, algorithms, digits and tricks; the message does not repeat a megabyte."""
    with pytest.raises(InvalidDigest) as caught:
        Digest.parse(text)
    assert len(str(caught.value)) < 500


@given(text=st.text(max_size=80))
def test_no_text_makes_the_parser_raise_anything_else(text: str) -> None:
    """Either a digest that prints as this text, or InvalidDigest."""
    with contextlib.suppress(InvalidDigest):
        assert str(Digest.parse(text)) == text


@pytest.mark.parametrize(
    "data", [b"", b"\x00", b"\x02" + bytes(32), b"\xff" + bytes(32), bytes(34), b"\x01" + bytes(32)]
)
def test_a_disk_form_nobody_wrote_is_refused(data: bytes) -> None:
    """Unknown codes and wrong lengths."""
    with pytest.raises(InvalidDigest):
        Digest.unpack(data)


def test_digests_can_be_sorted_hashed_and_not_changed() -> None:
    """They are keys."""
    one, two = Digest.of(b"1"), Digest.of(b"2")
    assert sorted([one, two]) == sorted([two, one])
    assert {one, Digest.of(b"1")} == {one}
    with pytest.raises(AttributeError):
        one.raw = b""  # type: ignore[misc]
