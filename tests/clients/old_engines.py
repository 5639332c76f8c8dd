"""Engines of 2014 to 2017 as verbs. All but the command line is code of theirs: see tests/support/engines.py."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import zstandard

from tests.clients.drivers import TIMEOUT_S
from tests.support.endpoint import Endpoint
from tests.support.peers import path_of

_ZSTD = b"\x28\xb5\x2f\xfd"
Files = Mapping[str, bytes]


class OldEngine:
    """One engine with a storage of its own, speaking to one registry as the endpoint's account, if any."""

    def __init__(self, version: str, endpoint: Endpoint, home: Path) -> None:
        self.version, self.at, self.home = version, endpoint, home

    def load(self, reference: str, *layers: Files) -> None:
        """Make an image of layers, base first."""
        paths = []
        for number, files in enumerate(layers):
            path = self.home / f"{reference.replace('/', '-')}.{number}.tar"
            path.write_bytes(archive(files))
            paths.append(path)
        self.run("load", self.full(reference), *paths)

    def push(self, reference: str) -> None:
        self.run("push", self.full(reference))

    def pull(self, reference: str) -> None:
        """Pull a tag, or without one all of a repository's."""
        self.run("pull", self.full(reference))

    def layers(self, reference: str) -> list[Files]:
        """Give what the engine holds of an image, base first: what each layer puts where."""
        ended = self.try_run("save", self.full(reference))
        assert ended.returncode == 0, ended.stderr
        return list(_layers(ended.stdout))

    def search(self, term: str) -> str:
        return self.run("search", f"{self.at.address}/{term}")

    def full(self, reference: str) -> str:
        return f"{self.at.address}/{reference}"

    def run(self, *arguments: str | Path) -> str:
        ended = self.try_run(*arguments)
        assert ended.returncode == 0, f"{ended.args}\n{ended.stdout.decode()}{ended.stderr.decode()}"
        return ended.stdout.decode()

    def try_run(self, *arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
        account = self.at.account
        flags = ["-u", f"{account.name}:{account.password}"] if account else []
        command = [path_of(f"engine-{self.version}"), *flags, self.home / "root", *arguments]
        trust = {} if self.at.ca is None else {"SSL_CERT_FILE": str(self.at.ca)}  # some check it at a login alone
        return subprocess.run(command, env=os.environ | trust, capture_output=True, timeout=TIMEOUT_S, check=False)


def archive(files: Files) -> bytes:
    """Write a layer."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(data), 1_400_000_000
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def unpacked(layer: bytes) -> Files:
    """Read a layer, compressed or not."""
    if layer.startswith(_ZSTD):
        layer = zstandard.ZstdDecompressor().decompress(layer)
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        members = [member for member in tar if member.isfile()]
        return {member.name.removeprefix("./"): _content(tar, member) for member in members}


def _layers(saved: bytes) -> Iterator[Files]:
    """Follow an image of a saved archive from its top down to its base, and give its layers the other way round."""
    with tarfile.open(fileobj=io.BytesIO(saved)) as tar:
        names = json.loads(_content(tar, tar.getmember("repositories")))
        chain = [next(iter(tags.values())) for tags in names.values()]
        while parent := json.loads(_content(tar, tar.getmember(f"{chain[-1]}/json"))).get("parent"):
            chain.append(parent)
        for image_id in reversed(chain):
            yield unpacked(_content(tar, tar.getmember(f"{image_id}/layer.tar")))


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None, member.name
    return file.read()
