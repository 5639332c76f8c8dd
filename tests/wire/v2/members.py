"""A registry that knows accounts, and short ways to come as one of them."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.client import parse_headers
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx2

from api.access import grants
from api.access.accounts import Accounts
from api.access.principal import Action
from api.access.settings import AccessSettings, Mode
from api.access_log import AccessLog
from api.config import HttpSettings
from api.content import repositories
from api.content.repositories import Access
from api.content.repository import Repository
from tests.wire.harness import PATIENCE_S, Clock, read_all
from tests.wire.v2.pushing import Pushed, pushing

ANN, BOB = "ann:ann's secret", "bob:bob's secret"
AUTH = AccessSettings(mode=Mode.AUTH)
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
_PARAMETER = re.compile(r'([a-z]+)="([^"]*)"')


def basic(credentials: str) -> str:
    return "Basic " + base64.b64encode(credentials.encode()).decode()


def challenge(answer: httpx2.Response) -> dict[str, str]:
    """Read the one challenge of an answer, as clients do."""
    (line,) = answer.headers.get_list("www-authenticate")
    scheme, _, rest = line.partition(" ")
    found = _PARAMETER.findall(rest)
    assert ",".join(f'{name}="{value}"' for name, value in found) == rest  # nothing else is in it
    assert len(dict(found)) == len(found)
    return {"scheme": scheme, **dict(found)}


@dataclass
class Raw:
    """What came back for bytes that were written out."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        assert self.headers["content-type"] == "application/json"
        content: dict[str, Any] = json.loads(self.body)
        return content


@dataclass
class Members:
    """A running registry with the accounts ann and bob."""

    pushed: Pushed
    accounts: Accounts
    url: str = field(init=False)
    speech: httpx2.Client = field(init=False)

    def __post_init__(self) -> None:
        self.url = "http://{}:{}".format(*self.pushed.server.address)
        self.speech = httpx2.Client(base_url=self.url, timeout=PATIENCE_S, trust_env=False)

    @property
    def clock(self) -> Clock:
        return self.pushed.clock

    def ask(self, method: str, path: str, who: str | None = None, **more: Any) -> httpx2.Response:
        """Make one request, with an Authorization header if `who` is one."""
        headers = more.pop("headers", {}) | ({} if who is None else {"Authorization": who})
        return self.speech.request(method, path, headers=headers, **more)

    def token(self, *scopes: str, who: str | None = None, **more: str) -> str:
        """Fetch a token; return the header to show it in."""
        answer = self.ask("GET", "/v2/token", who and basic(who), params={"scope": list(scopes), **more})
        assert answer.status_code == 200, answer.text
        return f"Bearer {answer.json()['token']}"

    def raw(self, text: str) -> Raw:
        """Send a request as it was written down and read its answer."""
        sock = self.pushed.server.connect()
        head, blank, body = text.partition("\n\n")
        assert blank
        host = "{}:{}".format(*self.pushed.server.address)
        sock.sendall(head.replace("{host}", host).replace("\n", "\r\n").encode() + b"\r\n\r\n" + body.encode())
        sock.shutdown(socket.SHUT_WR)
        return read_raw(read_all(sock))

    def push(self, name: str, who: str, tag: str = "latest") -> tuple[str, str]:
        """Push a small image; return the digests of its manifest and its blob."""
        blob = f"a blob of {name}".encode()
        digest = "sha256:" + hashlib.sha256(blob).hexdigest()
        place = f"/v2/{name}/blobs/uploads/?digest={digest}"
        answer = self.ask("POST", place, basic(who), content=blob)
        assert answer.status_code == 201, answer.text
        described = {"digest": digest, "size": len(blob)}
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST_TYPE,
                "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **described},
                "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", **described}],
            }
        ).encode()
        answer = self.ask(
            "PUT",
            f"/v2/{name}/manifests/{tag}",
            basic(who),
            content=manifest,
            headers={"Content-Type": MANIFEST_TYPE},
        )
        assert answer.status_code == 201, answer.text
        return "sha256:" + hashlib.sha256(manifest).hexdigest(), digest

    def publish(self, name: str) -> None:
        """Let everybody pull."""
        done = self.pushed.store.change(
            lambda names: repositories.set_access(names, Repository.of(name), Access.PUBLIC)
        )
        assert done

    def grant(self, user: str, pattern: str, *actions: Action) -> None:
        self.pushed.store.change(lambda names: grants.put(names, user, pattern, actions))


def read_raw(data: bytes) -> Raw:
    """Read one answer with a Content-Length."""
    file = BytesIO(data)
    status = int(file.readline().split()[1])
    headers = {name.lower(): value for name, value in parse_headers(file).items()}
    return Raw(status, headers, file.read(int(headers.get("content-length", "0"))))


@contextmanager
def members(
    root: Path, access: AccessSettings = AUTH, http: HttpSettings | None = None, log: AccessLog | None = None
) -> Iterator[Members]:
    """Run a registry with two accounts."""
    with pushing(root, http, access, log=log) as pushed:
        accounts = Accounts(pushed.store, access, pushed.clock)
        for one in (ANN, BOB):
            accounts.add(*one.split(":"))
        running = Members(pushed, accounts)
        with running.speech:
            yield running


def limited(**settings: Any) -> AccessSettings:
    """The settings with some of them different."""
    return replace(AUTH, **settings)
