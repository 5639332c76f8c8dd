"""What an upload session is to everybody but its client: who may go on with it, what it costs, how far it goes."""

# ruff: noqa: SLF001 - commits and rows are counted where they are made

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from api.access import keys
from api.access.settings import AccessSettings, Mode
from api.config import HttpSettings
from api.v2.sessions import LIFE_S
from tests.support.engine import noise
from tests.wire.harness import read_all
from tests.wire.v2.pushing import KIB, MIB, Client, Pushed, code, new_repository, pushing, sha256, sha512

LIMIT = 100_000


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pushed]:
    with pushing(tmp_path_factory.mktemp("sessions") / "root", HttpSettings(max_layer_bytes=LIMIT)) as registry:
        yield registry


@pytest.fixture
def client(registry: Pushed) -> Iterator[Client]:
    with closing(registry.client()) as client:
        yield client


def commits(registry: Pushed) -> int:
    """How many durable commits the index has seen."""
    return int(registry.store._parts.index._env._env.info()["last_txnid"])


def rows(registry: Pushed) -> int:
    """How many rows of uploads there are."""
    return registry.store._parts.index.read(lambda view: view.count("sessions") + view.count("uploads"))


def refused(client: Client, place: str, path: str = "") -> None:
    """Nobody goes on there: every method says that there is no such upload."""
    asked = [
        client.ask(method, place + path, b"" if method != "GET" else None) for method in ("GET", "PATCH", "DELETE")
    ]
    asked.append(client.put(place, sha256(b"x"), b"x"))
    assert [(answer.status_code, code(answer)) for answer in asked] == [(404, "BLOB_UPLOAD_UNKNOWN")] * 4


class TestWhose:
    """Whoever may push to the repository and has the id."""

    def test_an_id_opens_nothing_in_another_repository(self, client: Client) -> None:
        """404, with bytes held and without."""
        here, there = new_repository(), new_repository()
        for data in (b"", b"abc"):
            place = client.open(here)
            client.patch(place, data)
            refused(client, place.replace(here, there))
            assert client.held(place) == len(data)

    @pytest.mark.parametrize("forged", ["x", "A" * 40, "%00", "uploads", "A" * 5000, "é", "'; drop", "00000000-0000"])
    def test_an_id_that_nobody_was_given_opens_nothing(self, client: Client, forged: str) -> None:
        """404 whatever it looks like; 400 for what no path may have."""
        answer = client.ask("GET", f"/v2/a/blobs/uploads/{forged}")
        assert answer.status_code == (400 if forged == "%00" else 404)
        code(answer)

    def test_a_changed_id_opens_nothing(self, client: Client) -> None:
        """Neither another number, nor a later time, nor another algorithm."""
        place = client.open("a")
        head, _, text = place.rpartition("/")
        data = bytearray(base64.urlsafe_b64decode(text))
        for at in (0, 1, 6, 14, len(data) - 1):
            data[at] ^= 1
            refused(client, f"{head}/{base64.urlsafe_b64encode(data).decode()}")
            data[at] ^= 1
        assert client.held(place) == 0

    def test_a_digest_alone_opens_nothing(self, client: Client) -> None:
        """Whoever knows one and has not the bytes gets no blob by closing an upload of it, anywhere."""
        secret, repository = noise(5000, 11), new_repository()
        digest = client.push("secrets/there", secret)
        for place in (client.open(repository), client.open("secrets/there")):
            answer = client.put(place, digest, b"")
            assert (answer.status_code, code(answer)) == (400, "DIGEST_INVALID")
        assert client.blob(repository, digest).status_code == 404

    def test_a_session_lives_for_a_week(self, client: Client, registry: Pushed) -> None:
        """Then it is unknown, however much of it is held."""
        place = client.open("a")
        client.patch(place, b"abc")
        registry.clock.now += LIFE_S
        assert client.held(place) == 3
        registry.clock.now += 1
        refused(client, place)

    def test_a_session_outlives_a_rotation_of_keys(self, client: Client, registry: Pushed) -> None:
        """As long as its key stays on the ring."""
        place = client.open("a")
        client.patch(place, b"abc")
        registry.store.change(lambda names: keys.rotate(names, registry.clock.now, keep=1))
        assert client.put(place, sha256(b"abcd"), b"d", Content_Range="3-3").status_code == 201
        other = client.open("a")
        registry.store.change(lambda names: keys.rotate(names, registry.clock.now, keep=0))
        refused(client, other)


