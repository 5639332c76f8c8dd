"""The bytes of a pack: what was written is read, and nothing else is believed (I2, I4)."""

from __future__ import annotations

import struct

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from cas.digest import Digest
from cas.records import (
    HEADER_SIZE,
    RECORD_SIZE,
    TRAILER_SIZE,
    BlobEntry,
    Body,
    ChunkEntry,
    ChunkRef,
    Header,
    NameChanges,
    NameEdit,
    Role,
    Segment,
    decode_footer,
    decode_header,
    decode_record,
    encode_footer,
    encode_header,
    encode_record,
    footer_span,
    link,
    pack_refs,
    record_length,
    unpack_refs,
)

u32, u64 = st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 64) - 1)
keys = st.binary(min_size=16, max_size=16)
entries = st.builds(ChunkEntry, keys, u32, u32, u32, u32, st.integers(0, 255), u64)
refs = st.lists(st.builds(ChunkRef, keys, u32, u32), max_size=5).map(tuple)
digests = st.one_of(
    st.binary(min_size=32, max_size=32).map(lambda raw: Digest("sha256", raw)),
    st.binary(min_size=64, max_size=64).map(lambda raw: Digest("sha512", raw)),
)
blobs = st.one_of(
    st.builds(BlobEntry, digests, u64, u64, recipe=u64, chain=st.just(b"") | st.binary(min_size=16, max_size=16)),
    st.builds(BlobEntry, digests, u64, u64, inline=st.binary(max_size=50)),
)
edits = st.builds(NameEdit, st.binary(min_size=1, max_size=480), st.none() | st.binary(max_size=100))
bodies = st.builds(
    Body,
    chunks=st.lists(entries, max_size=4),
    segments=st.lists(st.builds(Segment, u64, u64, refs, st.just(b"") | keys), max_size=3),
    blobs=st.lists(blobs, max_size=3),
    names=st.none() | st.builds(NameChanges, u64, u64, st.lists(edits, max_size=3).map(tuple)),
)
markers = st.binary(min_size=16, max_size=16)
headers = st.builds(
    Header, st.sampled_from(Role), u64, st.binary(min_size=16, max_size=16), markers, st.integers(0, (1 << 32) - 1)
)

_MARKER = bytes(range(16))
_BODY = Body(
    chunks=[ChunkEntry(b"k" * 16, 1, 64, 100, 200, 1, 99)],
    segments=[Segment(7, 0, (ChunkRef(b"k" * 16, 1, 200),))],
    blobs=[
        BlobEntry(Digest.of(b"a"), 200, 12345, recipe=7),
        BlobEntry(Digest.of(b"b"), 1, 5, inline=b"b"),
        BlobEntry(Digest.of(b""), 0, 5, inline=b""),
    ],
    names=NameChanges(9, 8, (NameEdit(b"tag\0x", b"record"), NameEdit(b"tag\0y", None), NameEdit(b"tag\0z", b""))),
)
_RECORD = encode_record(_BODY, marker=_MARKER, offset=5000, previous=64)


def _flips(data: bytes) -> list[bytes]:
    return [data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :] for at in range(len(data)) for bit in range(8)]


