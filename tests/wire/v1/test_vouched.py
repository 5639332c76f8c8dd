"""A registry without accounts and a separate index that vouches: two real servers, and what happens without one."""

from __future__ import annotations

import http.server
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from api.access.settings import AccessSettings, Mode
from api.app import build
from api.config import HttpSettings
from api.v1.rights import Side
from api.v1.routes import TABLE
from api.v1.settings import V1Settings
from cas import Store
from tests.support.serving import Server, StartServer, reserved_port
from tests.v1client import Client, Refused, chain
from tests.wire.v1.talk import Registry, basic, image_json, new_id, payload, refusal, running


@dataclass
class Pair:
    """Two servers: who may, and where it is kept."""

    index: Server
    registry: Server

    def client(self, user: str | None) -> Client:
        name = basic(user)["Authorization"] if user is not None else None
        return Client(self.index.host, self.index.port, basic=name)


@pytest.fixture
def pair(server: StartServer, tmp_path: Path) -> Pair:
    with reserved_port() as port:
        index = server(tmp_path / "index", flags=["--mode", "auth", "--v1-endpoints", f"127.0.0.1:{port}"])
        flags = ["--mode", "token", "--index-url", index.url]
        registry = server(tmp_path / "registry", bind=f"127.0.0.1:{port}", flags=flags)
    for name in ("alice", "bob"):
        account = json.dumps({"username": name, "password": "secret"}).encode()
        connection = index.connection()
        connection.request("POST", "/v1/users/", account, {"Connection": "close"})
        assert connection.getresponse().status == 201
        connection.close()
    return Pair(index, registry)


def test_a_push_and_a_pull_go_through_both_servers(pair: Pair) -> None:
    """The index sees passwords and lists, the registry tokens and layers; who is no member gets nothing."""
    images = chain([b"base", b"middle", b"top"], seed="vouched")
    alice = pair.client("alice")
    assert alice.push("alice/app", images, ["latest"]) == [image.id for image in images]
    assert alice.push("alice/app", images, ["again"]) == []
    assert [pulled.id for pulled in alice.pull("alice/app", "again")] == [image.id for image in images]
    for outsider in (pair.client("bob"), pair.client(None)):
        with pytest.raises(Refused, match="begin pull"):
            outsider.pull("alice/app", "latest")
    bob = pair.client("bob")
    bob.index("PUT", "/v1/repositories/bob/own/", [{"id": image.id} for image in images])
    for image in images:  # listed at the index by bob, but never brought here by him
        assert bob.registry("GET", f"/v1/images/{image.id}/json").status == 404
        assert bob.registry("GET", f"/v1/images/{image.id}/layer").status == 404
    assert bob.registry("GET", "/v1/repositories/alice/app/tags").status == 401
    assert alice.registry("DELETE", "/v1/repositories/alice/app/").status == 401
    gone = alice.index("DELETE", "/v1/repositories/alice/app/")
    assert gone.status == 202
    assert pair.registry.get("/v1/_ping")[0] == 200


def test_only_what_the_index_lists_is_taken(pair: Pair) -> None:
    """The list is the index's; an id that was added since is found by asking again."""
    alice = pair.client("alice")
    listed, later, unlisted = new_id(), new_id(), new_id()
    alice.index("PUT", "/v1/repositories/alice/app/", [{"id": listed}])
    assert alice.registry("PUT", f"/v1/images/{listed}/json", image_json(listed)).status == 200
    answer = alice.registry("PUT", f"/v1/images/{unlisted}/json", image_json(unlisted))
    assert (answer.status, answer.body) == (400, refusal("This image does not belong to the repository"))
    kept = alice.token
    alice.index("PUT", "/v1/repositories/alice/app/", [{"id": later}])
    alice.token = kept
    assert alice.registry("PUT", f"/v1/images/{later}/json", image_json(later, listed)).status == 200
    answer = alice.registry("PUT", f"/v1/images/{later}/json", image_json(later, unlisted))
    assert (answer.status, answer.body) == (400, refusal("Image depends on an unauthorized parent"))


def test_routes_of_an_index_are_not_there(pair: Pair) -> None:
    """Whoever asks the registry for what only an index knows gets a 404, not a wrong answer."""
    for path, entries in TABLE:
        filled = path.replace("{repo:path}", "a/b").replace("{id}", "a" * 64).replace("{name}", "bob")
        for method, entry in entries.items():
            if entry.side is Side.INDEX:
                connection = pair.registry.connection()
                connection.request(method, filled, headers={"Connection": "close", **basic("alice")})
                response = connection.getresponse()
                assert (response.status, response.read()) == (404, refusal("Not found")), (method, path)
                connection.close()


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Basic Og==",
        basic("alice")["Authorization"],
        "Token",
        "Token x",
        "Token signature=1,access=write",
        'Token signature=1,repository="alice",access=write',
        'Token signature=1,repository="../x",access=write',
        'Token signature=1,repository="alice/app",access=everything',
        'Token signature=1,repository="b/c",access=write',
    ],
)
def test_what_cannot_be_a_good_token_is_refused_without_asking(tmp_path: Path, header: str) -> None:
    """A password is never passed on, and nobody makes the registry ask an index for nothing."""
    with vouched_by("http://127.0.0.1:9", tmp_path) as registry:
        headers = {"Authorization": header} if header else {}
        answer = registry.ask("PUT", "/v1/repositories/alice/app/tags/x", b'"x"', headers)
        assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Token")


