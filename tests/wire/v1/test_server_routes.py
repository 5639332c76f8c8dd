"""Routes about the server itself, and what is no route at all."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from api.access.settings import AccessSettings, Mode
from api.app import build
from api.config import HttpSettings
from api.v1.settings import V1Settings
from tests.wire.v1.talk import Registry, new_id, refusal, running


@pytest.mark.parametrize("path", ["/v1/_ping", "/_ping", "/v1/_ping/"])
def test_ping_says_what_engines_look_for(registry: Registry, path: str) -> None:
    """Version for engines up to 0.10, the standalone flag for all that came after."""
    answer = registry.ask("GET", path)
    assert (answer.status, answer.body) == (200, b"{}")
    assert answer.headers["X-Docker-Registry-Version"] == "0.9.1"
    assert answer.headers["X-Docker-Registry-Standalone"] == "true"
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "no-cache"
    assert answer.headers["Pragma"] == "no-cache"
    assert answer.headers["Expires"] == "-1"


def test_ping_tells_clients_of_a_server_with_accounts_to_send_tokens(tmp_path: Path) -> None:
    """It says so to everybody, whatever they show: clients ask before they have anything."""
    with running(tmp_path / "root", access=AccessSettings(mode=Mode.AUTH)) as registry:
        for headers in ({}, {"Authorization": "Basic nonsense"}):
            answer = registry.ask("GET", "/v1/_ping", headers=headers)
            assert (answer.status, answer.headers["X-Docker-Registry-Standalone"]) == (200, "false")


def test_an_index_of_several_registries_names_each_on_a_line_of_its_own(tmp_path: Path) -> None:
    """Old engines do not split at commas; newer ones merge the lines."""
    with running(tmp_path / "root", v1=V1Settings(endpoints="a.example, b.example:5000")) as registry:
        answer = registry.ask("PUT", "/v1/repositories/a/b/", b"[]")
    assert answer.headers.get_all("X-Docker-Endpoints") == ["a.example", "b.example:5000"]


@pytest.mark.parametrize("authorization", ["Basic Og==", "Basic nonsense", "Token", "Token ", "Bearer x", "x" * 5000])
def test_an_open_registry_ignores_every_authorization_header(registry: Registry, authorization: str) -> None:
    """Also the one a client without credentials sends: it means nobody, not a wrong password."""
    headers = {"Authorization": authorization}
    assert registry.ask("GET", "/v1/_ping", headers=headers).status == 200
    image_id = registry.image()
    assert registry.ask("GET", f"/v1/images/{image_id}/json", headers=headers).status == 200
    assert registry.ask("PUT", "/v1/repositories/tests/open/", b"[]", headers).status == 200


def test_the_root_names_the_server(registry: Registry) -> None:
    """A JSON string."""
    answer = registry.ask("GET", "/")
    assert (answer.status, answer.value) == (200, "cas registry")


@pytest.mark.parametrize("path", ["/v1/_status", "/_status"])
def test_status_says_that_the_storage_answers(registry: Registry, path: str) -> None:
    """Services, failures, host."""
    answer = registry.ask("GET", path)
    assert answer.status == 200
    assert answer.value == {"services": ["storage"], "failures": {}, "host": registry.host}


def test_no_route_of_ours_says_that_it_is_another_protocol(registry: Registry) -> None:
    """Only what begins with /v2 carries the header by which engines tell the two apart."""
    for path, expected in (("/v1/_ping", None), ("/", None), ("/v2x", None), ("/v2/", "registry/2.0")):
        assert registry.ask("GET", path).headers["Docker-Distribution-Api-Version"] == expected


@pytest.mark.parametrize("path", ["/nothing", "/v1", "/v1/", "/v1/images", "/v1/images/x", "/v1/nothing/at/all", "//"])
def test_an_unknown_path_is_404_in_json(registry: Registry, path: str) -> None:
    """Not a page of HTML."""
    answer = registry.ask("GET", path)
    assert (answer.status, answer.body) == (404, refusal("Not found"))
    assert answer.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/v1/_ping", "GET, HEAD"),
        ("DELETE", f"/v1/images/{'1' * 64}/layer", "GET, HEAD, PUT"),
        ("GET", f"/v1/images/{'1' * 64}/checksum", "PUT"),
        ("PUT", "/v1/repositories/a/b/tags", "DELETE, GET, HEAD"),
        ("PUT", "/v1/repositories/a/b/tags/x/json", "GET, HEAD"),
        ("GET", "/v1/repositories/a/b", "DELETE, PUT"),
        ("PATCH", "/v1/repositories/a/b/images", "DELETE, GET, HEAD, PUT"),
        ("OPTIONS", "/", "GET, HEAD"),
    ],
)
def test_an_unknown_method_is_405_in_json(registry: Registry, method: str, path: str, allowed: str) -> None:
    """And says what would do."""
    answer = registry.ask(method, path)
    assert (answer.status, answer.body) == (405, refusal("Method not allowed"))
    assert answer.headers["Allow"] == allowed


def test_head_is_get_without_the_body(registry: Registry) -> None:
    """On every route that has GET."""
    image_id = registry.image(b"layer")
    registry.tag("tests/head", "latest", image_id)
    paths = [
        "/",
        "/v1/_ping",
        "/v1/_status",
        *(f"/v1/images/{image_id}/{part}" for part in ("json", "layer", "ancestry")),
    ]
    repository = "/v1/repositories/tests/head"
    paths += [
        f"{repository}/{part}" for part in ("tags", "tags/latest", "tags/latest/json", "json", "images", "properties")
    ]
    for path in paths:
        get, head = registry.ask("GET", path), registry.ask("HEAD", path)
        assert (head.status, head.body) == (200, b""), path
        assert dict(head.headers) | {"date": ""} == dict(get.headers) | {"date": ""}, path
    assert registry.ask("HEAD", f"/v1/images/{new_id()}/layer").status == 404


@pytest.mark.parametrize(
    "target",
    [
        "/v1/images/..%2f..%2fetc/json",
        "/v1/images/../_ping",
        "/v1/images/%2e%2e/_ping",
        "/v1/repositories/a%2fb/tags",
        "/v1/repositories/a%00b/tags",
        "/v1/repositories/a/b/tags/x%0a",
        "/v1/repositories/%ff/tags",
        "/v1/%zz",
        "/v1/repositories/a%5cb/tags",
        "/v1/repositories/a\\b/tags",
    ],
)
def test_a_path_with_tricks_is_400(registry: Registry, target: str) -> None:
    """Whatever it was meant to reach."""
    raw = registry.raw(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    head, _, body = raw.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert list(json.loads(body)) == ["error"]


def test_a_path_is_decoded_once(registry: Registry) -> None:
    """A doubly encoded name is another name, and here no name at all."""
    image_id = registry.image()
    registry.tag("tests/once", "a-b", image_id)
    assert registry.ask("GET", "/v1/repositories/tests/once/tags/a%2Db").value == image_id
    assert registry.ask("GET", "/v1/repositories/tests/once/tags/a%252Db").status == 404
    assert registry.ask("GET", "/v1/repositories/tests%252Fonce/tags").status == 400


def test_an_absolute_target_is_understood(registry: Registry) -> None:
    """The form a client sends to a proxy."""
    raw = registry.raw(b"GET http://elsewhere/v1/_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert raw.startswith(b"HTTP/1.1 200 ")


def test_neither_cookies_nor_agents_nor_types_are_expected_or_set(registry: Registry) -> None:
    """Scripts send what they like; the whole protocol is stateless."""
    headers = {"Cookie": "session=x", "User-Agent": "", "Accept": "text/html", "Content-Type": "text/plain"}
    answer = registry.ask("PUT", "/v1/repositories/tests/plain/", b"[]", headers)
    assert (answer.status, answer.headers["Set-Cookie"]) == (200, None)


def test_a_wish_to_speak_websocket_is_ignored(registry: Registry, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing here speaks it; a stranger's handshake is a request like any other, and no error of ours."""
    handshake = (
        b"GET /v1/_ping HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    assert registry.raw(handshake).startswith(b"HTTP/1.1 200 ")
    assert [record.getMessage() for record in caplog.records if record.levelname != "DEBUG"] == []


def test_a_server_that_speaks_websocket_is_told_no(registry: Registry) -> None:
    """The application runs under any ASGI server; some offer it what this one does not."""
    told: list[object] = []

    async def send(message: object) -> None:
        told.append(message)

    async def receive() -> dict[str, str]:
        return {"type": "websocket.connect"}

    app = build(registry.store, HttpSettings())
    scope = {"type": "websocket", "path": "/v1/_ping", "headers": [], "root_path": ""}
    asyncio.run(app(scope, receive, send))  # type: ignore[arg-type]
    assert told == [{"type": "websocket.close"}]


def test_both_slash_forms_are_the_same_and_nothing_redirects(registry: Registry) -> None:
    """Libraries turn a redirected PUT into a GET."""
    image_id = registry.image()
    base = "/v1/repositories/tests/slashes"
    for end in ("", "/"):
        body = json.dumps(image_id).encode()
        for method, path, sent, status in (
            ("PUT", base, b"[]", 200),
            ("PUT", f"{base}/images", b"[]", 204),
            ("PUT", f"{base}/tags/latest", body, 200),
            ("PUT", f"{base}/properties", b'{"access": "public"}', 200),
            *(("GET", f"{base}/{part}", None, 200) for part in ("tags", "tags/latest", "json", "images")),
            *(("GET", f"/v1/images/{image_id}/{part}", None, 200) for part in ("json", "layer", "ancestry")),
            ("GET", "/v1/_status", None, 200),
            ("DELETE", f"{base}/tags/latest", None, 200),
            ("DELETE", base, None, 200),
        ):
            assert registry.ask(method, path + end, sent).status == status, (method, path + end)


def test_a_configured_host_is_what_clients_are_sent_to(tmp_path: Path) -> None:
    """For a registry behind a proxy that hides the name its clients use."""
    with running(tmp_path / "root", http=HttpSettings(public_url="https://registry.example")) as registry:
        answer = registry.ask("PUT", "/v1/repositories/a/b/", b"[]", {"Host": "inside:5000"})
    assert answer.headers["X-Docker-Endpoints"] == "registry.example"
