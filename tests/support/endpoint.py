"""A registry as a client sees it, and a witness that looks at it with nothing but the standard library.

The witness puts images there and reads back what a client left, so that no client is judged by itself.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.images import Image

ACCEPTED = (
    "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, "
    "application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json"
)


@dataclass(frozen=True, slots=True)
class Account:
    """Somebody with a password."""

    name: str
    password: str

    @property
    def basic(self) -> str:
        return base64.b64encode(f"{self.name}:{self.password}".encode()).decode()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a registry answers, whom to trust for it, and as whom to come."""

    address: str
    ca: Path | None = None
    account: Account | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self.ca else 'http'}://{self.address}"


@dataclass(frozen=True, slots=True)
class Answer:
    """All of a response."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


class Witness:
    """Requests of the protocol's simplest kind, each on a connection of its own."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    def ask(self, method: str, target: str, body: bytes = b"", **headers: str) -> Answer:
        at = self.endpoint
        if at.ca is None:
            connection = http.client.HTTPConnection(at.address, timeout=30)
        else:
            connection = http.client.HTTPSConnection(
                at.address, timeout=30, context=ssl.create_default_context(cafile=at.ca)
            )
        sent = {name.replace("_", "-"): value for name, value in headers.items()} | {"Connection": "close"}
        if at.account is not None:
            sent["Authorization"] = f"Basic {at.account.basic}"
        try:
            connection.request(method, target, body or None, sent)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def put(self, repository: str, image: Image, tag: str | None = None) -> None:
        """Push every blob of a layout, its manifests, and the tag."""
        top = image.manifest()
        for child in top.get("manifests", []):
            self._put_image(repository, image, child["digest"], child["digest"])
        if "manifests" in top:
            self._put_manifest(repository, image, image.digest, tag or image.tag)
        else:
            self._put_image(repository, image, image.digest, tag or image.tag)

    def manifest(self, repository: str, reference: str) -> Answer:
        return self.ask("GET", f"/v2/{repository}/manifests/{reference}", Accept=ACCEPTED)

    def digest(self, repository: str, reference: str) -> str:
        """Give the digest of what a tag names; it must be there."""
        answer = self.manifest(repository, reference)
        assert answer.status == http.HTTPStatus.OK, (answer.status, answer.body)
        return str(answer.headers["Docker-Content-Digest"])

    def config(self, repository: str, reference: str) -> str:
        """Give the digest of its configuration: an image's identity, however its layers were compressed."""
        return str(json.loads(self.manifest(repository, reference).body)["config"]["digest"])

    def _put_image(self, repository: str, image: Image, digest: str, reference: str) -> None:
        described = image.manifest(digest)
        for blob in [described["config"], *described["layers"]]:
            self._put_blob(repository, blob["digest"], image.blob(blob["digest"]))
        self._put_manifest(repository, image, digest, reference)

    def _put_blob(self, repository: str, digest: str, data: bytes) -> None:
        opened = self.ask("POST", f"/v2/{repository}/blobs/uploads/", Content_Length="0")
        assert opened.status == http.HTTPStatus.ACCEPTED, (opened.status, opened.body)
        place = urlsplit(opened.headers["Location"])
        query = f"{place.query}&" if place.query else ""
        answer = self.ask("PUT", f"{place.path}?{query}digest={digest}", data, Content_Type="application/octet-stream")
        assert answer.status == http.HTTPStatus.CREATED, (answer.status, answer.body)

    def _put_manifest(self, repository: str, image: Image, digest: str, reference: str) -> None:
        media_type = image.manifest(digest)["mediaType"]
        target = f"/v2/{repository}/manifests/{reference}"
        answer = self.ask("PUT", target, image.blob(digest), Content_Type=media_type)
        assert answer.status == http.HTTPStatus.CREATED, (answer.status, answer.body)
