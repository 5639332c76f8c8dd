"""Chunked bodies past h11, with h11 as the second opinion."""

from __future__ import annotations

import asyncio
import itertools

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from api.config import KIB, MIB
from api.intake import Chunked, Pieces, split_head

HEAD = b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def as_h11_reads_it(stream: bytes) -> bytes:
    """Read the body with h11 alone."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(HEAD + stream)
    body = b""
    while type(event := connection.next_event()) is not h11.EndOfMessage:
        assert event is not h11.NEED_DATA, "the body did not end"
        if isinstance(event, h11.Data):
            body += event.data
    return body


def as_we_read_it(pieces: list[bytes]) -> bytes:
    """Read the body with our decoder until it gives up, then with h11."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(HEAD)
    assert isinstance(connection.next_event(), h11.Request)
    chunked: Chunked | None = Chunked()
    body = b""
    for piece in pieces:
        rest = piece
        if chunked is not None:
            found, rest = chunked.take(piece)
            body += found
        if rest:
            chunked = None
            connection.receive_data(rest)
    while type(event := connection.next_event()) is not h11.EndOfMessage:
        assert event is not h11.NEED_DATA, "the body did not end"
        if isinstance(event, h11.Data):
            body += event.data
    return body


def encoded(chunks: list[tuple[bytes, str]]) -> bytes:
    """Write chunks, each with the header style it asks for."""
    stream = b""
    for data, style in chunks:
        stream += style.format(len(data)).encode() + b"\r\n" + data + b"\r\n"
    return stream + b"0\r\n\r\n"


CHUNKS = st.lists(
    st.tuples(st.binary(min_size=1, max_size=40), st.sampled_from(["{:x}", "{:X}", "00{:x}", "{:x};a=b", "{:x} "])),
    max_size=8,
)


@given(CHUNKS, st.lists(st.integers(0, 400), max_size=12))
@example([(b"hello", "{:x}")], [1, 2, 3, 4, 7, 8, 9, 10, 11])
@example([(b"\r\n0\r\n\r\n", "{:x}"), (b"x", "{:x};a=b")], [4, 5])
def test_a_chunked_body_is_the_same_however_it_arrives(chunks: list[tuple[bytes, str]], cuts: list[int]) -> None:
    """Cut anywhere, plain chunks or strange ones: the body h11 reads from the whole stream."""
    stream = encoded(chunks)
    places = [0, *sorted({cut for cut in cuts if 0 < cut < len(stream)}), len(stream)]
    pieces = [stream[start:stop] for start, stop in itertools.pairwise(places)]
    assert as_we_read_it(pieces) == as_h11_reads_it(stream) == b"".join(data for data, _ in chunks)


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from(["{:x}", "{:X}", "00{:x}"]), st.data())
def test_a_body_of_chunks_of_one_size_is_what_h11_makes_of_it_wherever_one_byte_of_it_is_wrong(
    count: int, size: int, style: str, data: st.DataObject
) -> None:
    """Many chunks are looked at together: none whose header or end is another one may be taken for one of them."""
    chunks = [(bytes([number]) * size, style) for number in range(count)]
    stream = bytearray(encoded(chunks))
    assert as_we_read_it([bytes(stream)]) == as_h11_reads_it(bytes(stream)) == b"".join(body for body, _ in chunks)
    place = data.draw(st.integers(0, len(stream) - 6))
    stream[place] = data.draw(st.sampled_from(b"\r\n0123456789abcdefABCDEF; x"))
    read: list[bytes | str] = []
    for reader in (as_h11_reads_it, lambda whole: as_we_read_it([whole])):
        try:
            read.append(reader(bytes(stream)))
        except (h11.RemoteProtocolError, AssertionError) as error:
            read.append(type(error).__name__)
    assert read[0] == read[1]


@pytest.mark.parametrize(
    "stream",
    [b"5\r\nhelloXX5\r\nworld\r\n0\r\n\r\n", b"5\r\nhello\rX", b"5\r\nhello5\r\nworld\r\n0\r\n\r\n"],
)
@pytest.mark.parametrize("cut", [0, 8, 9, 10])
def test_a_chunk_that_is_longer_than_it_said_is_refused(stream: bytes, cut: int) -> None:
    """What follows such a chunk must not be taken for another one's header."""
    with pytest.raises(h11.RemoteProtocolError):
        as_we_read_it([piece for piece in (stream[:cut], stream[cut:]) if piece])


@pytest.mark.parametrize("header", [b"-5\r\n", b"0x5\r\n", b"\r\n", b" 5\r\n", b"1" * 30 + b"\r\n", b"5\n"])
def test_what_is_no_chunk_size_is_left_to_h11(header: bytes) -> None:
    """It knows what to refuse."""
    assert Chunked().take(header) == (b"", header)


def test_a_head_is_parted_from_its_body_only_where_it_ends() -> None:
    """A body may hold blank lines of its own."""
    assert split_head(b"GET / HTTP/1.1\r\n\r\na\r\n\r\nb") == (b"GET / HTTP/1.1\r\n\r\n", b"a\r\n\r\nb")
    assert split_head(b"GET / HT") == (b"GET / HT", b"")


class Wire(asyncio.Transport):
    """A transport that says how much it would read at once."""

    max_size = 256 * KIB

    def __init__(self) -> None:
        super().__init__()
        self.told = list[str]()

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self.told.append("pause")

    def resume_reading(self) -> None:
        self.told.append("resume")


def wired(loop: asyncio.AbstractEventLoop) -> tuple[Pieces, Wire]:
    pieces, wire = Pieces(loop, 60.0), Wire()
    pieces.set_transport(wire)
    return pieces, wire


def test_a_body_that_comes_fast_is_read_in_long_pieces_while_few_do() -> None:
    """A full piece asks for longer ones; beyond four such bodies all are read in short ones, to bound memory."""
    loop = asyncio.new_event_loop()
    try:
        readers = [wired(loop) for _ in range(5)]
        for pieces, wire in readers[:4]:
            pieces.feed_data(bytes(256 * KIB))
            assert wire.max_size == MIB
        pieces, wire = readers[4]
        pieces.feed_data(bytes(256 * KIB))
        assert wire.max_size == 256 * KIB
        readers[0][0].feed_data(bytes(MIB))
        assert readers[0][1].max_size == 256 * KIB
        readers[1][0].feed_eof()
        readers[2][0].feed_data(b"the end")
        assert readers[2][1].max_size == 64 * KIB
        pieces.feed_data(bytes(256 * KIB))
        assert wire.max_size == MIB
    finally:
        for pieces, _ in readers:
            pieces.feed_eof()
        loop.close()
    assert Pieces.streaming == 0


def test_reading_that_is_lent_again_at_once_does_not_begin_in_between() -> None:
    """To begin and end it is two calls of the system; where nobody borrows it, it goes on in the next round."""

    async def scenario() -> list[str]:
        pieces, wire = wired(asyncio.get_running_loop())
        pieces.lend()
        pieces.take_back_soon()
        pieces.lend()
        await asyncio.sleep(0)
        assert wire.told == ["pause"]
        pieces.take_back_soon()
        await asyncio.sleep(0)
        return wire.told

    assert asyncio.run(scenario()) == ["pause", "resume"]
