"""One push and one pull of an engine, byte by byte as they were watched, and the answers it was given."""

from __future__ import annotations

import json
import random

from api.v1.image import EMPTY_LAYER
from tests.wire.v1.talk import Guarded, Registry, payload

AGENT = (
    "User-Agent: docker/1.13.1 go/go1.7.5 git-commit/092cba3 kernel/4.4.0 os/linux arch/amd64 "
    "UpstreamClient(Docker-Client/1.13.1 \\(linux\\))"
)
COMMON = f"{AGENT}\r\nAccept-Encoding: gzip\r\nConnection: close"
BASIC = "Authorization: Basic Ym9iOnNlY3JldA=="
ONE, TWO = "1" * 64, "2" * 64
JSON_1 = b'{"id":"%s"}' % ONE.encode()
JSON_2 = b'{"id":"%s","parent":"%s"}' % (TWO.encode(), ONE.encode())
LAYER_2 = random.Random(4).randbytes(0x49 + 0xB + 0x1B)


def spoken(registry: Registry, line: str, *headers: str, body: bytes = b"") -> tuple[str, dict[str, str], bytes]:
    head = "\r\n".join([f"{line} HTTP/1.1", f"Host: {registry.host}", COMMON, *headers, "", ""])
    answer = registry.raw(head.encode() + body, end=False)
    top, _, content = answer.partition(b"\r\n\r\n")
    status, *fields = top.decode().split("\r\n")
    pairs = (field.split(": ", 1) for field in fields)
    return status.split(" ", 2)[1], {name.lower(): value for name, value in pairs}, content


def in_chunks(layer: bytes, *sizes: int) -> bytes:
    out, at = b"", 0
    for size in sizes:
        out += b"%x\r\n" % size + layer[at : at + size] + b"\r\n"
        at += size
    return out + b"0\r\n\r\n"


def push_one(registry: Registry, token: str, body: bytes, layer: bytes, *sizes: int) -> None:
    base = f"/v1/images/{ONE if body == JSON_1 else TWO}"
    status, _, content = spoken(registry, f"GET {base}/json", token)
    assert (status, content) == ("404", b'{"error": "Image not found"}')
    json_headers = ("Content-Type: application/json", f"Content-Length: {len(body)}")
    status, _, content = spoken(registry, f"PUT {base}/json", token, *json_headers, body=body)
    assert (status, content) == ("200", b"true")
    octets = ("Content-Type: application/octet-stream", "Transfer-Encoding: chunked")
    status, _, content = spoken(registry, f"PUT {base}/layer", token, *octets, body=in_chunks(layer, *sizes))
    assert (status, content) == ("200", b"true")
    checksums = ("X-Docker-Checksum: tarsum+sha256:" + "0" * 64, f"X-Docker-Checksum-Payload: {payload(body, layer)}")
    status, headers, content = spoken(registry, f"PUT {base}/checksum", token, "Content-Length: 0", *checksums)
    assert (status, content) == ("200", b"true")
    assert headers["content-type"] == "application/json"
    assert "x-docker-token" not in headers


def test_a_push_and_a_pull_as_they_were_watched(empty_registry: Registry) -> None:
    """The requests of engine 1.13.1, byte by byte, and the answers it was given."""
    push_watched(empty_registry)
    pull_watched(empty_registry)
    search_watched(empty_registry)


def test_the_same_push_and_pull_with_accounts(guarded: Guarded) -> None:
    """Bob may, in a name space that was granted to him; the registry's side sees his token and never his password."""
    guarded.account("bob")
    guarded.grant("bob", "foo/*", "pull", "push")
    push_watched(guarded.registry)
    pull_watched(guarded.registry, cache="private")
    search_watched(guarded.registry)
    nobody = "Authorization: Basic Og=="
    assert spoken(guarded.registry, "GET /v1/repositories/foo/bar/images", nobody)[0] == "401"
    assert spoken(guarded.registry, f"GET /v1/images/{TWO}/json", nobody)[0] == "401"


INDEX = (BASIC, "X-Docker-Token: true")
QUOTED = f'"{TWO}"'.encode()


