"""Stored forms of chunks: what was encoded comes back, and nothing else ever does (I3, I9)."""

from __future__ import annotations

import random

import pytest

from cas.codec import ChunkCodec
from cas.errors import Damaged
from cas.extent import Codec


@pytest.fixture
def codec() -> ChunkCodec:
    return ChunkCodec(3, 0.1)


def text(size: int) -> bytes:
    return random.Random(size).randbytes(size // 2).hex().encode()


@pytest.mark.parametrize("size", [700, 40_000, 200_000])
def test_a_flipped_bit_is_damage_or_changes_nothing(codec: ChunkCodec, size: int) -> None:
    """Wherever it is: also where it makes the frame claim to hold more than any memory."""
    raw = text(size)
    form, stored = codec.encode(memoryview(raw))
    assert form is Codec.ZSTD
    frame, dice, damaged = bytearray(stored), random.Random(1), 0
    for bit in [*range(200), *(dice.randrange(8 * len(frame)) for _ in range(400))]:
        frame[bit >> 3] ^= 1 << (bit & 7)
        try:
            assert codec.decode(memoryview(frame), size) == raw
        except Damaged:
            damaged += 1
        frame[bit >> 3] ^= 1 << (bit & 7)
    assert damaged > 500


def test_a_frame_is_good_for_its_own_length_alone(codec: ChunkCodec) -> None:
    """The index says how long a chunk is, and a frame of another length is not the one it means."""
    _, frame = codec.encode(memoryview(text(40_000)))
    for wrong in (39_999, 40_001):
        with pytest.raises(Damaged, match=f"40000 bytes instead of {wrong}"):
            codec.decode(frame, wrong)
    with pytest.raises(Damaged):
        codec.decode(memoryview(frame)[:-1], 40_000)
