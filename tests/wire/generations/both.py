"""Short ways for tests to push by one generation's protocol and pull by the other's, and images to push."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx2

from api.access.settings import AccessSettings
from api.v1.settings import V1Settings
from cas import EngineSettings, Store
from cas.disk import Disk
from tests.v1client import Client as V1Client
from tests.v1client import Layer, Pulled
from tests.wire.v1.talk import Registry, new_id, running
from tests.wire.v2.content import Document, descriptor, document
from tests.wire.v2.pushing import Client, Pushed, new_data, sha256

CONFIG = "application/vnd.docker.container.image.v1+json"
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
EMPTY = bytes.fromhex("1f8b080000096e8800ff621805a360148c5800080000ffff2eafb5ef00040000")


def tar(**files: bytes) -> bytes:
    """Make an archive of files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def new_tar(size: int = 5000) -> bytes:
    """An archive that no other test of this process uses."""
    return tar(noise=new_data(size))


def packed(data: bytes) -> bytes:
    """As the server packs: gzip.compress names no operating system from Python 3.13 on, where zlib names Unix."""
    return zlib.compress(data, 6, wbits=16 + zlib.MAX_WBITS)


@dataclass
class Sample:
    """An image as it is pushed by v2: archives, each in a form of its own, and a configuration that tells of them."""

    archives: Sequence[bytes]
    history: Sequence[Mapping[str, Any]] | None = None
    pack: Any = packed
    layer_type: str = LAYER
    more: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def layers(self) -> list[bytes]:
        return [self.pack(each) for each in self.archives]

    @cached_property
    def config(self) -> bytes:
        history = [{"created_by": f"step {n}"} for n in range(len(self.archives))]
        content = {
            "architecture": "amd64",
            "os": "linux",
            "created": "2020-01-01T00:00:00Z",
            "config": {"Cmd": ["/hello"], "Env": ["A=1"]},
            "rootfs": {"type": "layers", "diff_ids": [sha256(each) for each in self.archives]},
            "history": list(self.history) if self.history is not None else history,
            **self.more,
        }
        return json.dumps(content).encode()

    @property
    def manifest(self) -> Document:
        layers = [descriptor(each, self.layer_type) for each in self.layers]
        return document({"config": descriptor(self.config, CONFIG), "layers": layers}, MANIFEST)


@dataclass
class Both:
    """A running registry, and both ways to speak to it."""

    registry: Registry
    client: Client

    @property
    def store(self) -> Store:
        return self.registry.store

    @property
    def v1(self) -> V1Client:
        return self.registry.client()

    @property
    def pushed(self) -> Pushed:
        return Pushed(self.registry.store, self.registry.server, self.registry.clock)

    def push(self, repository: str, sample: Sample, tag: str | None = "latest") -> Document:
        """Push an image by v2; without a tag by its digest alone."""
        for blob in (sample.config, *sample.layers):
            self.client.push(repository, blob)
        return self.put(repository, sample.manifest, tag)

    def put(self, repository: str, manifest: Document, tag: str | None = "latest") -> Document:
        path = f"/v2/{repository}/manifests/{tag or manifest.digest}"
        answer = self.client.ask("PUT", path, manifest.body, content_type=manifest.type)
        assert answer.status_code == 201, answer.text
        return manifest

    def manifest(self, repository: str, reference: str = "latest", method: str = "GET", **more: str) -> httpx2.Response:
        return self.client.ask(method, f"/v2/{repository}/manifests/{reference}", None, **more)

    def delete(self, repository: str, reference: str) -> None:
        """Delete by v2."""
        assert self.manifest(repository, reference, "DELETE").status_code == 202

    def tags(self, repository: str) -> list[str]:
        listed: list[str] = self.client.ask("GET", f"/v2/{repository}/tags/list").json()["tags"]
        return listed

    def pull(self, repository: str, tag: str, into: Path) -> list[tuple[Pulled, bytes]]:
        """Pull by v1, as an engine does, base first; every checksum must be right."""
        pulled = self.v1.pull(repository, tag, into)
        assert [each.payload_checksum for each in pulled] == [each.announced_checksum for each in pulled]
        return [(each, (into / f"{each.id}.layer").read_bytes()) for each in pulled]

    def tags_v1(self, repository: str) -> dict[str, str]:
        answer = self.registry.ask("GET", f"/v1/repositories/{repository}/tags")
        assert answer.status == 200, answer.body
        found: dict[str, str] = answer.value
        return found

    def image(self, repository: str, tag: str = "latest") -> str | None:
        """Return the id that v1 gives a tag; None if it has no such tag."""
        answer = self.registry.ask("GET", f"/v1/repositories/{repository}/tags/{tag}")
        assert answer.status in {200, 404}, answer.body
        return str(answer.value) if answer.status == 200 else None

    def push_v1(self, repository: str, layers: Sequence[bytes], *tags: str, **top: Any) -> list[Layer]:
        """Push a chain by v1, as an engine does; `top` goes into the json of its last image."""
        images: list[Layer] = []
        for number, layer in enumerate(layers):
            content: dict[str, Any] = {"id": new_id(), "created": "2014-05-01T00:00:00Z", "docker_version": "1.10.0"}
            if images:
                content["parent"] = images[-1].id
            content |= {"container_config": {"Cmd": ["/bin/sh", "-c", f"step {number}"]}}
            content |= top if number == len(layers) - 1 else {}
            images.append(Layer(content["id"], json.dumps(content).encode(), layer))
        self.v1.push(repository, images, tags or ("latest",))
        return images

    def pull_v2(self, repository: str, tag: str = "latest") -> tuple[dict[str, Any], dict[str, Any], list[bytes]]:
        """Pull by v2, checking every digest; return the manifest, the configuration and the layers."""
        answer = self.manifest(repository, tag)
        assert answer.status_code == 200, answer.text
        assert answer.headers["docker-content-digest"] == sha256(answer.content)
        manifest = answer.json()
        assert answer.headers["content-type"] == manifest["mediaType"]
        blobs = [self._blob(repository, each) for each in (manifest["config"], *manifest["layers"])]
        return manifest, json.loads(blobs[0]), blobs[1:]

    def _blob(self, repository: str, told: Mapping[str, Any]) -> bytes:
        answer = self.client.blob(repository, told["digest"])
        assert answer.status_code == 200, answer.text
        assert (sha256(answer.content), len(answer.content)) == (told["digest"], told["size"])
        return answer.content


def unpacked(layers: Sequence[bytes]) -> list[bytes]:
    return [gzip.decompress(each) for each in layers]


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@contextmanager
def both(
    root: Path,
    v1: V1Settings | None = None,
    access: AccessSettings | None = None,
    *,
    engine: EngineSettings | None = None,
    disk: Disk | None = None,
) -> Iterator[Both]:
    """Run a registry over a store of its own."""
    with running(root, v1=v1, access=access, engine=engine, disk=disk) as registry:
        host, port = registry.server.address
        with closing(Client(f"http://{host}:{port}")) as client:
            yield Both(registry, client)
