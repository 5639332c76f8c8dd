"""Engines 1.3 to 1.12 move images to and from this registry, among themselves and with today's clients."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.clients.conftest import Connect, World
from tests.clients.drivers import Skopeo
from tests.clients.matrix import MODES, TRANSPORTS
from tests.clients.old_engines import Files, OldEngine, unpacked
from tests.support.endpoint import Account, Witness
from tests.support.engines import LINKED as VERSIONS
from tests.support.images import COMPRESSIONS, Image, image
from tests.support.registry import EVE, OLGA

BASE = {"hello": b"hello from 2014\n", "etc/conf": b"x" * 5000}
# Of other sizes than a block of a tar, and than what is compressed at once.
TOP = {"etc/other": b"y", "data": bytes(range(256)) * 4000}
LAYERS = [BASE, TOP]
pytestmark = pytest.mark.needs(*(f"engine-{version}" for version in VERSIONS))

Engine = Callable[..., OldEngine]


@pytest.fixture
def engine(world: World) -> Iterator[Engine]:
    """Give `engine(version, transport, mode, account=…)` with an empty storage.

    Where accounts are kept it comes as OLGA, unless told: to engines before 1.6 a name has four letters or more.
    """

    def made(version: str, transport: str = "plain", mode: str = "open", account: Account | bool = True) -> OldEngine:
        at = world.endpoint(transport, mode)
        if at.account is not None:
            at = replace(at, account=OLGA if account is True else account or None)
        return OldEngine(version, at, Path(stack.enter_context(TemporaryDirectory(prefix="cas-"))))

    with ExitStack() as stack:
        yield made


def layers_of(put: Image) -> list[Files]:
    return [unpacked(put.blob(each["digest"])) for each in put.manifest()["layers"]]


def after(version: str) -> str:
    """The next version, and after the last the first: so each pushes for one that speaks otherwise."""
    return VERSIONS[(VERSIONS.index(version) + 1) % len(VERSIONS)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("version", VERSIONS)
def test_what_one_engine_pushed_another_pulls(version: str, transport: str, mode: str, engine: Engine) -> None:
    """Two layers, pushed twice, the second time with nothing to send; the other engine gets every file of both."""
    repository = f"olga/engine-{version}"
    old = engine(version, transport, mode)
    old.load(f"{repository}:one", *LAYERS)
    old.push(f"{repository}:one")
    old.push(f"{repository}:one")
    other = engine(after(version), transport, mode)
    other.pull(f"{repository}:one")
    assert other.layers(f"{repository}:one") == LAYERS
    assert Witness(old.at).manifest(repository, "one").status == 200


@pytest.mark.needs("skopeo")
@pytest.mark.parametrize("version", VERSIONS)
def test_what_an_engine_pushed_is_pulled_today(version: str, engine: Engine, connect: Connect, tmp_path: Path) -> None:
    """Skopeo copies it, which verifies every digest, and finds the files in as many layers."""
    old = engine(version)
    old.load(f"olga/today-{version}:one", *LAYERS)
    old.push(f"olga/today-{version}:one")
    old.push(f"olga/today-{version}:one")  # 1.12 describes it otherwise then
    skopeo = connect("skopeo", "plain", "open")
    assert isinstance(skopeo, Skopeo)
    folder = skopeo.fetch(f"olga/today-{version}:one", tmp_path / "fetched")

    def blob(digest: str) -> bytes:
        return (folder / "blobs" / digest.replace(":", "/")).read_bytes()

    top = json.loads((folder / "index.json").read_bytes())["manifests"][0]["digest"]
    assert [unpacked(blob(each["digest"])) for each in json.loads(blob(top))["layers"]] == LAYERS


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("version", VERSIONS[:-1])
def test_what_is_pushed_today_an_engine_pulls(version: str, compression: str, engine: Engine, tmp_path: Path) -> None:
    """An OCI image, be it compressed in a way that the engine never heard of."""
    seed = f"for-{version}-{compression}"
    put = image(tmp_path / "put", seed, compression=compression)
    old = engine(version)
    Witness(old.at).put(f"olga/{seed}", put)
    old.pull(f"olga/{seed}:{seed}")
    assert old.layers(f"olga/{seed}:{seed}") == layers_of(put)


@pytest.mark.needs("skopeo")
def test_what_is_pushed_today_in_dockers_form_an_engine_pulls(engine: Engine, connect: Connect, tmp_path: Path) -> None:
    """The newest of these pulls by v2, and of manifests knows schema 2 alone, wherever it pulls from."""
    old, skopeo = engine(VERSIONS[-1]), connect("skopeo", "plain", "open")
    put = image(tmp_path / "put", "docker-form")
    form = ["--format", "v2s2", "--dest-tls-verify=false"]
    skopeo.run("copy", *form, f"oci:{put.folder}:{put.tag}", f"docker://{skopeo.full('olga/docker-form:one')}")
    old.pull("olga/docker-form:one")
    assert old.layers("olga/docker-form:one") == layers_of(put)


@pytest.mark.parametrize("version", VERSIONS)
def test_all_tags_of_a_repository_are_pulled_at_once(version: str, engine: Engine) -> None:
    """As `docker pull -a` does: tags of two images, of a repository without a name space."""
    pushing, pulling = engine(version), engine(version)
    for tag, layers in {"one": LAYERS, "two": [TOP]}.items():
        pushing.load(f"all-{version}:{tag}", *layers)
        pushing.push(f"all-{version}:{tag}")
    pulling.pull(f"all-{version}")
    assert pulling.layers(f"all-{version}:one") == LAYERS
    assert pulling.layers(f"all-{version}:two") == [TOP]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_login_with_a_wrong_password_is_refused(version: str, engine: Engine) -> None:
    """And one with the right password is not, whichever protocol an engine asks."""
    for transport in TRANSPORTS:
        old = engine(version, transport, "auth")
        address = f"{old.at.url}/v1/" if version == "1.3.3" else old.at.address
        assert "Login Succeeded" in old.run("login", address)
        wrong = engine(version, transport, "auth", replace(OLGA, password="not that"))
        assert wrong.try_run("login", address).returncode != 0


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("version", VERSIONS)
def test_only_what_is_public_is_for_others(version: str, transport: str, world: World, engine: Engine) -> None:
    """Nobody and another account neither find nor pull what is private, nor push there; what is public they pull."""
    private, public = f"olga/private-{version}", f"olga/public-{version}"
    owner = engine(version, transport, "auth")
    for repository in (private, public):
        owner.load(f"{repository}:one", BASE)
        owner.push(f"{repository}:one")
    world.publish(transport, "auth", public)
    assert private in owner.search("private-")
    for who in (False, EVE):
        stranger = engine(version, transport, "auth", who)
        assert private not in stranger.search("private-")
        assert public in stranger.search("public-")
        assert stranger.try_run("pull", stranger.full(f"{private}:one")).returncode != 0
        stranger.pull(f"{public}:one")
        assert stranger.layers(f"{public}:one") == [BASE]
        stranger.load(f"{public}:one", TOP)
        assert stranger.try_run("push", stranger.full(f"{public}:one")).returncode != 0
    owner.pull(f"{public}:one")
    assert owner.layers(f"{public}:one") == [BASE]
