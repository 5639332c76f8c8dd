"""Short ways for tests to push blobs: a registry of one's own, and a client over HTTP/1.1 or HTTP/2."""

from __future__ import annotations

import hashlib
import itertools
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from api.access.settings import AccessSettings
from api.access_log import AccessLog
from api.app import build
from api.config import HttpSettings
from api.counts import Counts
from api.v2.settings import V2Settings
from cas import EngineSettings, Store
from cas.disk import Disk
from tests.support.engine import noise
from tests.wire.blobs import trusting
from tests.wire.harness import PATIENCE_S, Clock, Running, serving

KIB, MIB = 1 << 10, 1 << 20
_numbers = itertools.count(1)

Body = bytes | Iterator[bytes]


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def sha512(data: bytes) -> str:
    return f"sha512:{hashlib.sha512(data).hexdigest()}"


def new_repository() -> str:
    """A repository that no other test of this process uses."""
    return f"pushes/r{next(_numbers)}"


def new_data(size: int) -> bytes:
    """Bytes that no other test of this process uses, if they are more than a few."""
    return noise(size, next(_numbers))


@dataclass
class Pushed:
    """A running registry."""

    store: Store
    server: Running
    clock: Clock
    scheme: str = "http"

    def client(self, *, http2: bool = False, **headers: str) -> Client:
        host, port = self.server.address
        return Client(f"{self.scheme}://{host}:{port}", http2=http2, headers=headers)


class Client:
    """One client; every request as HTTP has it, no header but what is needed."""

    def __init__(self, url: str, *, http2: bool = False, headers: Mapping[str, str] | None = None) -> None:
        self.http2 = http2
        self.speech = httpx2.Client(
            base_url=url,
            http1=not http2,
            http2=http2,
            timeout=PATIENCE_S,
            trust_env=False,
            headers=dict(headers or {}),
            verify=trusting(),
        )

    def close(self) -> None:
        self.speech.close()

    def ask(self, method: str, path: str, body: Body | None = None, **headers: str) -> httpx2.Response:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.speech.request(method, path, content=body, headers=names)

    def open(self, repository: str, query: str = "") -> str:
        """Open a session; return where it goes on."""
        answer = self.ask("POST", f"/v2/{repository}/blobs/uploads/{query}")
        assert answer.status_code == 202, answer.text
        return str(answer.headers["location"])

    def put(self, place: str, digest: str, body: Body | None = None, **headers: str) -> httpx2.Response:
        return self.ask("PUT", f"{place}?digest={digest}", body, **headers)

    def patch(self, place: str, body: Body, **headers: str) -> httpx2.Response:
        return self.ask("PATCH", place, body, **headers)

    def push(self, repository: str, data: bytes) -> str:
        """Push a blob in the shortest way; return its digest."""
        digest = sha256(data)
        answer = self.put(self.open(repository), digest, data)
        assert answer.status_code == 201, answer.text
        return digest

    def blob(self, repository: str, digest: str, method: str = "GET") -> httpx2.Response:
        return self.ask(method, f"/v2/{repository}/blobs/{digest}")

    def held(self, place: str) -> int:
        """Ask how many bytes of a session are held."""
        answer = self.ask("GET", place)
        assert answer.status_code == 204, answer.text
        return held(answer)


def held(answer: httpx2.Response) -> int:
    """Read how many bytes an answer says are held, as a client does that resumes."""
    first, _, last = answer.headers["range"].partition("-")
    assert first == "0"
    return int(last) + 1


def code(answer: httpx2.Response) -> str:
    """Return an error's code; its body must be what clients insist on."""
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["docker-distribution-api-version"] == "registry/2.0"
    content: dict[str, Any] = answer.json()
    (error,) = content["errors"]
    assert error["message"]
    return str(error["code"])


@contextmanager
def pushing(
    root: Path,
    http: HttpSettings | None = None,
    access: AccessSettings | None = None,
    v2: V2Settings | None = None,
    *,
    engine: EngineSettings | None = None,
    disk: Disk | None = None,
    tls: ssl.SSLContext | None = None,
    log: AccessLog | None = None,
    counts: Counts | None = None,
) -> Iterator[Pushed]:
    """Run a registry over a store of its own."""
    http, clock = http or HttpSettings(), Clock()
    with Store.open(root, engine or EngineSettings(), create=True, disk=disk, clock=clock) as store:
        app = build(store, http, access=access or AccessSettings(), v2=v2 or V2Settings(), clock=clock)
        with serving(app, http, tls, moment=store.moment, access=log, counts=counts) as server:
            yield Pushed(store, server, clock, "https" if tls else "http")
