"""Layers that are asked for again and again: no work but the bytes, the right ones, and in nobody's way."""

# ruff: noqa: SLF001 - what a promise rests on is looked at inside, not only from the front

from __future__ import annotations

import http.client
import itertools
import os
import random
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import httpx2
import pytest

from api.config import HttpSettings
from api.zerocopy import sent
from cas import Store
from tests.support.counting import counted_crossings, counted_index
from tests.support.engine import SMALL
from tests.wire.harness import PATIENCE_S, open_descriptors, read_all
from tests.wire.v2.pushing import MIB, Client, Pushed, new_data, new_repository, pushing, sha256

SIZE = 3 * MIB + 123


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Pushed]:
    """A registry of one's own, whose blobs lie in many small packs."""
    with pushing(tmp_path / "root", engine=SMALL) as registry:
        yield registry


def asked(registry: Pushed, repository: str, digest: str) -> socket.socket:
    """Ask for a blob in always the same words, and take nothing of what comes."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(PATIENCE_S)
    sock.connect(registry.server.address)
    sock.sendall(question(repository, digest))
    return sock


def question(repository: str, digest: str) -> bytes:
    return f"GET /v2/{repository}/blobs/{digest} HTTP/1.1\r\nHost: a\r\n\r\n".encode()


def taken(sock: socket.socket) -> tuple[bytes, bytes]:
    """Read an answer's head and body."""
    answer = http.client.HTTPResponse(sock)
    answer.begin()
    return str(answer.headers).encode(), answer.read()


def given(registry: Pushed, repository: str, digest: str) -> bytes:
    """Ask for a blob in always the same words; return its bytes."""
    with asked(registry, repository, digest) as sock:
        return taken(sock)[1]


def repeated(before: int) -> int:
    return sent.repeats - before


@pytest.mark.usefixtures("all_in_memory")
@pytest.mark.parametrize("size", [70_000, SIZE, 40 * MIB])
def test_a_layer_asked_for_again_costs_one_write_and_its_bytes(client: Client, size: int) -> None:
    """No look at the index, no thread; whatever its size, and in as many runs as it lies."""
    data = new_data(size)
    digest = client.push(repository := new_repository(), data)
    first = client.blob(repository, digest)
    for _ in range(2):
        assert client.ask("HEAD", "/v2/").status_code == 200  # the last bytes are counted after they went out
        repeats, writes, moved, bodies = sent.repeats, sent.writes, sent.sendfile_bytes, sent.body_bytes
        with counted_index() as index, counted_crossings() as steps:
            again = client.blob(repository, digest)
        assert client.ask("HEAD", "/v2/").status_code == 200
        assert again.content == first.content == data
        assert {**again.headers, "date": ""} == {**first.headers, "date": ""}
        assert (repeated(repeats), sent.writes - writes) == (1, 2)
        assert (sent.sendfile_bytes - moved, sent.body_bytes - bodies) == (size, 0)
        assert (index.reads, index.look_ups, steps) == (0, 0, [])


@pytest.mark.usefixtures("all_in_memory")
def test_a_layer_is_known_by_heart_while_others_are_pushed(client: Client) -> None:
    """One look at where it lies, and no thread."""
    digest = client.push(repository := new_repository(), data := new_data(SIZE))
    assert client.blob(repository, digest).content == data
    for _ in range(3):
        client.push(repository, new_data(100_000))
        repeats = sent.repeats
        with counted_index() as index, counted_crossings() as steps:
            assert client.blob(repository, digest).content == data
        assert (repeated(repeats), steps, index.reads) == (1, [], 1)


def test_other_words_get_other_answers(client: Client) -> None:
    """A HEAD no bytes, a range its own, who has the layer none."""
    data = new_data(SIZE)
    digest = client.push(repository := new_repository(), data)
    path = f"/v2/{repository}/blobs/{digest}"
    for _ in range(3):
        assert client.ask("GET", path).content == data
        head = client.ask("HEAD", path)
        assert (head.headers["content-length"], head.content) == (str(SIZE), b"")
        part = client.ask("GET", path, range="bytes=5-1048580")
        assert (part.status_code, part.content) == (206, data[5:1_048_581])
        parts = client.ask("GET", path, range="bytes=0-9,100-109")
        assert data[100:110] in parts.content
        assert client.ask("GET", path, if_none_match=f'"{digest}"').status_code == 304
        assert client.ask("GET", path, range="bytes=0-", if_range='"other"').content == data


