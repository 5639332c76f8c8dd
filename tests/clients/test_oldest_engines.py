"""Engines of 2013 and 2014, the real ones: what they push and pull, with each other and with the clients of today."""

from __future__ import annotations

import gzip
import io
import json
import random
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.clients.conftest import Connect, World
from tests.clients.drivers import Skopeo
from tests.clients.matrix import TRANSPORTS
from tests.clients.oldest import OldEngine, old_engine
from tests.support.endpoint import Account, Endpoint, Witness
from tests.support.engines import WHOLE as VERSIONS
from tests.support.images import Image, image

# 0.5 shows its account where it pushes and nowhere else, wants nothing but text of a search, and sets no tag on an
# image that it finds there.
LATER = [version for version in VERSIONS if version != "0.5.3"]
Start = Callable[[str, Endpoint], OldEngine]


def needing(*versions: str) -> list[pytest.MarkDecorator]:
    return [pytest.mark.needs(*(f"docker-{version}" for version in versions))]


def each(versions: list[str] | tuple[str, ...] = VERSIONS) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "version", [pytest.param(version, id=version, marks=needing(version)) for version in versions]
    )


@pytest.fixture
def start() -> Iterator[Start]:
    """Give `start(version, endpoint)`; what it started ends with the test."""

    def started(version: str, at: Endpoint) -> OldEngine:
        folder = stack.enter_context(TemporaryDirectory(prefix="cas-"))
        return stack.enter_context(old_engine(version, Path(folder), at))

    with ExitStack() as stack:
        yield started


def some_files(seed: str) -> dict[str, bytes]:
    return {"text": f"{seed}\n".encode() * 500, "noise": random.Random(seed).randbytes(150_000)}


def unpacked(layer: bytes) -> dict[str, bytes]:
    """Read the files out of a layer, which engines before 1.3 leave without an end."""
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(layer) if layer[:2] == b"\x1f\x8b" else layer)) as tar:
        files = [member for member in tar if member.isfile()]
        return {member.name.removeprefix("./"): _data(tar, member) for member in files}


