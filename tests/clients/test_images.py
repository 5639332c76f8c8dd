"""Images arrive as they were sent, whatever their layers are packed in, for one platform or many, big or small."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients.conftest import Connect, World
from tests.clients.drivers import CLIENTS, Crane, Oras, Regctl, Skopeo
from tests.clients.matrix import marks_of
from tests.support.endpoint import Witness
from tests.support.images import COMPRESSIONS, Image, image, multi_arch

PULLERS = [pytest.param(name, id=name, marks=marks_of(name)) for name in CLIENTS]


def there_and_back(connect: Connect, sent: Image, folder: Path, transport: str = "plain", mode: str = "open") -> None:
    """Copy a layout to the registry and back into another, and compare them blob by blob."""
    client = connect("skopeo", transport, mode)
    assert isinstance(client, Skopeo)
    client.push(sent, f"bob/{sent.tag}:{sent.tag}")
    back = Image(client.fetch(f"bob/{sent.tag}:{sent.tag}", folder), sent.tag, sent.digest, sent.config)
    assert back.digests() == sent.digests()
    assert all(back.blob(digest) == sent.blob(digest) for digest in sent.digests())


@pytest.mark.needs("skopeo")
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_layers_keep_their_packing(compression: str, connect: Connect, tmp_path: Path) -> None:
    """Layout, registry, layout: the same digests and the same bytes."""
    there_and_back(connect, image(tmp_path / "sent", compression, compression=compression), tmp_path / "back")


@pytest.mark.needs("skopeo")
def test_an_index_keeps_all_its_platforms(connect: Connect, tmp_path: Path) -> None:
    """The index, both images, and the layer they share."""
    there_and_back(connect, multi_arch(tmp_path / "sent", "platforms"), tmp_path / "back")


@pytest.mark.needs("skopeo")
@pytest.mark.parametrize(("transport", "mode"), [("plain", "open"), ("tls", "auth")])
def test_an_image_of_300_mb_in_many_layers_arrives_whole(
    transport: str, mode: str, connect: Connect, tmp_path: Path
) -> None:
    """Six layers that do not compress, together more than 300 MB, several on their way at once."""
    sent = image(tmp_path / "sent", f"big-{transport}", compression="zstd", layers=6, layer_bytes=52 << 20)
    assert sum(each["size"] for each in sent.manifest()["layers"]) > 300_000_000
    there_and_back(connect, sent, tmp_path / "back", transport, mode)


@pytest.mark.parametrize("name", PULLERS)
def test_every_client_pulls_an_index(name: str, connect: Connect, world: World, tmp_path: Path) -> None:
    """Those that keep manifests get the index itself, engines the image of their own platform."""
    put = multi_arch(tmp_path / "put", f"index-{name}")
    Witness(world.endpoint("plain", "open")).put("bob/index", put)
    client = connect(name, "plain", "open")
    assert client.pull(f"bob/index:{put.tag}") == (put.digest if client.exact else put.config)


@pytest.mark.needs("crane")
@pytest.mark.parametrize("mode", ["open", "auth"])
def test_a_copy_between_repositories_moves_no_layer(mode: str, connect: Connect, world: World, tmp_path: Path) -> None:
    """Blobs are mounted, the manifest is the same, and the catalogue shows both repositories."""
    put = image(tmp_path / "put", f"mount-{mode}")
    witness = Witness(world.endpoint("plain", mode))
    witness.put("bob/source", put)
    crane = connect("crane", "plain", mode)
    assert isinstance(crane, Crane)
    told = crane.copy(f"bob/source:{put.tag}", f"bob/target:{put.tag}")
    assert told.count("mounted blob") == 4
    assert witness.digest("bob/target", put.tag) == put.digest
    assert crane.catalogue() >= {"bob/source", "bob/target"}


@pytest.mark.needs("oras")
@pytest.mark.parametrize("transport", ["plain", "tls"])
@pytest.mark.parametrize("mode", ["open", "auth"])
def test_what_is_attached_to_an_image_is_found(
    transport: str, mode: str, connect: Connect, world: World, tmp_path: Path
) -> None:
    """By its type, through the referrers of the image, which itself stays as it was."""
    put = image(tmp_path / "put", f"attach-{transport}-{mode}")
    witness = Witness(world.endpoint(transport, mode))
    witness.put("bob/attach", put)
    oras = connect("oras", transport, mode)
    assert isinstance(oras, Oras)
    (tmp_path / "note.txt").write_text("seen\n", encoding="utf-8")
    for kind in ("application/vnd.test.note", "application/vnd.test.other"):
        oras.attach(f"bob/attach:{put.tag}", tmp_path / "note.txt", kind)
    assert len(oras.discover(f"bob/attach:{put.tag}", "application/vnd.test.note")) == 1
    answer = witness.ask("GET", f"/v2/bob/attach/referrers/{put.digest}")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/vnd.oci.image.index.v1+json")
    assert witness.digest("bob/attach", put.tag) == put.digest


@pytest.mark.needs("regctl")
@pytest.mark.parametrize("mode", ["open", "auth"])
def test_a_tag_alone_is_deleted(mode: str, connect: Connect, world: World, tmp_path: Path) -> None:
    """By its name: what it pointed to stays, under its digest and its other tag."""
    put = image(tmp_path / "put", f"untag-{mode}")
    witness = Witness(world.endpoint("plain", mode))
    for tag in ("old", "new"):
        witness.put("bob/untag", put, tag)
    regctl = connect("regctl", "plain", mode)
    assert isinstance(regctl, Regctl)
    regctl.delete_tag("bob/untag:old")
    assert regctl.tags("bob/untag") == {"new"}
    assert witness.manifest("bob/untag", "old").status == 404
    assert witness.digest("bob/untag", put.digest) == put.digest
