"""Stored form of a chunk: raw, or one zstd frame where that pays.

Layer: L1. Frames carry zstd's own checksum, so that decoding a damaged one fails instead of yielding wrong bytes.
"""

from __future__ import annotations

import struct
import threading
from typing import TYPE_CHECKING, Any

import zstandard

from cas.errors import Damaged
from cas.extent import Codec

if TYPE_CHECKING:
    from collections.abc import Sequence

_SAMPLE_BYTES = 64 * 1024


class ChunkCodec:
    """Encodes and decodes chunks; contexts are kept per thread, because they are large and not shareable."""

    def __init__(self, level: int, min_saving: float) -> None:
        self._level, self._min_saving = level, min_saving
        self._local = threading.local()

    def encode(self, chunk: memoryview) -> tuple[Codec, bytes | memoryview]:
        """Return the codec and the bytes to store: `chunk` itself unless a frame saves enough."""
        if len(chunk) > _SAMPLE_BYTES and not self._pays(chunk[:_SAMPLE_BYTES]):
            return Codec.RAW, chunk
        frame = self._compressor().compress(chunk)
        if len(frame) <= len(chunk) * (1 - self._min_saving):
            return Codec.ZSTD, frame
        return Codec.RAW, chunk

    def decode(self, frame: bytes | bytearray | memoryview, raw_length: int) -> bytes:
        """Return the raw bytes of a stored zstd frame.

        Raises:
            Damaged: the frame is broken, fails its checksum, or is not `raw_length` bytes of content.
        """
        try:
            raw = self._decompressor().decompress(frame, max_output_size=raw_length)
        except zstandard.ZstdError as error:
            raise Damaged(f"a stored chunk cannot be decoded ({error})") from error
        if len(raw) != raw_length:
            raise Damaged(f"a stored chunk decodes to {len(raw)} bytes instead of {raw_length}")
        return raw

    def decode_all(self, frames: Sequence[memoryview], raw_lengths: Sequence[int]) -> list[memoryview]:
        """Return the raw bytes of each of some stored zstd frames; other threads run meanwhile.

        Raises:
            Damaged: one of the frames is broken, fails its checksum, or is not of its length.
        """
        if len(frames) == 1:
            return [memoryview(self.decode(frames[0], raw_lengths[0]))]
        lengths = struct.pack(f"={len(raw_lengths)}Q", *raw_lengths)
        try:
            found: Any = self._decompressor().multi_decompress_to_buffer(list(frames), decompressed_sizes=lengths)
        except zstandard.ZstdError as error:
            raise Damaged(f"a stored chunk cannot be decoded ({error})") from error
        raw = [memoryview(each) for each in found]
        if [len(each) for each in raw] != list(raw_lengths):
            raise Damaged("stored chunks decode to other lengths than they had")
        return raw

    def _pays(self, sample: memoryview) -> bool:
        return len(self._compressor().compress(sample)) <= len(sample) * (1 - self._min_saving)

    def _compressor(self) -> zstandard.ZstdCompressor:
        try:
            return self._local.compressor  # type: ignore[no-any-return]
        except AttributeError:
            self._local.compressor = zstandard.ZstdCompressor(self._level, write_checksum=True)
            return self._local.compressor  # type: ignore[no-any-return]

    def _decompressor(self) -> zstandard.ZstdDecompressor:
        try:
            return self._local.decompressor  # type: ignore[no-any-return]
        except AttributeError:
            self._local.decompressor = zstandard.ZstdDecompressor()
            return self._local.decompressor  # type: ignore[no-any-return]