@contextmanager
def vouched_by(url: str, tmp_path: Path, **settings: float) -> Iterator[Registry]:
    """Run a registry that trusts an index."""
    access = AccessSettings(mode=Mode.TOKEN, index_url=url)
    with running(tmp_path / "root", v1=V1Settings(**settings), access=access) as registry:  # type: ignore[arg-type]
        yield registry


class FakeIndex(http.server.BaseHTTPRequestHandler):
    """An index that answers what it was told to, and remembers what it was asked."""

    status = 200
    said: dict[str, bytes]  # by the last part of the path
    asked: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        type(self).asked.append((self.path, self.headers["Authorization"]))
        self.send_response(type(self).status)
        body = type(self).said[self.path.rsplit("/", 1)[1]]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


@contextmanager
def index_saying(status: int, body: bytes) -> Iterator[tuple[str, type[FakeIndex]]]:
    handler = type("Handler", (FakeIndex,), {"status": status, "said": {"images": body}, "asked": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as fake:
        thread = threading.Thread(target=fake.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{fake.server_address[1]}", handler
        finally:
            fake.shutdown()
            thread.join()


GOOD = 'Token Token signature=1,repository="alice/app",access=write'


def test_a_good_answer_is_remembered_for_a_minute_and_a_bad_one_not_at_all(tmp_path: Path) -> None:
    """Hundreds of requests of a push are one question; the header is passed on as it came."""
    with index_saying(200, b"[]") as (url, fake), vouched_by(url, tmp_path) as registry:
        for _ in range(3):
            assert registry.ask("GET", "/v1/repositories/alice/app/tags", None, {"Authorization": GOOD}).status == 404
        assert fake.asked == [("/v1/repositories/alice/app/images", GOOD)]
        fake.status = 401
        registry.clock.now += 61
        for number in range(2, 4):
            assert registry.ask("GET", "/v1/repositories/alice/app/tags", None, {"Authorization": GOOD}).status == 401
            assert len(fake.asked) == number
        fake.status = 200
        assert registry.ask("GET", "/v1/repositories/alice/app/tags", None, {"Authorization": GOOD}).status == 404


@pytest.mark.parametrize(
    ("status", "body"), [(500, b""), (503, b"x"), (200, b"no json"), (200, b"\xff"), (200, b"[" * 99_999)]
)
def test_an_index_that_makes_no_sense_is_503(tmp_path: Path, status: int, body: bytes) -> None:
    """The client may try again; nobody is let in, and nobody is told that his token is bad."""
    with index_saying(status, body) as (url, _), vouched_by(url, tmp_path) as registry:
        answer = registry.ask("GET", "/v1/repositories/alice/app/tags", None, {"Authorization": GOOD})
        assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
        assert b"index" in answer.body


@pytest.mark.parametrize("body", [b"{}", b"null", b'[7, {"id": 7}, {"id": "short"}, {}]'])
def test_a_list_of_another_shape_lists_nothing(tmp_path: Path, body: bytes) -> None:
    """The token is good, since the index took it; but no image is in its list."""
    with index_saying(200, body) as (url, _), vouched_by(url, tmp_path) as registry:
        image_id = new_id()
        answer = registry.ask("PUT", f"/v1/images/{image_id}/json", image_json(image_id), {"Authorization": GOOD})
        assert (answer.status, answer.body) == (400, refusal("This image does not belong to the repository"))


def test_an_index_that_is_not_there_or_says_nothing_is_503(tmp_path: Path) -> None:
    """Refused connections and silence alike, within the time that was set."""
    with socket.create_server(("127.0.0.1", 0)) as silent, reserved_port() as deaf:
        for number, port in enumerate((deaf, silent.getsockname()[1])):
            with vouched_by(f"http://127.0.0.1:{port}", tmp_path / str(number), index_timeout_s=0.2) as registry:
                answer = registry.ask("GET", "/v1/repositories/alice/app/tags", None, {"Authorization": GOOD})
                assert answer.status == 503


def test_a_private_image_is_opened_by_the_index_alone(tmp_path: Path) -> None:
    """Even to a token of its repository; what the index denies is not there."""
    image_id = new_id()
    listed = json.dumps([{"id": image_id}]).encode()
    with index_saying(200, listed) as (url, fake), vouched_by(url, tmp_path) as registry:
        fake.said["access"] = b'{"access": true}'
        good, body = {"Authorization": GOOD}, image_json(image_id)
        tag = ("PUT", "/v1/repositories/alice/app/properties", b'{"access": "private"}')
        assert registry.ask(*tag, good).status == 200
        for part, sent, more in (
            ("json", body, {}),
            ("layer", b"x", {}),
            ("checksum", None, {"X-Docker-Checksum-Payload": payload(body, b"x")}),
        ):
            assert registry.ask("PUT", f"/v1/images/{image_id}/{part}", sent, good | more).status == 200
        assert registry.ask("GET", f"/v1/images/{image_id}/layer", None, good).body == b"x"
        fake.said["access"] = b'{"access": false}'
        registry.clock.now += 61
        assert registry.ask("GET", f"/v1/images/{image_id}/layer", None, good).status == 404


def test_token_mode_without_an_index_does_not_start(tmp_path: Path) -> None:
    """There would be nobody to ask."""
    with Store.open(tmp_path / "root", create=True) as store, pytest.raises(ValueError, match="index_url"):
        build(store, HttpSettings(), access=AccessSettings(mode=Mode.TOKEN))
