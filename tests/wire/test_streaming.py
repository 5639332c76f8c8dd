"""Bodies between sockets and a real store, and what goes wrong on the way."""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from api.receiving import ClientGone
from api.streaming import BlobResponse
from api.threads import Threads
from api.zerocopy import sent
from cas import REPAIR, Damaged, Digest, FileRange, Places, Reader, Store
from tests.wire.blobs import MIB, Faulty, application, damaged, keep, mixed, responding, trusting
from tests.wire.harness import PATIENCE_S, Running, ask, body_of, open_descriptors, read_all, serving

CLOSE = "\nHost: a\nConnection: close"


def put(running: Running, data: bytes, *, chunked: bool) -> str:
    client = http.client.HTTPConnection(*running.address, timeout=PATIENCE_S)
    pieces = (data[at : at + 50_000] for at in range(0, len(data), 50_000))
    client.request("PUT", "/", body=pieces if chunked else data, encode_chunked=chunked)
    response = client.getresponse()
    text = response.read().decode()
    assert response.status == 200, text
    client.close()
    return text


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [0, 1, 70_000, 5 * MIB + 321])
def test_what_was_pushed_is_what_is_pulled(store: Store, threads: Threads, size: int, chunked: bool) -> None:
    """Byte for byte, whole and in ranges."""
    data = mixed(size)
    some = random.Random(2)
    with serving(application(store, threads)) as running:
        digest = put(running, data, chunked=chunked)
        assert digest == str(Digest.of(data))
        for _ in range(5):
            start = some.randint(0, size)
            stop = some.randint(start, size)
            got = ask(running, f"GET /{digest}/{start}/{stop} HTTP/1.1{CLOSE}")
            assert got.startswith(b"HTTP/1.1 206 ")
            assert body_of(got) == data[start:stop]
        got = ask(running, f"GET /{digest}/0/{size} HTTP/1.1{CLOSE}")
        assert body_of(got) == data
        assert b"x-test: 1" in got
        head = ask(running, f"HEAD /{digest}/0/{size} HTTP/1.1{CLOSE}")
        assert f"content-length: {size}".encode() in head
        assert body_of(head) == b""


def test_raw_bytes_of_a_blob_go_out_by_sendfile_alone(store: Store, threads: Threads) -> None:
    """I6: Python never touches them."""
    data = random.Random(4).randbytes(6 * MIB)
    digest = keep(store, data)
    files, bodies = sent.sendfile_bytes, sent.body_bytes
    with serving(application(store, threads)) as running:
        assert body_of(ask(running, f"GET /{digest}/0/{len(data)} HTTP/1.1{CLOSE}")) == data
    assert sent.sendfile_bytes - files == len(data)
    assert sent.body_bytes == bodies


