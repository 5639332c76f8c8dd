"""Short ways for tests to speak to a registry: single requests, whole images, and raw bytes."""

from __future__ import annotations

import base64
import hashlib
import http.client
import itertools
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from api.access import grants
from api.access.accounts import Accounts
from api.access.principal import Action
from api.access.settings import AccessSettings, Mode
from api.app import build
from api.config import HttpSettings
from api.content import repositories
from api.content.repositories import Access
from api.content.repository import Repository
from api.v1.settings import V1Settings
from cas import EngineSettings, Store
from cas.disk import Disk
from tests.v1client import Answer, Client, chain
from tests.wire.harness import Clock, Running, read_all, serving

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

    def put_checksum(
        self, image_id: str, payload: str | None = None, *, tarsum: str | None = None, agent: str | None = None
    ) -> Answer:
        headers = {"X-Docker-Checksum-Payload": payload, "X-Docker-Checksum": tarsum, "User-Agent": agent}
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


def basic(user: str, password: str = "secret") -> dict[str, str]:
    """Make the header that names a user."""
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def token(answer: Answer) -> dict[str, str]:
    """Make the header that sends back the token of an answer, as engines do."""
    return {"Authorization": f"Token {answer.headers['X-Docker-Token']}"}


WANT = {"X-Docker-Token": "true"}


@dataclass
class Guarded:
    """A running registry with accounts, whose password is `secret`."""

    registry: Registry
    settings: AccessSettings

    def account(self, name: str, *, admin: bool = False) -> dict[str, str]:
        """Make an account, and the header that names it."""
        accounts = Accounts(self.registry.store, self.settings, self.registry.clock)
        accounts.add(name, "secret", admin=admin, inherit=True)
        return basic(name)

    def grant(self, user: str, pattern: str, *actions: str) -> None:
        self.registry.store.change(lambda names: grants.put(names, user, pattern, map(Action, actions)))

    def publish(self, repository: str, access: Access = Access.PUBLIC) -> None:
        there = self.registry.store.change(
            lambda names: repositories.set_access(names, Repository.of(repository), access)
        )
        assert there

    def client(self, user: str | None = None) -> Client:
        """Give an engine that somebody has logged in with, or nobody."""
        client = self.registry.client()
        client.basic = basic(user)["Authorization"] if user is not None else None
        return client

    def push(self, user: str, repository: str, layers: int = 1, tag: str = "latest") -> list[str]:
        """Push a chain as an engine does; returns its ids, base first."""
        images = chain([b"layer %d of " % number + repository.encode() for number in range(layers)], seed=new_id())
        assert self.client(user).push(repository, images, [tag]) == [image.id for image in images]
        return [image.id for image in images]


@contextmanager
def guarding(root: Path, v1: V1Settings | None = None, **settings: Any) -> Iterator[Guarded]:
    """Run a registry with accounts over a store of its own."""
    access = AccessSettings(mode=Mode.AUTH, **settings)
    with running(root, v1=v1, access=access) as registry:
        yield Guarded(registry, access)


@contextmanager
def running(
    root: Path,
    http: HttpSettings | None = None,
    v1: V1Settings | None = None,
    access: AccessSettings | None = None,
    *,
    engine: EngineSettings | None = None,
    disk: Disk | None = None,
) -> Iterator[Registry]:
    """Run a registry over a store of its own."""
    http, clock = http or HttpSettings(), Clock()
    with Store.open(root, engine or EngineSettings(), create=True, disk=disk) as store:
        app = build(store, http, v1 or V1Settings(), access or AccessSettings(), clock=clock)
        with serving(app, http, moment=store.moment) as server:
            yield Registry(store, server, clock)


def refusal(text: str) -> bytes:
    """The one and only form of an error body."""
    return json.dumps({"error": text}).encode()
