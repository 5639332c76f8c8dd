"""OCI images for clients to carry: layouts and archives made of nothing but a seed, the same bytes every time.

Knows the image formats; no client, no registry, no network.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
COMPRESSIONS: Mapping[str, tuple[str, Callable[[bytes], bytes]]] = {
    "uncompressed": (LAYER, bytes),
    "gzip": (LAYER + "+gzip", lambda raw: gzip.compress(raw, 1, mtime=0)),
    "zstd": (LAYER + "+zstd", lambda raw: zstandard.ZstdCompressor(3).compress(raw)),
}

Descriptor = dict[str, Any]


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass(frozen=True, slots=True)
class Image:
    """One image or index in a layout folder of its own, under one tag.

    `config` is the identity that an engine on amd64 gives it.
    """

    folder: Path
    tag: str
    digest: str
    config: str

    def blob(self, digest: str) -> bytes:
        return (self.folder / "blobs" / digest.replace(":", "/")).read_bytes()

    def manifest(self, digest: str | None = None) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.blob(digest or self.digest))
        return found

    def digests(self) -> set[str]:
        """Everything the layout holds."""
        return {"sha256:" + path.name for path in (self.folder / "blobs" / "sha256").iterdir()}


class _Layout:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "blobs" / "sha256").mkdir(parents=True)
        (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}', encoding="utf-8")

    def add(self, data: bytes, media_type: str) -> Descriptor:
        digest = digest_of(data)
        (self.folder / "blobs" / digest.replace(":", "/")).write_bytes(data)
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def add_json(self, value: object, media_type: str) -> Descriptor:
        return self.add(json.dumps(value, sort_keys=True).encode(), media_type)

    def add_image(self, layers: Sequence[bytes], compression: str, architecture: str) -> tuple[Descriptor, str]:
        media_type, compress = COMPRESSIONS[compression]
        config = self.add_json(config_of(layers, architecture), CONFIG)
        described = [self.add(compress(layer), media_type) for layer in layers]
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": described}
        return self.add_json(manifest, MANIFEST), str(config["digest"])

    def tagged(self, top: Descriptor, tag: str, config: str) -> Image:
        named = top | {"annotations": {"org.opencontainers.image.ref.name": tag}}
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [named]}
        (self.folder / "index.json").write_text(json.dumps(index), encoding="utf-8")
        return Image(self.folder, tag, top["digest"], config)


def config_of(layers: Sequence[bytes], architecture: str = "amd64") -> dict[str, Any]:
    return {
        "architecture": architecture,
        "os": "linux",
        "created": "2020-01-01T00:00:00Z",
        "config": {"Cmd": ["/hello"]},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
        "history": [{"created": "2020-01-01T00:00:00Z", "created_by": "tests"} for _ in layers],
    }


def layer(seed: str, size: int = 20_000) -> bytes:
    """Give a tar of two files: one of noise, one that compresses."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in (("noise", random.Random(seed).randbytes(size)), ("text", f"{seed}\n".encode() * 200)):
            member = tarfile.TarInfo(f"{seed}-{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def image(folder: Path, seed: str, *, compression: str = "gzip", layers: int = 3, layer_bytes: int = 20_000) -> Image:
    """Make an image of so many layers, tagged with its seed."""
    layout = _Layout(folder)
    top, config = layout.add_image([layer(f"{seed}{n}", layer_bytes) for n in range(layers)], compression, "amd64")
    return layout.tagged(top, seed, config)


def multi_arch(folder: Path, seed: str) -> Image:
    """Make an index of two platforms whose images share a layer."""
    layout = _Layout(folder)
    members, configs = [], []
    for architecture in ("amd64", "arm64"):
        layers = [layer(f"{seed}-shared"), layer(f"{seed}-{architecture}")]
        described, config = layout.add_image(layers, "gzip", architecture)
        configs.append(config)
        members.append(described | {"platform": {"os": "linux", "architecture": architecture}})
    top = layout.add_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": members}, INDEX)
    return layout.tagged(top, seed, configs[0])


def docker_archive(image: Image, name: str, file: Path) -> None:
    """Write an image of gzipped layers as what `docker load` takes, under a name."""
    described = image.manifest()
    members = {"config.json": image.blob(image.config)}
    for number, each in enumerate(described["layers"]):
        members[f"{number}/layer.tar"] = gzip.decompress(image.blob(each["digest"]))
    entry = {"Config": "config.json", "RepoTags": [name], "Layers": list(members)[1:]}
    members["manifest.json"] = json.dumps([entry]).encode()
    with tarfile.open(file, "w", format=tarfile.USTAR_FORMAT) as tar:
        for path, data in members.items():
            member = tarfile.TarInfo(path)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
