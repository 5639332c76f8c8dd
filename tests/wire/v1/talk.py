"""Short ways for tests to speak to a registry: single requests, whole images, and raw bytes."""

from __future__ import annotations

import hashlib
import http.client
import itertools
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from api.app import build
from api.config import HttpSettings
from api.v1.settings import V1Settings
from cas import EngineSettings, Store
from cas.disk import Disk
from tests.v1client import Answer, Client
from tests.wire.harness import Running, read_all, serving

NOW = 1_795_437_699.0
TRUE = b"true"
_numbers = itertools.count(1)


def new_id() -> str:
    """An image id that no other test of this process uses."""
    return hashlib.sha256(b"id %d" % next(_numbers)).hexdigest()


def new_repository() -> str:
    """A repository that no other test of this process uses."""
    return f"tests/r{next(_numbers)}"


def image_json(image_id: str, parent: str | None = None, **more: object) -> bytes:
    content = {"id": image_id} | ({"parent": parent} if parent else {}) | more
    return json.dumps(content).encode()


def payload(body: bytes, layer: bytes) -> str:
    """Compute the payload checksum of an image."""
    return "sha256:" + hashlib.sha256(body + b"\n" + layer).hexdigest()


@dataclass
class Clock:
    """The registry's time, as far as a test moves it."""

    now: float = NOW

    def __call__(self) -> float:
        return self.now


@dataclass
class Registry:
    """A running registry."""

    store: Store
    server: Running
    clock: Clock = field(default_factory=Clock)

    @property
    def host(self) -> str:
        address, port = self.server.address
        return f"{address}:{port}"

    def client(self) -> Client:
        return Client(*self.server.address)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | Iterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Make one request on a connection of its own, with no header but what is needed."""
        with closing(http.client.HTTPConnection(*self.server.address, timeout=30)) as connection:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())

    def raw(self, data: bytes, *, end: bool = True) -> bytes:
        """Send bytes and read to the end of the connection; `end` says that no more will come."""
        sock = self.server.connect()
        sock.sendall(data)
        if end:
            sock.shutdown(socket.SHUT_WR)
        return read_all(sock)

    def put_json(self, image_id: str, body: bytes | None = None, **headers: str) -> Answer:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask("PUT", f"/v1/images/{image_id}/json", body or image_json(image_id), names)

    def put_layer(self, image_id: str, layer: bytes) -> Answer:
        return self.ask("PUT", f"/v1/images/{image_id}/layer", layer)

    def put_checksum(self, image_id: str, payload: str | None = None, *, tarsum: str | None = None) -> Answer:
        headers = {"X-Docker-Checksum-Payload": payload, "X-Docker-Checksum": tarsum}
        given = {name: value for name, value in headers.items() if value is not None}
        return self.ask("PUT", f"/v1/images/{image_id}/checksum", None, {"Content-Length": "0", **given})

    def image(self, layer: bytes = b"a layer", parent: str | None = None) -> str:
        """Push one complete image and return its id."""
        image_id = new_id()
        body = image_json(image_id, parent)
        assert self.put_json(image_id, body).status == 200
        assert self.put_layer(image_id, layer).status == 200
        assert self.put_checksum(image_id, payload(body, layer)).status == 200
        return image_id

    def tag(self, repository: str, tag: str, image_id: str) -> Answer:
        return self.ask("PUT", f"/v1/repositories/{repository}/tags/{tag}", json.dumps(image_id).encode())


@contextmanager
def running(
    root: Path,
    http: HttpSettings | None = None,
    v1: V1Settings | None = None,
    *,
    engine: EngineSettings | None = None,
    disk: Disk | None = None,
) -> Iterator[Registry]:
    """Run a registry over a store of its own."""
    http, clock = http or HttpSettings(), Clock()
    with Store.open(root, engine or EngineSettings(), create=True, disk=disk) as store:
        app = build(store, http, v1 or V1Settings(), clock=clock)
        with serving(app, http) as server:
            yield Registry(store, server, clock)


def refusal(text: str) -> bytes:
    """The one and only form of an error body."""
    return json.dumps({"error": text}).encode()