class TestCost:
    """What is written, counted."""

    def test_open_sessions_cost_nothing(self, client: Client, registry: Pushed) -> None:
        """A thousand are opened and abandoned: no commit, no row, no byte."""
        before = commits(registry), rows(registry), registry.store.stats()
        for number in range(1000):
            client.open(f"abandoned/r{number}")
        assert (commits(registry), rows(registry), registry.store.stats()) == before

    def test_a_small_blob_is_one_commit(self, client: Client, registry: Pushed) -> None:
        """Bytes, link and repository together, by POST and PUT or by POST alone."""
        client.push(new_repository(), b"the first opens a journal")
        for by_put in (True, False):
            repository, data = new_repository(), b"small %d" % by_put
            before = commits(registry)
            if by_put:
                client.push(repository, data)
            else:
                client.ask("POST", f"/v2/{repository}/blobs/uploads/?digest={sha256(data)}", data)
            assert commits(registry) == before + 1
            assert client.blob(repository, sha256(data)).content == data

    def test_a_small_blob_in_two_steps_is_two_commits(self, client: Client, registry: Pushed) -> None:
        """As docker does: one for the bytes that a PATCH acknowledged, one for the blob; no pack is touched."""
        repository, data = new_repository(), b'{"config": true}'
        before, packs = commits(registry), registry.store.stats().packs
        place = client.open(repository)
        assert client.patch(place, iter([data])).status_code == 202
        assert client.put(place, sha256(data)).status_code == 201
        assert (commits(registry), registry.store.stats().packs) == (before + 2, packs)

    def test_what_is_here_is_not_stored_again(self, client: Client, registry: Pushed) -> None:
        """A blob pushed again, to the same repository and to others, adds no byte to the packs but names."""
        data = noise(90_000, 4)
        repository = new_repository()
        client.push(repository, data)
        before = registry.store.stats()
        client.push(repository, data)
        client.ask("POST", f"/v2/{repository}/blobs/uploads/?digest={sha256(data)}", data)
        assert registry.store.stats() == before
        client.push(new_repository(), data)
        after = registry.store.stats()
        assert (after.blobs, after.chunks) == (before.blobs, before.chunks)
        assert after.pack_bytes - before.pack_bytes < KIB

    def test_a_failed_push_leaves_no_repository(self, client: Client, registry: Pushed) -> None:
        """It is made by the first blob, in the same change."""
        for name in ("opened", "patched", "wrong"):
            place = client.open(f"never/{name}")
            if name != "opened":
                client.patch(place, b"abc")
            if name == "wrong":
                client.put(place, sha256(b"other"))
        assert not registry.store.scan("repo", "never/")
        assert not registry.store.scan("link", "never/")
        client.push("never/again", b"abc")
        assert [name.path for name, _ in registry.store.scan("repo", "never/")] == ["never/again"]


class TestLimit:
    """Blobs beyond the operator's limit."""

    def test_a_blob_may_be_as_large_as_the_limit(self, client: Client) -> None:
        """By every form, announced or not."""
        repository, data = new_repository(), noise(LIMIT, 1)
        assert client.put(client.open(repository), sha256(data), data).status_code == 201
        place = client.open(repository)
        assert client.patch(place, data[:60_000], Content_Range="0-59999").status_code == 202
        assert client.patch(place, iter([data[60_000:]])).status_code == 202
        assert client.put(place, sha512(data)).status_code == 201

    def test_a_larger_blob_is_refused(self, client: Client) -> None:
        """413, whichever request goes beyond; what was acknowledged before is still held."""
        repository, data = new_repository(), noise(LIMIT + 1, 2)
        digest, place = sha256(data), client.open(repository)
        assert client.patch(place, data[:60_000]).status_code == 202
        answers = [
            client.ask("POST", f"/v2/{repository}/blobs/uploads/?digest={digest}", data),
            client.ask("POST", f"/v2/{repository}/blobs/uploads/?digest={digest}", iter([data])),
            client.put(client.open(repository), digest, data),
            client.patch(client.open(repository), iter([data])),
            client.patch(place, data[60_000:]),
            client.patch(place, iter([data[60_000:]])),
            client.patch(place, data[60_000:], Content_Range=f"60000-{LIMIT}"),
            client.put(place, digest, data[60_000:], Content_Range=f"60000-{LIMIT}"),
        ]
        assert [(answer.status_code, code(answer)) for answer in answers] == [(413, "SIZE_INVALID")] * 8
        assert client.held(place) == 60_000
        assert client.blob(repository, digest).status_code == 404


