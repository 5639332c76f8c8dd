"""One image, two generations: pushed by a real client and pulled by v1; pushed by v1, pulled by real ones, and run."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.clients.conftest import Connect, World
from tests.clients.drivers import Buildah, Client, Docker, Podman, Skopeo
from tests.clients.matrix import marks_of
from tests.support.endpoint import Witness
from tests.support.images import COMPRESSIONS, image, multi_arch
from tests.support.peers import path_of
from tests.v1client import Client as V1Client
from tests.v1client import Layer

SAYS = "hello from 2014\n"
_SOURCE = f"#include <stdio.h>\nint main(void) {{ fputs({json.dumps(SAYS)}, stdout); return 0; }}\n"


def engine(world: World) -> V1Client:
    host, _, port = world.endpoint("plain", "open").address.rpartition(":")
    return V1Client(host, int(port))


def tar(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o755
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A program that needs nothing but a kernel."""
    folder = tmp_path_factory.mktemp("program")
    (folder / "hello.c").write_text(_SOURCE, encoding="utf-8")
    command = [path_of("gcc"), "-static", "-Os", "-s", "-o", str(folder / "hello"), str(folder / "hello.c")]
    subprocess.run(command, check=True, timeout=110)
    return (folder / "hello").read_bytes()


def old_image(program: bytes, seed: str) -> list[Layer]:
    """A chain as an engine of 2014 made it: a program, then a plain tar, and a layer to be thrown away."""
    images: list[Layer] = []
    for number, layer in enumerate((gzip.compress(tar(hello=program), mtime=0), tar(note=seed.encode()), b"")):
        image_id = hashlib.sha256(f"{seed} {number}".encode()).hexdigest()
        said: dict[str, object] = {
            "id": image_id,
            "created": "2014-05-01T00:00:00Z",
            "docker_version": "1.0.0",
            "os": "linux",
        }
        said |= {"parent": images[-1].id} if images else {}
        said |= {"container_config": {"Cmd": [f"step {number}"]}, "config": {"Cmd": ["/hello"]}}
        said |= {"architecture": "amd64", **({"throwaway": True} if not layer else {})}
        images.append(Layer(image_id, json.dumps(said).encode(), layer))
    return images


@pytest.mark.needs("skopeo")
@pytest.mark.parametrize("form", [*COMPRESSIONS, "index"])
def test_what_skopeo_pushed_is_pulled_by_the_old_protocol(
    form: str, connect: Connect, world: World, tmp_path: Path
) -> None:
    """By the sequence of a pull, each checksum verified: the very layers, those in zstd unpacked to the same."""
    seed = f"generations-{form}"
    put = multi_arch(tmp_path / "put", seed) if form == "index" else image(tmp_path / "put", seed, compression=form)
    skopeo = connect("skopeo", "plain", "open")
    skopeo.push(put, f"bob/{seed}:{put.tag}")
    pulled = engine(world).pull(f"bob/{seed}", put.tag, tmp_path)
    assert all(each.payload_checksum == each.announced_checksum for each in pulled)
    found = [(tmp_path / f"{each.id}.layer").read_bytes() for each in pulled]
    manifest = put.manifest()
    if form == "index":
        manifest = put.manifest(manifest["manifests"][0]["digest"])
    sent = [put.blob(each["digest"]) for each in manifest["layers"]]
    if form == "zstd":
        diff_ids = json.loads(put.blob(put.config))["rootfs"]["diff_ids"]
        assert ["sha256:" + hashlib.sha256(gzip.decompress(each)).hexdigest() for each in found] == diff_ids
    else:
        assert found == sent
    assert skopeo.pull(f"bob/{seed}:{put.tag}") == put.digest


def run_there(client: Client, reference: str) -> str:
    """Run an image that a client has pulled, in whatever way needs least of the machine; return what it said."""
    match client:
        case Podman() | Buildah():
            storage = client.storage() if isinstance(client, Buildah) else client.storage()[:-2]
            container = client.run(*storage, "from", "--pull-never", client.full(reference), program="buildah").strip()
            flags = ["run", "--isolation=chroot", "--network=host"]
            return client.run(*storage, *flags, container, "--", "/hello", program="buildah")
        case Docker():
            container = client.run("create", "--network=none", client.full(reference)).strip()
            rootfs = client.home / "rootfs"
            rootfs.mkdir()
            archive = client.home / "rootfs.tar"
            client.run("export", "--output", archive, container)
            with tarfile.open(archive) as exported:
                exported.extractall(rootfs, filter="tar")
            return client.run("-r", "chroot", rootfs, "/hello", program="unshare")
        case _:
            raise AssertionError("it has no images to run")


@pytest.mark.needs("gcc")
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, id=name, marks=marks_of(name)) for name in ("podman", "buildah", "docker")],
)
def test_what_the_old_protocol_pushed_is_pulled_and_runs(
    name: str, connect: Connect, world: World, program: bytes
) -> None:
    """A program pushed by v1 says what it has to say, from an image of the digest that the registry tells."""
    seed = f"runs-{name}"
    engine(world).push(f"bob/{seed}", old_image(program, seed), ["old"])
    client = connect(name, "plain", "open")
    told = json.loads(Witness(world.endpoint("plain", "open")).manifest(f"bob/{seed}", "old").body)
    assert client.pull(f"bob/{seed}:old") == told["config"]["digest"]
    assert run_there(client, f"bob/{seed}:old") == SAYS


@pytest.mark.needs("skopeo", "gcc")
def test_what_the_old_protocol_pushed_is_copied_by_skopeo(
    connect: Connect, world: World, program: bytes, tmp_path: Path
) -> None:
    """Digest by digest, into a layout: the gzipped layer as it was pushed, the plain one packed, the empty one gone."""
    images = old_image(program, "copied")
    engine(world).push("bob/copied", images, ["old"])
    skopeo = connect("skopeo", "plain", "open")
    assert isinstance(skopeo, Skopeo)
    assert skopeo.tags("bob/copied") == {"old"}
    folder = tmp_path / "layout"
    source = f"docker://{skopeo.full('bob/copied:old')}"
    skopeo.run("copy", "--preserve-digests", "--src-tls-verify=false", source, f"dir:{folder}")
    manifest = json.loads((folder / "manifest.json").read_bytes())
    first, second = [(folder / each["digest"].removeprefix("sha256:")).read_bytes() for each in manifest["layers"]]
    assert (first, gzip.decompress(second)) == (images[0].layer, images[1].layer)
