"""Stored form of a chunk: raw, or one zstd frame where that pays.

Layer: L1. Frames carry zstd's own checksum, so that decoding a damaged one fails instead of yielding wrong bytes.
"""

from __future__ import annotations

import threading

import zstandard

from cas.errors import Damaged
from cas.extent import Codec

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
            length = zstandard.frame_content_size(frame)  # which is what decompress() takes memory for, whatever it is
            if length != raw_length:
                raise Damaged(f"a stored chunk decodes to {length} bytes instead of {raw_length}")
            return self._decompressor().decompress(frame)
        except zstandard.ZstdError as error:
            raise Damaged(f"a stored chunk cannot be decoded ({error})") from error

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