def test_a_layer_cut_off_in_the_middle_leaves_nothing_visible(
    store: Store, threads: Threads, caplog: pytest.LogCaptureFixture
) -> None:
    """I2, over a socket; and nobody logs a client's leaving."""
    gone = threading.Event()
    inner = application(store, threads)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await inner(scope, receive, send)
        except ClientGone:
            gone.set()
            raise

    with serving(app) as running:
        with running.connect() as peer:
            peer.sendall(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n" + b"a" * 2 * MIB)
        assert gone.wait(PATIENCE_S)
    assert store.stats().blobs == 0
    assert not caplog.records


def test_a_body_over_the_limit_is_answered_while_it_is_still_sent(store: Store, threads: Threads) -> None:
    """The client gets the 413 whole, however much it goes on sending."""
    with serving(application(store, threads, limit_bytes=MIB)) as running:
        client = http.client.HTTPConnection(*running.address, timeout=PATIENCE_S)
        client.request("PUT", "/", body=b"a" * (8 * MIB))
        response = client.getresponse()
        assert (response.status, response.read()) == (413, b"The body is larger than 1048576 bytes.")
        client.close()
    assert store.stats().blobs == 0


def test_damage_found_in_mid_answer_ends_the_connection_and_is_logged_once(
    threads: Threads, caplog: pytest.LogCaptureFixture
) -> None:
    """I9: never served as a whole good blob."""
    with serving(damaged(threads)) as running:
        got = ask(running, f"GET / HTTP/1.1{CLOSE}")
    assert b"content-length: 1000" in got
    assert body_of(got) == b"x" * 100
    assert [record.message for record in caplog.records] == [
        f"The answer with {Digest.of(b'')} was cut short: a chunk is damaged"
    ]


def test_damage_found_before_the_first_byte_is_the_applications_to_answer(threads: Threads) -> None:
    """Nothing was sent yet, so there can be a proper error; the reader is closed all the same."""
    reader = Faulty([], Damaged("a chunk is damaged"))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                await BlobResponse(cast("Reader", reader), threads)(scope, receive, send)
            except Damaged as error:
                await PlainTextResponse(str(error), 500)(scope, receive, send)

    with serving(app) as running:
        assert ask(running, f"GET / HTTP/1.1{CLOSE}").endswith(b"a chunk is damaged")
    assert reader.closed.is_set()


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_pack_shorter_than_its_index_says_ends_the_connection(
    threads: Threads, tmp_path: Path, encrypted: bool, tls: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    """By sendfile and by messages."""
    path = tmp_path / "pack"
    path.write_bytes(b"p" * 700)
    with path.open("rb") as file:
        reader = Faulty([FileRange(file.fileno(), 0, 1000)], None)
        with serving(responding(threads, lambda: reader), tls=tls if encrypted else None) as running:
            sock = running.connect()
            if encrypted:
                sock = trusting().wrap_socket(sock, suppress_ragged_eofs=True)
            sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            got = b""
            with contextlib.suppress(ConnectionError):
                got = read_all(sock)
            assert len(body_of(got)) < 1000
    assert reader.closed.is_set()
    assert len(caplog.records) == 1


@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize("is_held", [False, True])
def test_a_pack_that_ends_early_is_looked_into_soon(
    store: Store,
    threads: Threads,
    is_held: bool,
    encrypted: bool,
    tls: ssl.SSLContext,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """By whichever way it was sent; the log says once what to do where nobody looks."""
    data, marked = random.Random(5).randbytes(3 * MIB), threading.Event()
    digest = keep(store, data)
    places = store.read(lambda reads: reads.content(digest))
    assert isinstance(places, Places)
    source = store.hold(places) if is_held else store.reader(digest)
    assert source is not None
    pack = max((tmp_path / "root" / "packs").rglob("*.pack"), key=lambda path: path.stat().st_size)
    os.truncate(pack, pack.stat().st_size // 2)
    store.when_doubted(marked.set)
    app = responding(threads, lambda: cast("Faulty", source))
    with serving(app, tls=tls if encrypted else None) as running:
        sock = running.connect()
        if encrypted:
            sock = trusting().wrap_socket(sock, suppress_ragged_eofs=True)
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            assert len(body_of(read_all(sock))) < len(data)
        assert marked.wait(PATIENCE_S)
    assert store.stats().doubted == 1
    assert [record.message.endswith(f"bytes early; {REPAIR}") for record in caplog.records] == [True]


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_client_that_leaves_in_mid_answer_is_no_news_and_frees_the_reader(
    store: Store, threads: Threads, encrypted: bool, tls: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    """By sendfile and by messages; the pieces it did not get are not even fetched."""
    fetched: list[int] = []
    closed = threading.Event()

    class Endless(Faulty):
        def plan(self, start: int = 0, stop: int | None = None) -> Iterator[FileRange | bytes]:
            for number in range(10_000):
                fetched.append(number)
                yield b"x" * MIB

        def close(self) -> None:
            closed.set()

    Endless.size = 10_000 * MIB
    app = responding(threads, lambda: Endless([], None))
    before = open_descriptors()
    with serving(app, tls=tls if encrypted else None) as running:
        sock = running.connect()
        if encrypted:
            sock = trusting().wrap_socket(sock)
        with sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert sock.recv(10_000)
        assert closed.wait(PATIENCE_S)
    assert len(fetched) < 1000
    assert open_descriptors() <= before
    assert not caplog.records