@pytest.mark.parametrize("http2", [False, True])
def test_over_tls_a_layer_is_the_same_each_time(tmp_path: Path, tls: ssl.SSLContext, http2: bool) -> None:
    """Where no file goes out as it is."""
    data = new_data(SIZE)
    with pushing(tmp_path / "root", tls=tls) as registry, closing(registry.client(http2=http2)) as client:
        digest = client.push("a/b", data)
        assert [client.blob("a/b", digest).content == data for _ in range(3)] == [True] * 3


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_layer_known_by_heart_whose_pack_ends_early_is_looked_into(
    tmp_path: Path, tls: ssl.SSLContext, encrypted: bool
) -> None:
    """Nothing that is asked for each time would notice else, and it would be cut short for ever."""
    data, marked = new_data(SIZE), threading.Event()
    with pushing(tmp_path / "root", tls=tls if encrypted else None) as registry, closing(registry.client()) as client:
        digest = client.push("a/b", data)
        registry.store.when_doubted(marked.set)
        repeats = sent.repeats
        assert [client.blob("a/b", digest).content == data for _ in range(2)] == [True] * 2
        assert repeated(repeats) == 1
        pack = max((tmp_path / "root" / "packs").rglob("*.pack"), key=lambda path: path.stat().st_size)
        pack.chmod(0o640)
        os.truncate(pack, SIZE // 2)
        with pytest.raises(httpx2.TransportError):
            client.blob("a/b", digest)
        assert repeated(repeats) == 2
        assert marked.wait(PATIENCE_S)
        assert registry.store.stats().doubted == 1


def test_a_layer_that_is_deleted_is_gone_at_the_next_question(own: Pushed) -> None:
    """Though its bytes are still there."""
    data = new_data(SIZE)
    with closing(own.client()) as client:
        digest = client.push("a/b", data)
        for _ in range(3):
            assert given(own, "a/b", digest) == data
        assert client.ask("DELETE", f"/v2/a/b/blobs/{digest}").status_code == 202
        with asked(own, "a/b", digest) as sock:
            assert b"BLOB_UNKNOWN" in taken(sock)[1]


def removed(store: Store, client: Client, repository: str, digest: str) -> None:
    """Delete a blob, and give its space back: nobody may be waited for."""
    assert client.ask("DELETE", f"/v2/{repository}/blobs/{digest}").status_code == 202
    assert store.collect(wait_s=0).unfinished == ""
    assert store.compact(everything=True, wait_s=0).left == []
    store.tick()


def test_who_stalls_holds_no_collection_up_and_gets_every_byte(tmp_path: Path) -> None:
    """An answer made anew, and one given again; though the packs are gone when they are read."""
    data = new_data(24 * MIB)
    with pushing(tmp_path / "root") as own, closing(own.client()) as client:
        digest = client.push("a/b", data)
        with asked(own, "a/b", digest) as first:
            assert first.recv(10) == b"HTTP/1.1 2"
            repeats = sent.repeats
            assert given(own, "a/b", digest) == data
            with asked(own, "a/b", digest) as second:
                assert second.recv(10) == b"HTTP/1.1 2"
                assert client.ask("HEAD", "/v2/").status_code == 200
                assert any(entry.users for entry in own.store._parts.files._open.values())
                removed(own.store, client, "a/b", digest)
                for sock in (second, first):
                    assert read_body(sock) == data
            assert repeated(repeats) == 1
    assert not own.store._parts.files._open


def read_body(sock: socket.socket) -> bytes:
    """Read on after the first ten bytes of an answer."""
    text = b""
    while b"\r\n\r\n" not in text:
        text += sock.recv(1000)
    body = text.partition(b"\r\n\r\n")[2]
    size = int(text.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    pieces = [body]
    while size > sum(map(len, pieces)):
        pieces.append(sock.recv(MIB))
        assert pieces[-1]
    return b"".join(pieces)


def test_answers_that_are_only_kept_keep_no_space(own: Pushed) -> None:
    """After a collection the files of what was pulled are closed, whatever is known by heart."""
    with closing(own.client()) as client:
        digest = client.push("a/b", new_data(SIZE))
        for _ in range(3):
            given(own, "a/b", digest)
        deleted = open_descriptors()
        removed(own.store, client, "a/b", digest)
        files = own.store._parts.files
        assert not any(entry.users for entry in files._open.values())
        assert all(own.store._parts.layout.pack(pack).exists() for pack in files._open)
        assert len(open_descriptors()) <= len(deleted) + 1  # the journal's newest pack may be a new one


def pulled_while_they_move(own: Pushed, pull: Callable[[Client, str, str], bytes]) -> dict[str, str]:
    """Have several clients pull layers while collections take what lies beside them; return where those are."""
    layers = {f"a/{number}": new_data(300_000 + number) for number in range(4)}
    over, wrong = threading.Event(), list[str]()
    with closing(own.client()) as client:
        digests = {repository: client.push(repository, data) for repository, data in layers.items()}

        def pulls() -> None:
            with closing(own.client()) as mine:
                while not over.is_set():
                    repository = random.choice(list(layers))
                    if pull(mine, repository, digests[repository]) != layers[repository]:
                        wrong.append(repository)

        pulling = [threading.Thread(target=pulls) for _ in range(3)]
        for thread in pulling:
            thread.start()
        for _ in range(5):
            client.push("b", waste := new_data(500_000))
            removed(own.store, client, "b", sha256(waste))
        over.set()
        for thread in pulling:
            thread.join(PATIENCE_S)
        assert not wrong
    return digests


def test_layers_move_from_pack_to_pack_and_stay_what_they_are(own: Pushed) -> None:
    """Pulled in the same words by several clients, while collections take what lies beside them."""
    digests = pulled_while_they_move(own, lambda _, repository, digest: given(own, repository, digest))
    repeats = sent.repeats
    given(own, "a/0", digests["a/0"])
    given(own, "a/0", digests["a/0"])
    assert repeated(repeats) >= 1


def test_clients_that_leave_in_the_middle_leave_nothing_behind(own: Pushed, caplog: pytest.LogCaptureFixture) -> None:
    """No file in use, no descriptor, no word in the log."""
    with closing(own.client()) as client:
        digest = client.push("a/b", new_data(8 * MIB))
        given(own, "a/b", digest)
        client.ask("HEAD", "/v2/")
        before, repeats = open_descriptors(), sent.repeats
        for _ in range(5):
            with asked(own, "a/b", digest) as sock:
                assert sock.recv(100)
        users = own.store._parts.files._open.values()
        for _ in itertools.takewhile(lambda _: any(entry.users for entry in list(users)), range(10_000)):
            client.ask("HEAD", "/v2/")
        assert not any(entry.users for entry in list(users))
        assert repeated(repeats) == 5
        client.ask("HEAD", "/v2/")
        assert len(open_descriptors()) <= len(before)
    assert not caplog.records


def test_who_takes_nothing_is_dropped(tmp_path: Path) -> None:
    """After stall_s, from an answer that is given again too."""
    settings = HttpSettings()
    with pushing(tmp_path / "root", settings) as registry, closing(registry.client()) as client:
        digest = client.push("a/b", data := new_data(24 * MIB))
        assert given(registry, "a/b", digest) == data
        repeats = sent.repeats
        object.__setattr__(settings, "stall_s", 0.3)  # only now: until here a client that is slow is none that stalls
        with asked(registry, "a/b", digest) as sock:
            users = registry.store._parts.files._open.values()
            while repeated(repeats) < 1 or any(entry.users for entry in list(users)):
                client.ask("HEAD", "/v2/")
            with suppress(ConnectionResetError):
                assert len(read_all(sock)) < len(data)


def test_a_server_that_stops_cuts_who_is_too_slow(tmp_path: Path) -> None:
    """After the grace; until then it goes on sending."""
    with pushing(tmp_path / "root", HttpSettings(grace_s=0.2)) as registry:
        with closing(registry.client()) as client:
            digest = client.push("a/b", data := new_data(24 * MIB))
        assert given(registry, "a/b", digest) == data
        repeats = sent.repeats
        with asked(registry, "a/b", digest) as sock:
            assert sock.recv(10) == b"HTTP/1.1 2"
            assert repeated(repeats) == 1
            registry.server.stop()
    assert not registry.store._parts.files._open


def test_requests_that_come_together_are_answered_in_order(own: Pushed) -> None:
    """The second waits in the socket while the first is given again."""
    with closing(own.client()) as client:
        one, two = new_data(2 * MIB), new_data(200_000)
        first, second = client.push("a/b", one), client.push("a/b", two)
    for _ in range(3):
        with own.server.connect() as sock:
            sock.sendall(question("a/b", first))
            assert sock.recv(1, socket.MSG_PEEK)
            sock.sendall(question("a/b", second))
            sock.sendall(question("a/b", first).replace(b"Host", b"Connection: close\r\nHost"))
            text = read_all(sock)
            for data in (one, two, one):
                _, _, text = text.partition(b"\r\n\r\n")
                assert text[: len(data)] == data
                text = text[len(data) :]
            assert not text
