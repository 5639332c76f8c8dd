"""A Registry v1 client that talks as engines do: the same requests in the same order, with the same headers.

Standard library only, and a second opinion on the wire: it shares no code with the server. Layers are
streamed from and to files, so that it can push and pull more than fits into memory. One connection a request,
as theirs.
"""

from __future__ import annotations

import hashlib
import http.client
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

AGENT = (
    "docker/1.13.1 go/go1.7.5 git-commit/092cba3 kernel/4.4.0 os/linux arch/amd64 "
    "UpstreamClient(Docker-Client/1.13.1 \\(linux\\))"
)
PROBES = 5  # existence probes an engine has under way at a time
BLOCK_BYTES = 1 << 20

Era = Literal["A", "B", "C"]


class Refused(Exception):
    """The server gave an answer at which an engine gives up."""

    def __init__(self, step: str, status: int, body: bytes) -> None:
        super().__init__(f"{step}: {status} {body[:500]!r}")
        self.step, self.status, self.body = step, status, body


@dataclass(frozen=True)
class Layer:
    """An image to push: its json's bytes and its layer, as bytes or as a file."""

    id: str
    json: bytes
    layer: bytes | Path
    tarsum: str = ""  # what an engine of era B or C would have computed

    def blocks(self) -> Iterator[bytes]:
        if isinstance(self.layer, bytes):
            for start in range(0, len(self.layer), BLOCK_BYTES):
                yield self.layer[start : start + BLOCK_BYTES]
            return
        with self.layer.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                yield block

    def payload_checksum(self) -> str:
        """Read it all and compute what an engine computes while it sends."""
        running = hashlib.sha256(self.json + b"\n")
        for block in self.blocks():
            running.update(block)
        return f"sha256:{running.hexdigest()}"


def chain(layers: Sequence[bytes | Path], *, seed: str = "") -> list[Layer]:
    """Make images out of layers, base first: ids that depend on the seed, json as an engine writes it."""
    images: list[Layer] = []
    for number, layer in enumerate(layers):
        image_id = hashlib.sha256(f"{seed} {number}".encode()).hexdigest()
        content = {"id": image_id, "created": "2014-05-01T00:00:00Z", "os": "linux"}
        if images:
            content["parent"] = images[-1].id
        images.append(Layer(image_id, json.dumps(content).encode(), layer))
    return images


