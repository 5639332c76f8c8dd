"""Several requests on one session or one blob at once, clients that vanish, and a disk that is full in the middle."""

# ruff: noqa: SLF001 - whether a body has begun to be looked at is asked inside, so that no test has to guess

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import httpx2
import pytest

from api import receiving
from api.config import HttpSettings
from cas.disk import Disk
from tests.support.engine import SMALL, noise
from tests.wire.harness import PATIENCE_S
from tests.wire.v2.pushing import KIB, MIB, Client, Pushed, code, held, new_repository, pushing, sha256

CLIENTS = 50


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pushed]:
    with pushing(tmp_path_factory.mktemp("races") / "root") as registry:
        yield registry


@pytest.fixture(params=["h1", "h2"])
def client(request: pytest.FixtureRequest, registry: Pushed) -> Iterator[Client]:
    with closing(registry.client(http2=request.param == "h2")) as client:
        yield client


class Slow:
    """A request whose body stands still in the middle until it is let go."""

    def __init__(self, registry: Pushed, method: str, place: str, data: bytes, *, http2: bool = False) -> None:
        self._data, self._stands, self._go = data, threading.Event(), threading.Event()
        self._client = registry.client(http2=http2)
        self._pool = ThreadPoolExecutor(1)
        before = receiving._Writer.active
        self._answer: Future[httpx2.Response] = self._pool.submit(self._client.ask, method, place, self._body())
        assert self._stands.wait(PATIENCE_S)
        deadline = time.monotonic() + PATIENCE_S
        while receiving._Writer.active == before:  # what was sent may not have been looked at
            assert time.monotonic() < deadline
            self._go.wait(0.005)

    def _body(self) -> Iterator[bytes]:
        half = len(self._data) // 2
        yield self._data[:half]
        self._stands.set()
        assert self._go.wait(PATIENCE_S)
        yield self._data[half:]

    def end(self) -> httpx2.Response:
        """Send the rest and return the answer."""
        self._go.set()
        answer = self._answer.result(PATIENCE_S)
        self._pool.shutdown()
        self._client.close()
        return answer


def ask_until(client: Client, place: str, least: int) -> int:
    """Ask for a session's state until it holds so much, which happens when the server notices that a client left."""
    deadline = time.monotonic() + PATIENCE_S
    while (size := client.held(place)) < least:
        assert time.monotonic() < deadline, f"only {size} bytes are held"
    return size


class TestOneSession:
    """Requests on one session never interleave: the first that ends has gone on with it."""

    @pytest.mark.parametrize("size", [5000, 3 * MIB])
    def test_the_second_of_two_patches_is_told_how_far_it_is(self, registry: Pushed, client: Client, size: int) -> None:
        """416 with the true Range; the bytes are the winner's alone."""
        self.overtake(registry, client, size)

    def test_a_patch_overtaken_after_a_whole_run_is_told_too(self, registry: Pushed) -> None:
        """Noticed while its body is still arriving; the answer is the same."""
        with closing(registry.client()) as client:
            self.overtake(registry, client, 40 * MIB)

    def overtake(self, registry: Pushed, client: Client, size: int) -> None:
        repository, ours, theirs = new_repository(), noise(size, 1), noise(size + 7, 2)
        place = client.open(repository)
        slow = Slow(registry, "PATCH", place, theirs, http2=client.http2)
        assert held(client.patch(place, ours)) == len(ours)
        answer = slow.end()
        assert (answer.status_code, code(answer)) == (416, "RANGE_INVALID")
        assert (answer.headers["location"], held(answer)) == (place, len(ours))
        assert client.put(place, sha256(ours)).status_code == 201
        assert client.blob(repository, sha256(ours)).content == ours

    def test_a_patch_that_meets_the_end_is_refused(self, registry: Pushed, client: Client) -> None:
        """404: the upload became a blob, or was cancelled, while the body was on its way."""
        for closing_ in (True, False):
            repository, data = new_repository(), noise(3 * MIB, 3)
            place = client.open(repository)
            client.patch(place, data)
            slow = Slow(registry, "PATCH", place, noise(2 * MIB, 4), http2=client.http2)
            if closing_:
                assert client.put(place, sha256(data)).status_code == 201
            else:
                assert client.ask("DELETE", place).status_code == 204
            answer = slow.end()
            assert (answer.status_code, code(answer)) == (404, "BLOB_UPLOAD_UNKNOWN")
            assert client.blob(repository, sha256(data)).status_code == (200 if closing_ else 404)

    def test_a_put_that_meets_a_patch_is_refused(self, registry: Pushed, client: Client) -> None:
        """416, as for a PATCH; the session goes on from what the other one brought."""
        repository, data = new_repository(), noise(2 * MIB, 5)
        place = client.open(repository)
        slow = Slow(registry, "PUT", f"{place}?digest={sha256(data)}", data, http2=client.http2)
        assert client.patch(place, data[:1000]).status_code == 202
        answer = slow.end()
        assert (answer.status_code, held(answer)) == (416, 1000)
        rest = client.put(place, sha256(data), data[1000:], Content_Range=f"1000-{len(data) - 1}")
        assert rest.status_code == 201

    @pytest.mark.parametrize("size", [5000, 3 * MIB])
    def test_the_same_put_on_two_connections_succeeds_on_both(
        self, registry: Pushed, client: Client, size: int
    ) -> None:
        """A client gave one up for lost and sent it again; both answers are true."""
        repository, data = new_repository(), noise(size, 6)
        place = client.open(repository)
        client.patch(place, data[:100])
        slow = Slow(registry, "PUT", f"{place}?digest={sha256(data)}", data[100:], http2=client.http2)
        assert client.put(place, sha256(data), data[100:]).status_code == 201
        assert slow.end().status_code == 201
        assert client.blob(repository, sha256(data)).content == data

    def test_of_many_patches_at_once_one_goes_on(self, registry: Pushed) -> None:
        """Each brings other bytes; exactly one 202, and all others are told its size."""
        for size in (2000, MIB):
            repository, bodies = new_repository(), [noise(size + number, number) for number in range(8)]
            with closing(registry.client()) as client:
                place = client.open(repository)
            answers = at_once(registry, [("PATCH", place, body) for body in bodies], begin_at=0)
            (won,) = [body for body, answer in zip(bodies, answers, strict=True) if answer.status_code == 202]
            assert sorted(answer.status_code for answer in answers) == [202] + [416] * 7
            assert {held(answer) for answer in answers} == {len(won)}
            with closing(registry.client()) as client:
                assert client.put(place, sha256(won)).status_code == 201


