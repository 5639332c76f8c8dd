"""The profile follows from the first bytes: archives plain, compressed and encrypted streams packed."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
import tarfile
import zipfile
from io import BytesIO

import pytest
import zstandard

from cas.profile import HEAD_BYTES, PACKED, PLAIN, Profile, choose, is_tar
from tests.pure.chunker_samples import tar, text


def zipped(data: bytes) -> bytes:
    """A zip with one member."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("member", data)
    return buffer.getvalue()


NOISE = random.Random(1).randbytes(HEAD_BYTES)
TEXT = text(2 * HEAD_BYTES, 1)
# The magics are followed by text, so that it is they which decide and not the sample.
HEADS: dict[str, tuple[bytes, Profile]] = {
    "gzip": (gzip.compress(TEXT), PACKED),
    "zstd": (zstandard.compress(TEXT), PACKED),
    "zstd, skippable frame first": (b"\x5a\x2a\x4d\x18\x04\0\0\0abcd" + TEXT, PACKED),
    "xz": (lzma.compress(TEXT), PACKED),
    "bzip2": (bz2.compress(TEXT), PACKED),
    "lz4": (b"\x04\x22\x4d\x18" + TEXT, PACKED),
    "zip": (zipped(TEXT), PACKED),
    "7z": (b"7z\xbc\xaf\x27\x1c" + TEXT, PACKED),
    "png": (b"\x89PNG\r\n\x1a\n" + TEXT, PACKED),
    "jpeg": (b"\xff\xd8\xff\xe0" + TEXT, PACKED),
    "noise": (NOISE, PACKED),
    "text": (TEXT, PLAIN),
    "text that speaks of bzip2": (b"BZh9 is how it starts. " + TEXT, PLAIN),
    "zeros": (bytes(HEAD_BYTES), PLAIN),
    "elf": (b"\x7fELF" + TEXT, PLAIN),
    "tar of noise": (tar([("noise", NOISE)]), PLAIN),
    "noise, then text": (NOISE + TEXT, PACKED),
    "nearly all noise": (NOISE[: HEAD_BYTES * 95 // 100] + bytes(HEAD_BYTES * 5 // 100), PACKED),
    "too short to shrink": (b"hello", PACKED),
    "nothing": (b"", PACKED),
}


@pytest.mark.parametrize("name", HEADS)
def test_the_first_bytes_choose_the_profile(name: str) -> None:
    """Redundant streams get short chunks and a try at compression, the others neither."""
    head, profile = HEADS[name]
    assert choose(memoryview(head)[:HEAD_BYTES]) is profile


def test_bytes_past_the_head_do_not_count() -> None:
    """The chunker hands in a head, others a whole blob: both must come to the same profile."""
    for head, profile in HEADS.values():
        assert choose(memoryview(head)) is profile


@pytest.mark.parametrize("fmt", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_dialect_of_tar_is_known(fmt: int) -> None:
    """Whatever wrote the layer, it is seen to be an archive."""
    assert is_tar(memoryview(tar([("a", b"b")], fmt=fmt)))
    assert not is_tar(memoryview(tar([("a", b"b")], fmt=fmt))[:260])
    assert not is_tar(memoryview(TEXT))


@pytest.mark.parametrize("profile", [PLAIN, PACKED])
def test_the_bounds_of_a_profile_are_in_order(profile: Profile) -> None:
    """The library refuses other bounds, and only on the first push."""
    assert 0 < profile.smallest < profile.average < profile.largest
