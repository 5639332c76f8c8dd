"""Things for tests to push: manifests of every kind, and the blobs they name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2

from tests.wire.v2.pushing import Client, new_repository, sha256

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
TYPES = (OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST)

Descriptor = dict[str, Any]


def descriptor(data: bytes, media_type: str, /, **more: object) -> Descriptor:
    return {"mediaType": media_type, "digest": sha256(data), "size": len(data), **more}


@dataclass
class Document:
    """A manifest as it is pushed."""

    body: bytes
    type: str

    @property
    def digest(self) -> str:
        return sha256(self.body)

    @property
    def digest512(self) -> str:
        return f"sha512:{hashlib.sha512(self.body).hexdigest()}"

    @property
    def descriptor(self) -> Descriptor:
        return descriptor(self.body, self.type)


def document(content: Mapping[str, Any], media_type: str = OCI_MANIFEST) -> Document:
    """Write a manifest in a way of its own, so that a server that writes it anew is found out."""
    return Document(json.dumps({"schemaVersion": 2, "mediaType": media_type, **content}, indent=3).encode(), media_type)


def index(children: Sequence[Document | Descriptor], media_type: str = OCI_INDEX, /, **more: Any) -> Document:
    listed = [child.descriptor if isinstance(child, Document) else child for child in children]
    return document({"manifests": listed, **more}, media_type)


@dataclass
class Home:
    """A repository with a config and two layers, ready for manifests."""

    client: Client
    name: str = field(default_factory=new_repository)
    config: bytes = b'{"architecture":"amd64"}'
    layers: tuple[bytes, ...] = (b"first layer", b"second layer")

    def __post_init__(self) -> None:
        for data in (self.config, *self.layers):
            self.client.push(self.name, data)

    def image(self, media_type: str = OCI_MANIFEST, /, **more: Any) -> Document:
        """An image; different `more` makes a different one."""
        content: dict[str, Any] = {
            "config": descriptor(self.config, CONFIG),
            "layers": [descriptor(layer, LAYER) for layer in self.layers],
        }
        return document(content | more, media_type)

    def numbered(self, number: int) -> Document:
        return self.image(annotations={"number": str(number)})

    def put(self, manifest: Document, reference: str = "", **headers: str) -> httpx2.Response:
        path = self.path(reference or manifest.digest)
        return self.client.ask("PUT", path, manifest.body, **{"content_type": manifest.type, **headers})

    def push(self, manifest: Document, reference: str = "") -> Document:
        answer = self.put(manifest, reference)
        assert answer.status_code == 201, answer.text
        return manifest

    def get(self, reference: str, method: str = "GET", **headers: str) -> httpx2.Response:
        return self.client.ask(method, self.path(reference), None, **headers)

    def delete(self, reference: str) -> int:
        return self.client.ask("DELETE", self.path(reference)).status_code

    def tags(self, query: str = "") -> list[str]:
        answer = self.client.ask("GET", f"/v2/{self.name}/tags/list{query}")
        assert answer.status_code == 200, answer.text
        listed: list[str] = answer.json()["tags"]
        return listed

    def referrers(self, subject: str, query: str = "") -> list[Descriptor]:
        answer = self.client.ask("GET", f"/v2/{self.name}/referrers/{subject}{query}")
        assert answer.status_code == 200, answer.text
        listed: list[Descriptor] = answer.json()["manifests"]
        return listed

    def path(self, reference: str) -> str:
        return f"/v2/{self.name}/manifests/{reference}"