class TestOneBlob:
    """Many clients with the same new blob."""

    @pytest.mark.parametrize("size", [0, 700, 5 * MIB])
    def test_all_of_many_clients_succeed_and_leave_one_copy(self, registry: Pushed, size: int) -> None:
        """50 × 201, by three forms, to different repositories; the store holds the bytes once."""
        data = noise(size, 50)
        before = registry.store.stats()
        repositories = [new_repository() for _ in range(CLIENTS)]
        with closing(registry.client()) as client:
            places = [client.open(repository) for repository in repositories]
            for place in places[::3]:
                assert client.patch(place, data[: size // 2]).status_code == 202
        requests = [("PUT", f"{place}?digest={sha256(data)}", data) for place in places]
        requests[::3] = [("PUT", f"{place}?digest={sha256(data)}", data[size // 2 :]) for place in places[::3]]
        requests[1::3] = [
            ("POST", f"/v2/{repository}/blobs/uploads/?digest={sha256(data)}", data)
            for repository in repositories[1::3]
        ]
        assert {answer.status_code for answer in at_once(registry, requests)} == {201}
        after = registry.store.stats()
        assert after.blobs == before.blobs + 1
        # Whoever brings the second half alone cuts its first chunk elsewhere. If one of them arrives beside one with
        # all of it, both keep their bytes; and the first half's last chunk, which was cut short, is nobody else's.
        # Beside that there are the names: two for each client, and what became of its upload.
        assert after.pack_bytes - before.pack_bytes < size + size // 2 + MIB + 4 * KIB * CLIENTS
        with closing(registry.client()) as client:
            for repository in repositories:
                assert client.blob(repository, sha256(data)).content == data


def at_once(
    registry: Pushed, requests: Sequence[tuple[str, str, bytes]], *, begin_at: int | None = None
) -> list[httpx2.Response]:
    """Make requests on connections of their own, all at the same time; perhaps each says where its chunk begins."""
    start = threading.Barrier(len(requests), timeout=PATIENCE_S)

    def ask(request: tuple[str, str, bytes]) -> httpx2.Response:
        with closing(registry.client()) as client:
            start.wait()
            if begin_at is None:
                return client.ask(*request)
            return client.ask(*request, Content_Range=f"{begin_at}-{begin_at + len(request[2]) - 1}")

    with ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(ask, requests))


class TestVanishing:
    """A client that leaves in the middle of a body."""

    def leave(self, registry: Pushed, request: str, data: bytes) -> None:
        """Begin a request, and close the connection where its body should go on."""
        with registry.server.connect() as sock:
            head = f"{request} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(data) * 2}\r\n\r\n"
            sock.sendall(head.encode() + data)

    def test_what_came_of_a_patch_is_kept(self, registry: Pushed, client: Client) -> None:
        """The client asks how far it is, goes on from there, and the blob is whole."""
        repository, data = new_repository(), noise(9 * MIB, 7)
        place = client.open(repository)
        self.leave(registry, f"PATCH {place}", data[: 5 * MIB])
        size = ask_until(client, place, 1)
        assert size <= 5 * MIB
        answer = client.patch(place, data[size:], Content_Range=f"{size}-{len(data) - 1}")
        assert held(answer) == len(data)
        assert client.put(place, sha256(data)).status_code == 201
        assert client.blob(repository, sha256(data)).content == data

    def test_what_was_acknowledged_is_never_less(self, registry: Pushed, client: Client) -> None:
        """Whatever leaves after it, PATCH or PUT; and no blob appears that was not closed."""
        repository, data = new_repository(), noise(4 * MIB, 8)
        place = client.open(repository)
        assert held(client.patch(place, data[: 3 * MIB])) == 3 * MIB
        for most, request in ((4 * MIB, f"PUT {place}?digest={sha256(data)}"), (5 * MIB, f"PATCH {place}")):
            self.leave(registry, request, data[3 * MIB :])
            assert 3 * MIB <= client.held(place) <= most  # the second may go on from where the first one was left
        assert client.blob(repository, sha256(data)).status_code == 404

    def test_what_came_is_kept_when_the_server_is_told_to_stop(self, tmp_path: Path) -> None:
        """Its grace over, it cuts the transfer; the next server goes on with it, also from what was not filed yet."""
        data, root = noise(5 * MIB, 11), tmp_path / "root"
        with pushing(root, HttpSettings(grace_s=0), engine=SMALL) as registry:
            with closing(registry.client()) as client:
                place = client.open("a")
                slow = Slow(registry, "PATCH", place, data, http2=client.http2)
                ask_until(client, place, 1)  # now the first block is being written, and is whole before anything ends
            registry.server.stop()
            with pytest.raises(httpx2.TransportError):
                slow.end()
        with pushing(root, engine=SMALL) as registry, closing(registry.client()) as client:
            size = client.held(place)
            assert MIB <= size <= len(data)
            assert client.put(place, sha256(data), data[size:]).status_code == 201

    def test_nothing_stays_of_a_blob_that_came_half_in_one_request(self, registry: Pushed, client: Client) -> None:
        """Nobody could go on with it; the next push finds the store as it was."""
        repository, data = new_repository(), noise(3 * MIB, 9)
        self.leave(registry, f"POST /v2/{repository}/blobs/uploads/?digest={sha256(data)}", data)
        assert client.blob(repository, sha256(data)).status_code == 404
        assert client.push(repository, data) == sha256(data)


class Full(Disk):
    """The real disk; while it is full, nothing more can be written to packs."""

    full = False

    def free_bytes(self, path: Path) -> tuple[int, int]:
        return (0, 1 << 40) if self.full else super().free_bytes(path)


@contextmanager
def filling(root: Path) -> Iterator[tuple[Pushed, Full]]:
    disk = Full()
    with pushing(root, disk=disk) as registry:
        yield registry, disk


@pytest.mark.parametrize("method", ["PATCH", "PUT", "POST"])
def test_a_full_disk_is_said_and_the_upload_goes_on_when_there_is_room(method: str, tmp_path: Path) -> None:
    """503 UNAVAILABLE with Retry-After, which clients try again; what was acknowledged before is still held."""
    data = noise(6 * MIB, 10)
    with filling(tmp_path / "root") as (registry, disk), closing(registry.client()) as client:
        place = client.open("a")
        assert held(client.patch(place, data[: 2 * MIB])) == 2 * MIB
        disk.full = True
        target = {
            "PATCH": place,
            "PUT": f"{place}?digest={sha256(data)}",
            "POST": f"/v2/a/blobs/uploads/?digest={sha256(data)}",
        }[method]
        answer = client.ask(method, target, data if method == "POST" else data[2 * MIB :])
        assert (answer.status_code, code(answer)) == (503, "UNAVAILABLE")
        assert int(answer.headers["retry-after"]) > 0
        assert client.ask("GET", "/v2/").status_code == 200
        size = client.held(place)
        assert size >= 2 * MIB
        disk.full = False
        assert client.put(place, sha256(data), data[size:]).status_code == 201
        assert client.blob("a", sha256(data)).content == data