def _data(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    opened = tar.extractfile(member)
    assert opened is not None
    return opened.read()


def files_of(put: Image) -> dict[str, bytes]:
    """Give all files of an image, as whoever unpacks it has them."""
    layers = (unpacked(put.blob(each["digest"])) for each in put.manifest()["layers"])
    return {name: data for layer in layers for name, data in layer.items()}


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(
    ("version", "other"),
    [
        pytest.param(version, other, id=f"{version}-{other}", marks=needing(version, other))
        for version, other in zip(VERSIONS, (*VERSIONS[1:], VERSIONS[0]), strict=True)
    ],
)
@pytest.mark.needs("skopeo")
def test_what_an_engine_pushed_is_pulled_by_another_and_by_skopeo(
    version: str, other: str, transport: str, start: Start, connect: Connect, world: World, tmp_path: Path
) -> None:
    """The same id with the same files, and today a layer with just these; pushed again, it is there already."""
    repository = f"oldest/from-{version}"
    pusher, puller = (start(each, world.endpoint(transport, "open")) for each in (version, other))
    made = pusher.make(repository, some_files(version))
    pusher.push(repository)
    pusher.push(repository)
    puller.pull(repository)
    assert puller.images(repository) == {"latest": made}
    assert puller.files(made) == some_files(version)
    skopeo = connect("skopeo", transport, "open")
    assert isinstance(skopeo, Skopeo)
    layout = skopeo.fetch(f"{repository}:latest", tmp_path / "layout") / "blobs" / "sha256"
    told = json.loads(Witness(world.endpoint(transport, "open")).manifest(repository, "latest").body)
    layers = [(layout / each["digest"].removeprefix("sha256:")).read_bytes() for each in told["layers"]]
    assert [unpacked(each) for each in layers] == [some_files(version)]


@each()
def test_an_engine_pulls_all_tags_of_what_today_pushed_and_pushes_it_on(
    version: str, start: Start, world: World, tmp_path: Path
) -> None:
    """Several layers under several tags; under another name it is the same image."""
    at = world.endpoint("plain", "open")
    put, repository = image(tmp_path / "put", f"on-{version}"), f"oldest/today-{version}"
    for tag in ("one", "two"):
        Witness(at).put(repository, put, tag)
    engine = start(version, at)
    engine.pull(repository)
    tags = engine.images(repository)
    assert set(tags) == {"one", "two"}
    assert engine.files(tags["one"]) == engine.files(tags["two"]) == files_of(put)
    engine.run("tag", tags["one"], engine.full(f"oldest/on-{version}"))
    engine.push(f"oldest/on-{version}")
    expected = {"latest": tags["one"]} if version in LATER else {}
    assert told_tags(at, f"oldest/on-{version}") == expected


def told_tags(at: Endpoint, repository: str) -> dict[str, str]:
    told: dict[str, str] = json.loads(Witness(at).ask("GET", f"/v1/repositories/{repository}/tags").body)
    return told


@pytest.mark.parametrize("transport", TRANSPORTS)
@each()
def test_an_engine_signs_up_logs_in_and_pushes_what_nobody_else_may_pull(
    version: str, transport: str, start: Start, world: World
) -> None:
    """A wrong password is refused; into the repositories of somebody else goes nothing."""
    at = world.endpoint(transport, "auth")
    account = Account(f"sign_{transport}_{version.replace('.', '')}", "a password")
    engine, stranger = start(version, at), start("1.0.1", at)
    engine.sign_up(account)
    assert not engine.log_in(replace(account, password="another"))
    assert engine.log_in(account)
    mine = f"{account.name}/mine"
    made = engine.make(mine, some_files(mine))
    engine.push(mine)
    assert told_tags(replace(at, account=account), mine) == {"latest": made}
    stranger.try_run("pull", stranger.full(mine))
    assert stranger.images(mine) == {}
    engine.run("tag", made, engine.full(f"evee/{version}"))
    engine.try_run("push", engine.full(f"evee/{version}"))
    assert Witness(replace(at, account=account)).ask("GET", f"/v1/repositories/evee/{version}/tags").status == 404
    elsewhere = start(version, at)
    assert elsewhere.log_in(account)
    elsewhere.try_run("pull", elsewhere.full(mine))
    assert elsewhere.images(mine) == ({"latest": made} if version in LATER else {})


@pytest.mark.parametrize("transport", TRANSPORTS)
@each()
def test_what_an_engine_pulled_from_one_repository_it_pushes_into_another(
    version: str, transport: str, start: Start, world: World, tmp_path: Path
) -> None:
    """On a server with accounts, where a repository shows its own: a public base is lent to whoever builds on it."""
    at = world.endpoint(transport, "auth")
    owner, other = (
        Account(f"{kind}_{transport}_{version.replace('.', '')}", "a password") for kind in ("has", "takes")
    )
    engine = start(version, at)
    for each in (owner, other):
        engine.sign_up(each)
    put, base = image(tmp_path / "put", f"base-{version}"), f"{owner.name}/base"
    Witness(replace(at, account=owner)).put(base, put, "latest")
    world.publish(transport, "auth", base)
    assert engine.log_in(other)
    engine.pull(base)
    pulled = engine.images(base)["latest"]
    engine.run("tag", pulled, engine.full(f"{other.name}/own"))
    engine.push(f"{other.name}/own")
    expected = {"latest": pulled} if version in LATER else {}
    assert told_tags(replace(at, account=other), f"{other.name}/own") == expected
    assert engine.files(pulled) == files_of(put)


@each(LATER)
def test_an_engine_finds_what_is_public_in_its_index(version: str, start: Start, world: World, tmp_path: Path) -> None:
    """By name, as the index that it was built with."""
    at = world.endpoint("plain", "auth")
    put = image(tmp_path / "put", f"found-{version}")
    for kind in ("public", "private"):
        Witness(at).put(f"bob/{kind}-{version}", put)
    world.publish("plain", "auth", f"bob/public-{version}")
    told = start(version, at).run("search", version)
    assert f"bob/public-{version}" in told
    assert f"bob/private-{version}" not in told