def push_watched(registry: Registry) -> None:
    assert payload(JSON_1, EMPTY_LAYER) == ("sha256:868d8f8db3be4ff25b87cb3681c2d2ae1fcbc11181b7e7ba489cb4eb0902f63e")
    # 1: the list, with its tags
    entries = f'{{"id":"{ONE}"}},{{"id":"{TWO}","Tag":"latest"}},{{"id":"{TWO}","Tag":"1.0"}}'
    body = f"[{entries}]".encode()
    assert len(body) == 250
    sent = ("Content-type: application/json", "Content-Length: 250")
    status, headers, content = spoken(registry, "PUT /v1/repositories/foo/bar/", *INDEX, *sent, body=body)
    assert (status, content) == ("200", b'""')
    assert headers["x-docker-endpoints"] == registry.host
    token = f"Authorization: Token Token {headers['x-docker-token']}"
    # 2 – 9: the images
    push_one(registry, token, JSON_1, EMPTY_LAYER, 0x20)
    push_one(registry, token, JSON_2, LAYER_2, 0x49, 0xB, 0x1B)
    # 10, 11: the tags
    for tag in ("latest", "1.0"):
        sent = ("Content-Type: application/json", "Content-Length: 66")
        line = f"PUT /v1/repositories/foo/bar/tags/{tag}"
        status, headers, content = spoken(registry, line, token, *sent, body=QUOTED)
        assert (status, content) == ("200", b"true")
    # 12: the end
    end = (f"X-Docker-Endpoints: http://{registry.host}/v1/", "Content-Length: 2")
    status, headers, content = spoken(registry, "PUT /v1/repositories/foo/bar/images", *INDEX, *end, body=b"[]")
    assert (status, content) == ("204", b"")
    assert "access=write" in headers["x-docker-token"]


def pull_watched(registry: Registry, *, cache: str = "public") -> None:
    # 13: a pull begins
    status, headers, content = spoken(registry, "GET /v1/repositories/foo/bar/images", *INDEX)
    assert (status, content) == ("200", f'[{{"id": "{ONE}"}}, {{"id": "{TWO}"}}]'.encode())
    assert headers["x-docker-endpoints"] == registry.host
    token = f"Authorization: Token {headers['x-docker-token']}"
    assert token.endswith(',repository="foo/bar",access=read')
    # 14 – 16: tags and ancestry
    status, headers, content = spoken(registry, "GET /v1/repositories/foo/bar/tags", token)
    assert (status, content) == ("200", f'{{"1.0": "{TWO}", "latest": "{TWO}"}}'.encode())
    status, _, content = spoken(registry, "GET /v1/repositories/foo/bar/tags/latest", token)
    assert (status, content) == ("200", QUOTED)
    status, headers, content = spoken(registry, f"GET /v1/images/{TWO}/ancestry", token)
    assert (status, content) == ("200", f'["{TWO}", "{ONE}"]'.encode())
    assert headers["cache-control"] == f"{cache}, max-age=31536000"
    # 17 – 20: the images
    for image_id, text, layer in ((TWO, JSON_2, LAYER_2), (ONE, JSON_1, EMPTY_LAYER)):
        status, headers, content = spoken(registry, f"GET /v1/images/{image_id}/json", token)
        assert (status, content) == ("200", text)
        assert headers["x-docker-size"] == str(len(layer))
        assert headers["x-docker-checksum-payload"] == payload(text, layer)
        status, headers, content = spoken(registry, f"GET /v1/images/{image_id}/layer", token)
        assert (status, content) == ("200", layer)
        assert headers["accept-ranges"] == "bytes"


def search_watched(registry: Registry) -> None:
    # 21: and found it is
    status, headers, content = spoken(registry, "GET /v1/search?q=foo&n=25", *INDEX)
    assert (status, headers["cache-control"]) == ("200", "no-cache")
    result = {"name": "foo/bar", "description": "", "star_count": 0}
    flags = {"is_official": False, "is_automated": False, "is_trusted": False}
    page = {"query": "foo", "num_results": 1, "num_pages": 1, "page": 1, "page_size": 25}
    assert json.loads(content) == {**page, "results": [{**result, **flags}]}