class TestBeforeTheBody:
    """What headers alone can tell is told before a body is sent: these clients wait to be asked for theirs."""

    def answer(self, registry: Pushed, head: str, *more: str) -> bytes:
        """Send a request's head, and nothing else; return all that comes."""
        sock = registry.server.connect()
        lines = [head, "Host: a", *(more or ("Expect: 100-continue",)), "Connection: close", "", ""]
        sock.sendall("\r\n".join(lines).encode())
        try:
            return read_all(sock)
        except TimeoutError as error:
            raise AssertionError("it waits for the body") from error

    def test_a_bad_request_is_refused_before_its_body(self, client: Client, registry: Pushed) -> None:
        """Session, digest, range, length and limit."""
        place = client.open(new_repository())
        client.patch(place, b"abc")
        digest, many = sha256(b"x"), f"Content-Length: {LIMIT + 1}"
        heads = {
            f"PATCH {place}x HTTP/1.1\r\n{many}": 404,
            f"PUT {place}x?digest={digest} HTTP/1.1\r\n{many}": 404,
            f"PUT {place}?digest=sha256:x HTTP/1.1\r\n{many}": 400,
            f"PUT {place} HTTP/1.1\r\n{many}": 400,
            f"POST /v2/a/blobs/uploads/?digest=x HTTP/1.1\r\n{many}": 400,
            f"PATCH {place} HTTP/1.1\r\nContent-Length: 3\r\nContent-Range: 0-2": 416,
            f"PUT {place}?digest={digest} HTTP/1.1\r\nContent-Length: 3\r\nContent-Range: 4-6": 416,
            f"PATCH {place} HTTP/1.1\r\nContent-Length: 3\r\nContent-Range: 3-6": 400,
            f"PATCH {place} HTTP/1.1\r\nContent-Length: 3\r\nContent-Range: three": 400,
            f"PATCH {place} HTTP/1.1\r\n{many}": 413,
            f"PUT {place}?digest={digest} HTTP/1.1\r\n{many}": 413,
            f"POST /v2/a/blobs/uploads/?digest={digest} HTTP/1.1\r\n{many}": 413,
            f"PATCH /v2/A/blobs/uploads/x HTTP/1.1\r\n{many}": 400,
        }
        for head, status in heads.items():
            assert self.answer(registry, head).startswith(b"HTTP/1.1 %d " % status), head
        assert client.held(place) == 3

    def test_who_is_slow_is_refused_before_the_body_too(self, tmp_path: Path) -> None:
        """A large body may begin with its first bytes; the head of one that does not come is looked at by itself."""
        with pushing(tmp_path / "root") as registry, closing(registry.client()) as client:
            place, digest, length = client.open(new_repository()), sha256(b"x"), "Content-Length: 1000000"
            for method in (f"PATCH {place}x", f"PUT {place}x?digest={digest}"):
                assert self.answer(registry, f"{method} HTTP/1.1", length).startswith(b"HTTP/1.1 404 "), method
            ahead = "Content-Range: 4-1000003"
            assert self.answer(registry, f"PATCH {place} HTTP/1.1", length, ahead).startswith(b"HTTP/1.1 416 ")

    def test_who_repeats_the_end_is_answered_before_the_body(self, tmp_path: Path) -> None:
        """A large blob that was closed by this very request is there, whether or not its bytes come again."""
        with pushing(tmp_path / "root") as registry, closing(registry.client()) as client:
            data = noise(MIB, 77)
            place, digest = client.open(new_repository()), sha256(data)
            assert client.put(place, digest, data).status_code == 201
            assert client.put(place, digest, data).status_code == 201
            head = f"PUT {place}?digest={digest} HTTP/1.1"
            assert self.answer(registry, head, f"Content-Length: {MIB}").startswith(b"HTTP/1.1 201 ")

    def test_a_stranger_is_refused_before_the_body(self, tmp_path: Path) -> None:
        """401 on every route of uploads, whether there is such a session or not."""
        with pushing(tmp_path / "root", access=AccessSettings(mode=Mode.AUTH)) as registry:
            digest = sha256(b"x")
            for method, path in (
                ("POST", "a/blobs/uploads/"),
                ("POST", f"a/blobs/uploads/?digest={digest}"),
                ("POST", f"a/blobs/uploads/?mount={digest}"),
                ("PATCH", "a/blobs/uploads/x"),
                ("PUT", f"a/blobs/uploads/x?digest={digest}"),
                ("DELETE", "a/blobs/uploads/x"),
                ("GET", "a/blobs/uploads/x"),
            ):
                head = f"{method} /v2/{path} HTTP/1.1\r\nContent-Length: 1000000"
                assert self.answer(registry, head).startswith(b"HTTP/1.1 401 "), head