class TestRecords:
    """A commit record."""

    @given(body=bodies, marker=markers, offset=u64, previous=u64)
    def test_every_section_comes_back_equal(self, body: Body, marker: bytes, offset: int, previous: int) -> None:
        """Any mixture of chunks, segments, blobs and names; bytes behind the record do not matter."""
        data = encode_record(body, marker=marker, offset=offset, previous=previous)
        record = decode_record(data + b"behind", offset, marker)
        assert record is not None
        assert (record.offset, record.end, record.previous) == (offset, offset + len(data), previous)
        assert record.body == body
        assert record_length(data[:RECORD_SIZE]) == len(data)

    def test_a_record_with_any_bit_flipped_is_not_believed(self) -> None:
        """Every single bit of it."""
        assert decode_record(_RECORD, 5000, _MARKER) is not None
        assert [decode_record(data, 5000, _MARKER) for data in _flips(_RECORD)] == [None] * (8 * len(_RECORD))

    def test_a_record_torn_at_any_length_is_not_believed(self) -> None:
        """Cut off there, or followed by zeros as after a lost block."""
        for length in range(len(_RECORD)):
            assert decode_record(_RECORD[:length], 5000, _MARKER) is None
            zeroed = _RECORD[:length] + bytes(len(_RECORD) - length)
            assert zeroed == _RECORD or decode_record(zeroed, 5000, _MARKER) is None

    @given(offset=u64.filter(lambda offset: offset != 5000))
    def test_a_record_at_another_offset_is_not_believed(self, offset: int) -> None:
        """A stale copy elsewhere, or one that a client pushed as content."""
        assert decode_record(_RECORD, offset, _MARKER) is None
        moved = bytearray(_RECORD)
        moved[16:24] = offset.to_bytes(8, "big")
        assert decode_record(bytes(moved), offset, _MARKER) is None

    @given(marker=markers.filter(lambda marker: marker != _MARKER))
    def test_a_record_of_another_pack_is_not_believed(self, marker: bytes) -> None:
        """Nor if somebody writes this pack's marker over the other's."""
        assert decode_record(_RECORD, 5000, marker) is None
        assert decode_record(marker + _RECORD[16:], 5000, marker) is None

    @given(data=st.binary(max_size=200))
    def test_no_bytes_make_the_reader_raise(self, data: bytes) -> None:
        """Noise is no record, whatever it says."""
        assert decode_record(data, 0, _MARKER) is None
        assert decode_record(_MARKER + bytes(8) + data, 0, _MARKER) is None

    @given(refs=refs)
    def test_a_chunk_list_comes_back_equal(self, refs: tuple[ChunkRef, ...]) -> None:
        """The form shared by record and index."""
        assert unpack_refs(pack_refs(refs)) == refs

    @given(refs=refs, other=refs, chain=st.just(b"") | keys)
    def test_a_chain_tells_every_list_and_what_came_before_it_apart(
        self, refs: tuple[ChunkRef, ...], other: tuple[ChunkRef, ...], chain: bytes
    ) -> None:
        """Another list, or the same one after something else, has another chain."""
        assert link(chain, refs) == link(chain, tuple(refs))
        assert (link(chain, refs) == link(chain, other)) == (refs == other)
        assert link(link(chain, refs), refs) != link(chain, refs)


class TestHeaders:
    """The first bytes of a pack."""

    @given(header=headers)
    def test_a_header_comes_back_equal(self, header: Header) -> None:
        """Round trip."""
        data = encode_header(header)
        assert len(data) == HEADER_SIZE
        assert decode_header(data + b"behind") == header

    def test_a_header_torn_or_with_any_bit_flipped_is_not_believed(self) -> None:
        """Every bit, every length."""
        data = encode_header(Header(Role.DATA, 1, bytes(16), _MARKER, 12345))
        assert all(decode_header(flipped) is None for flipped in _flips(data))
        assert all(decode_header(data[:length]) is None for length in range(HEADER_SIZE))


class TestFooters:
    """The last bytes of a sealed pack."""

    @given(offsets=st.lists(u64, max_size=20), at=u64, marker=markers)
    def test_a_footer_comes_back_equal(self, offsets: list[int], at: int, marker: bytes) -> None:
        """And tells from its trailer alone where it begins."""
        data = encode_footer(offsets, at=at, marker=marker)
        assert footer_span(data[-TRAILER_SIZE:]) == (at, len(data))
        assert decode_footer(data, marker) == offsets

    def test_a_footer_with_any_bit_flipped_is_not_believed(self) -> None:
        """Either it no longer looks like one, or its checksum or its place says no."""
        data = encode_footer([64, 5000, 90_000], at=100_000, marker=_MARKER)
        for flipped in _flips(data):
            span = footer_span(flipped[-TRAILER_SIZE:])
            assert span != (100_000, len(data)) or decode_footer(flipped, _MARKER) is None

    def test_a_footer_made_without_the_marker_is_not_believed(self) -> None:
        """Clients never see a pack's marker, so no pushed content at a torn end can hide the records before it."""
        assert decode_footer(encode_footer([64], at=900, marker=bytes(16)), _MARKER) is None
        partial = struct.pack(">QIQ8s", 900, 0, 0, b"CASSEAL\0")
        forged = struct.pack(">QIQ8s", 900, 0, xxhash.xxh3_64_intdigest(partial), b"CASSEAL\0")
        assert footer_span(forged) == (900, TRAILER_SIZE)
        assert decode_footer(forged, _MARKER) is None

    @pytest.mark.parametrize("size", [0, 1, TRAILER_SIZE - 1, TRAILER_SIZE + 1])
    def test_what_is_too_short_or_too_long_is_no_trailer(self, size: int) -> None:
        """Only a trailer of exactly its size is looked at."""
        data = encode_footer([1, 2, 3], at=0, marker=_MARKER)
        assert footer_span(data[-size:] if size else b"") is None
