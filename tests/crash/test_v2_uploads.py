"""Uploads and `kill -9`: what a client was told is held is held, by whichever process answers next (I1, I2, I7)."""

from __future__ import annotations

import hashlib
import mmap
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx2
import pytest

from cas import Store
from tests.support.engine import noise
from tests.support.serving import Server, StartServer
from tests.wire.v2.pushing import KIB, MIB, Client, held, sha256, sha512

Bytes = bytes | mmap.mmap
PIECE_BYTES = 256 * KIB
CLIENTS = 50


def span(start: int, data: bytes) -> str:
    return f"{start}-{start + len(data) - 1}"


def pieces(data: Bytes, start: int, stop: int) -> Iterator[bytes]:
    for at in range(start, stop, PIECE_BYTES):
        yield bytes(data[at : min(at + PIECE_BYTES, stop)])


def dying(server: Server, data: Bytes, start: int, cut: int) -> Iterator[bytes]:
    """Send what follows `start`, and kill the whole server at `cut`."""
    yield from pieces(data, start, cut)
    server.kill()
    yield from pieces(data, cut, len(data) + 1)


def cut_off(server: Server, method: str, target: str, data: Bytes, start: int, cut: int) -> None:
    """Make a request during which the server is killed; nobody answers it."""
    with closing(Client(server.url)) as client, pytest.raises(httpx2.TransportError):
        client.ask(method, target, dying(server, data, start, cut))


def stored_bytes(root: Path) -> int:
    """How large the packs are that a stopped server left."""
    with Store.open(root) as store:
        return store.stats().pack_bytes


class TestKill:
    """The server dies, all of it, and another one goes on."""

    def test_a_session_survives_between_any_two_requests(self, server: StartServer) -> None:
        """What the last 202 said is held exactly; the blob is whole, also under the digest nobody announced."""
        sizes = [2000, 3 * MIB, 1]
        data = noise(sum(sizes))
        place, at = "", 0
        for size in [0, *sizes]:
            running = server()
            with closing(Client(running.url)) as client:
                place = place or client.open("a/b")
                assert client.held(place) == at
                if size:
                    chunk = data[at : at + size]
                    answer = client.patch(place, chunk, Content_Range=span(at, chunk))
                    assert (answer.status_code, held(answer)) == (202, at + size)
                    at += size
            running.kill()
        running = server()
        with closing(Client(running.url)) as client:
            assert client.put(place, sha512(data)).status_code == 201
        running.kill()
        with closing(Client(server().url)) as client:
            assert client.put(place, sha512(data)).status_code == 201  # asked again: the answer may have been lost
            assert client.blob("a/b", sha512(data)).content == data

    @pytest.mark.parametrize("seed", range(2))
    def test_an_upload_goes_on_after_a_kill_in_the_middle_of_a_body(
        self, server: StartServer, tmp_path: Path, seed: int
    ) -> None:
        """Never less than acknowledged, never more than sent, and no blob before its 201; three kills, then whole."""
        resume_through_kills(server, tmp_path / "layer", 24, random.Random(seed))

    def test_long_bodies_are_kept_in_part_though_nobody_acknowledged_them(self, server: StartServer) -> None:
        """A stream is safe run by run while it arrives; a client that asks loses little."""
        data, running = noise(88 * MIB, 9), server()
        with closing(Client(running.url)) as client:
            place = client.open("a/b")
        cut_off(running, "PATCH", place, data, 0, 80 * MIB)
        with closing(Client(server().url)) as client:
            size = client.held(place)
            assert 32 * MIB <= size <= 80 * MIB
            answer = client.put(place, sha256(data), data[size:], Content_Range=span(size, data[size:]))
            assert answer.status_code == 201
            assert client.blob("a/b", sha256(data)).content == data

    def test_a_blob_that_nobody_acknowledged_is_not_there(self, server: StartServer) -> None:
        """Killed during the only request that had it, by POST or PUT; pushed again, it is there."""
        data, place = noise(3 * MIB, 10), "/v2/a/b/blobs/uploads/"
        for method in ("POST", "PUT"):
            running = server()
            with closing(Client(running.url)) as client:
                assert client.blob("a/b", sha256(data)).status_code == 404
                place = client.open("a/b") if method == "PUT" else place
            cut_off(running, method, f"{place}?digest={sha256(data)}", data, 0, 2 * MIB)
        with closing(Client(server().url)) as client:
            assert client.blob("a/b", sha256(data)).status_code == 404
            assert client.put(place, sha256(data), data).status_code == 201
            assert client.blob("a/b", sha256(data)).content == data

    @pytest.mark.nightly
    def test_a_large_upload_goes_on_after_three_kills(self, server: StartServer, tmp_path: Path) -> None:
        """One GiB, at random points."""
        resume_through_kills(server, tmp_path / "layer", 1024, random.Random(2))


