"""Which chunk sizes suit a blob, decided once from its first bytes.

Knows magic numbers and what they say about redundancy; knows nothing of how cuts are found or
where chunks go. A wrong choice costs ratio or speed, never bytes.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Final

import zstandard

_KIB: Final = 1024
_MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Profile:
    """Bounds of a chunk in bytes, and whether compressing it is worth a try."""

    name: str
    smallest: int
    average: int
    largest: int
    compress: bool


# The knee of the curve: smaller chunks share little more and cost index rows in proportion.
PLAIN: Final = Profile("plain", 16 * _KIB, 64 * _KIB, 256 * _KIB, compress=True)

# Compressed streams share nothing but their prefix, so few and long chunks: a unit for checking,
# healing and resuming. Not longer, because an upload holds the largest in memory while it looks for a cut (I5).
PACKED: Final = Profile("packed", 256 * _KIB, 512 * _KIB, 1 * _MIB, compress=False)

HEAD_BYTES: Final = 64 * _KIB  # what choose() looks at, at most; more would not change its mind
SAMPLE_LEVEL: Final = 1  # zstd's fastest ordinary level: the sample asks "at all?", not "how much?"
SAMPLE_SAVES: Final = 0.10  # the same bar that a stored chunk has to clear

_TAR_MAGIC: Final = b"ustar"
_TAR_MAGIC_AT: Final = 257

_PACKED_MAGICS: Final = (
    b"\x1f\x8b",  # gzip
    b"\x1f\x9d",  # compress
    b"\x28\xb5\x2f\xfd",  # zstd
    *(bytes([0x50 + n]) + b"\x2a\x4d\x18" for n in range(16)),  # zstd and lz4: skippable frame
    b"\xfd7zXZ\x00",  # xz
    *(b"BZh%d1AY&SY" % level for level in range(1, 10)),  # bzip2
    b"\x04\x22\x4d\x18",  # lz4
    b"\x02\x21\x4c\x18",  # lz4, legacy frame
    b"LZIP\x01",  # lzip
    b"\x89LZO\x00\r\n\x1a\n",  # lzop
    b"PK\x03\x04",  # zip, jar, wheel
    b"PK\x07\x08",  # zip, in parts
    b"7z\xbc\xaf\x27\x1c",  # 7-zip
    b"Rar!\x1a\x07",  # RAR
    b"\x89PNG\r\n\x1a\n",  # PNG
    b"\xff\xd8\xff",  # JPEG
    b"GIF87a",  # GIF
    b"GIF89a",  # GIF
    b"OggS",  # Ogg
    b"fLaC",  # FLAC
    b"wOF2",  # WOFF2
    b"\x1a\x45\xdf\xa3",  # Matroska, WebM
)
_LONGEST_MAGIC: Final = max(map(len, _PACKED_MAGICS))


class _PerThread(threading.local):
    """What each thread has for itself: to make a compressor takes longer than to try with it."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=SAMPLE_LEVEL)


_mine: Final = _PerThread()


def is_tar(head: memoryview) -> bool:
    """Whether a tar begins here: ustar, PAX or GNU. The walk proves the header, this only asks."""
    return head[_TAR_MAGIC_AT : _TAR_MAGIC_AT + len(_TAR_MAGIC)].tobytes() == _TAR_MAGIC


def choose(head: memoryview) -> Profile:
    """The profile for a blob that begins with head; hand in HEAD_BYTES, or the blob if it is shorter.

    What does not shrink is packed, and so is a blob of a few bytes: it has nothing to share or save.
    """
    if is_tar(head):
        return PLAIN
    if head[:_LONGEST_MAGIC].tobytes().startswith(_PACKED_MAGICS):
        return PACKED
    return PLAIN if _compresses(head[:HEAD_BYTES]) else PACKED


def _compresses(sample: memoryview) -> bool:
    """Tells encrypted, random and unknown compressed bytes from all the rest."""
    return len(_mine.compressor.compress(sample)) <= len(sample) * (1 - SAMPLE_SAVES)