@dataclass(frozen=True)
class Answer:
    """One answer, its small body read whole."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def value(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Pulled:
    """One image as it came back."""

    id: str
    json: bytes
    size: int
    sha256: str
    payload_checksum: str
    announced_checksum: str


@dataclass
class Client:
    """One engine: credentials, cached token, and the endpoints an index sent it to."""

    host: str
    port: int
    timeout_s: float = 60.0
    basic: str | None = None
    agent: str = AGENT
    heard: Callable[[str, str, int], object] | None = None  # told of each answer: method, path, status
    token: str | None = field(default=None, init=False)
    endpoint: str = field(default="", init=False)

    def push(
        self,
        repository: str,
        images: Sequence[Layer],
        tags: Mapping[str, str] | Sequence[str],
        *,
        era: Era = "C",
    ) -> list[str]:
        """Push a chain, base first; tags go to the top unless they name an id. Returns the ids sent."""
        targets = dict(tags) if isinstance(tags, Mapping) else dict.fromkeys(tags, images[-1].id)
        self._begin_push(repository, images, targets)
        with ThreadPoolExecutor(PROBES) as pool:
            present = list(pool.map(self._is_present, images))
        sent = [image for image, there in zip(images, present, strict=True) if not there]
        uploaded: list[str] = []
        for image in images:
            if image in sent and self._put_image(image, era):
                uploaded.append(image.id)
            for tag, target in targets.items():
                if target == image.id:
                    self.put_tag(repository, tag, image.id)
        fresh = [image for image in images if image.id in uploaded] if era == "B" else []
        self._end_push(repository, [{"id": image.id, "checksum": image.tarsum} for image in fresh])
        return uploaded

    def _begin_push(self, repository: str, images: Iterable[Layer], targets: Mapping[str, str]) -> None:
        listed: list[dict[str, str]] = []
        for image in images:
            named = [tag for tag, target in targets.items() if target == image.id]
            listed += [{"id": image.id, "Tag": tag} for tag in named] or [{"id": image.id}]
        answer = self.index("PUT", f"/v1/repositories/{repository}/", listed)
        self._expect("begin push", answer, 200, 201)
        if answer.headers["X-Docker-Endpoints"] is None or answer.headers["X-Docker-Token"] is None:
            raise Refused("begin push without endpoints or token", answer.status, answer.body)

    def _end_push(self, repository: str, listed: list[dict[str, str]]) -> None:
        extra = {"X-Docker-Endpoints": f"http://{self.endpoint}/v1/"}
        answer = self.index("PUT", f"/v1/repositories/{repository}/images", listed, extra)
        self._expect("end push", answer, 204)

    def _is_present(self, image: Layer) -> bool:
        return self.registry("GET", f"/v1/images/{image.id}/json").status == 200

    def _put_image(self, image: Layer, era: Era) -> bool:
        base = f"/v1/images/{image.id}"
        headers = {"Content-type": "application/json"}
        if era == "A":
            headers["X-Docker-Checksum"] = image.payload_checksum()
        answer = self.registry("PUT", f"{base}/json", image.json, headers)
        if answer.status != 200 and _error(answer) == "Image already exists":
            return False
        self._expect("put json", answer, 200)
        checksum = self._put_layer(image)
        if era != "A":
            tarsum = image.tarsum or "tarsum+sha256:" + "0" * 64
            headers = {"X-Docker-Checksum": tarsum, "Content-Length": "0"}
            if era == "C":
                headers["X-Docker-Checksum-Payload"] = checksum
            self._expect("put checksum", self.registry("PUT", f"{base}/checksum", None, headers), 200)
        return True

    def _put_layer(self, image: Layer) -> str:
        running = hashlib.sha256(image.json + b"\n")

        def sending() -> Iterator[bytes]:
            for block in image.blocks():
                running.update(block)
                yield block

        headers = {"Content-Type": "application/octet-stream", "Transfer-Encoding": "chunked"}
        answer = self.registry("PUT", f"/v1/images/{image.id}/layer", sending(), headers)
        self._expect("put layer", answer, 200)
        return f"sha256:{running.hexdigest()}"

    def put_tag(self, repository: str, tag: str, image_id: str) -> None:
        body = json.dumps(image_id).encode()
        headers = {"Content-Type": "application/json"}
        answer = self.registry("PUT", f"/v1/repositories/{repository}/tags/{tag}", body, headers)
        self._expect("put tag", answer, 200, 201)

    def pull(self, repository: str, tag: str, into: Path | None = None) -> list[Pulled]:
        """Pull a tag, base first. With `into`, layers are kept there as `ID.layer`."""
        self._expect("begin pull", self.index("GET", f"/v1/repositories/{repository}/images"), 200)
        full = repository if "/" in repository else f"library/{repository}"
        answer = self.registry("GET", f"/v1/repositories/{full}/tags/{tag}")
        self._expect("get tag", answer, 200)
        answer = self.registry("GET", f"/v1/images/{answer.value}/ancestry")
        self._expect("get ancestry", answer, 200)
        return [self._pull_image(image_id, into) for image_id in reversed(answer.value)]

    def _pull_image(self, image_id: str, into: Path | None) -> Pulled:
        answer = self.registry("GET", f"/v1/images/{image_id}/json")
        self._expect("get json", answer, 200)
        plain, payload = hashlib.sha256(), hashlib.sha256(answer.body + b"\n")
        file = (into / f"{image_id}.layer").open("wb") if into else None
        try:
            size = self.get_layer(image_id, _tee(file, plain.update, payload.update))
        finally:
            if file:
                file.close()
        if int(answer.headers["X-Docker-Size"]) != size:
            raise Refused(f"layer of {size} bytes, announced {answer.headers['X-Docker-Size']}", 200, b"")
        announced = answer.headers["X-Docker-Checksum-Payload"]
        checksum = f"sha256:{payload.hexdigest()}"
        return Pulled(image_id, answer.body, size, plain.hexdigest(), checksum, announced)

    def get_layer(self, image_id: str, write: Callable[[bytes], object]) -> int:
        """Stream a layer into a function; returns its size."""
        with closing(self._connect(self.endpoint)) as connection:
            connection.request("GET", f"/v1/images/{image_id}/layer", headers=self._headers(self._token()))
            response = connection.getresponse()
            if response.status != 200:
                raise Refused("get layer", response.status, response.read())
            size = 0
            while block := response.read(BLOCK_BYTES):
                write(block)
                size += len(block)
            if size != int(response.headers["Content-Length"]):
                raise http.client.IncompleteRead(b"")
            return size

    def index(self, method: str, path: str, content: object = None, extra: Mapping[str, str] | None = None) -> Answer:
        """Make a request to the index, and remember the token and the endpoints it answers."""
        headers = {"X-Docker-Token": "true", **(extra or {})}
        if self.basic is not None:
            headers["Authorization"] = self.basic
        body = None
        if content is not None:
            body = json.dumps(content, separators=(",", ":")).encode()
            headers["Content-type"] = "application/json"
        answer = self._request(f"{self.host}:{self.port}", method, path, body, headers)
        endpoints = answer.headers["X-Docker-Endpoints"]
        self.endpoint = endpoints.split(",")[0].strip() if endpoints else f"{self.host}:{self.port}"
        return answer

    def registry(
        self,
        method: str,
        path: str,
        body: bytes | Iterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Make a request to the registry the index named."""
        endpoint = self.endpoint or f"{self.host}:{self.port}"
        return self._request(endpoint, method, path, body, {**self._token(), **(headers or {})})

    def _request(
        self,
        endpoint: str,
        method: str,
        path: str,
        body: bytes | Iterator[bytes] | None,
        headers: Mapping[str, str],
    ) -> Answer:
        with closing(self._connect(endpoint)) as connection:
            chunked = headers.get("Transfer-Encoding") == "chunked"
            connection.request(method, path, body, self._headers(headers), encode_chunked=chunked)
            response = connection.getresponse()
            answer = Answer(response.status, response.headers, response.read())
        tokens = response.headers.get_all("X-Docker-Token")
        if tokens:
            self.token = ",".join(tokens)
        if self.heard is not None:
            self.heard(method, path, answer.status)
        return answer

    def _connect(self, endpoint: str) -> http.client.HTTPConnection:
        host, _, port = endpoint.rpartition(":")
        return http.client.HTTPConnection(host.strip("[]"), int(port), timeout=self.timeout_s)

    def _headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        # The real one says gzip and unpacks by itself; this one only shows that it may.
        return {"User-Agent": self.agent, "Accept-Encoding": "gzip", "Connection": "close", **headers}

    def _token(self) -> dict[str, str]:
        return {} if self.token is None else {"Authorization": f"Token {self.token}"}

    @staticmethod
    def _expect(step: str, answer: Answer, *good: int) -> None:
        if answer.status not in good:
            raise Refused(step, answer.status, answer.body)


def _error(answer: Answer) -> str | None:
    """Decode an error body as engines do: a map of strings, or nothing."""
    try:
        content = json.loads(answer.body)
    except ValueError:
        return None
    if not isinstance(content, dict) or not all(isinstance(value, str) for value in content.values()):
        return None
    return content.get("error")


def _tee(file: BinaryIO | None, *updates: Callable[[bytes], object]) -> Callable[[bytes], None]:
    def write(block: bytes) -> None:
        for update in updates:
            update(block)
        if file is not None:
            file.write(block)

    return write