def resume_through_kills(server: StartServer, file: Path, mib: int, dice: random.Random, kills: int = 3) -> None:
    """Upload random bytes, asking how far it is after each kill and going on from there."""
    with file.open("wb") as out:
        for _ in range(mib):
            out.write(dice.randbytes(MIB))
    with file.open("rb") as source, mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) as data:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        place, acknowledged = "", 0
        for _ in range(kills):
            running = server()
            with closing(Client(running.url)) as client:
                place = place or client.open("a/b")
                size = client.held(place)
                assert acknowledged <= size <= len(data)
                stop = size + dice.randrange(1, (len(data) - size) // 2)
                answer = client.patch(place, pieces(data, size, stop), Content_Range=f"{size}-{stop - 1}")
                assert (answer.status_code, held(answer)) == (202, stop)
                acknowledged = stop
                assert client.blob("a/b", digest, "HEAD").status_code == 404
            cut_off(running, "PATCH", place, data, acknowledged, dice.randrange(acknowledged, len(data)))
        with closing(Client(server().url)) as client:
            size = client.held(place)
            assert acknowledged <= size <= len(data)
            assert client.put(place, digest, pieces(data, size, len(data))).status_code == 201
            with client.speech.stream("GET", f"/v2/a/b/blobs/{digest}") as got:
                running_hash = hashlib.sha256()
                for piece in got.iter_raw():
                    running_hash.update(piece)
        assert f"sha256:{running_hash.hexdigest()}" == digest


class TestWorkers:
    """Several processes answer at one address."""

    def test_any_worker_goes_on_with_a_session(self, server: StartServer) -> None:
        """Each request on a connection of its own, so that the kernel spreads them; then without the first worker."""
        running, data = server(workers=2), noise(4 * MIB, 11)
        step = len(data) // 16
        with closing(Client(running.url)) as client:
            place = client.open("a/b")
        for at in range(0, len(data), step):
            chunk = data[at : at + step]
            with closing(Client(running.url)) as client:
                answer = client.patch(place, chunk, Content_Range=span(at, chunk))
                assert (answer.status_code, held(answer)) == (202, at + len(chunk))
        with closing(Client(running.url)) as client:
            assert client.put(place, sha256(data)).status_code == 201
            assert client.blob("a/b", sha256(data)).content == data

    def test_many_clients_of_two_workers_leave_one_copy(self, server: StartServer, tmp_path: Path) -> None:
        """50 × 201 for the same new blob, and its bytes lie on the disk once."""
        running, data = server(workers=2), noise(4 * MIB, 12)
        with closing(Client(running.url)) as client:
            client.push("a/first", b"x")

        def push(number: int) -> str:
            with closing(Client(running.url)) as client:
                return client.push(f"a/r{number}", data)

        with ThreadPoolExecutor(CLIENTS) as pool:
            assert set(pool.map(push, range(CLIENTS))) == {sha256(data)}
        with closing(Client(running.url)) as client:
            for number in range(CLIENTS):
                assert client.blob(f"a/r{number}", sha256(data), "HEAD").status_code == 200
            assert client.blob("a/r0", sha256(data)).content == data
        assert running.stop() == 0
        assert len(data) < stored_bytes(running.root) < len(data) + len(data) // 8
