"""Whole pushes and pulls, by engines of every age, alone and at once, undisturbed and cut off."""

from __future__ import annotations

import gzip
import http.client
import random
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from api.v1.image import EMPTY_LAYER
from api.v1.tarsum import Form, tarsum
from cas import Store, Upload
from tests.v1client import Client, Era, Layer, Refused, chain
from tests.wire.harness import read_all
from tests.wire.v1.talk import Registry, image_json, new_id, new_repository, payload, running

LAYERS = (
    EMPTY_LAYER,
    random.Random(1).randbytes(3_000_000),
    gzip.compress(bytes(5_000_000)),
    bytes(200_000) + random.Random(2).randbytes(100_000),
    EMPTY_LAYER,
)


def fresh_chain(layers: tuple[bytes, ...] = LAYERS) -> list[Layer]:
    return chain(layers, seed=new_id())


def with_tarsums(images: list[Layer]) -> list[Layer]:
    form = Form("tarsum", "sha256")
    return [
        replace(image, tarsum=tarsum(form, image.json, image.blocks(), limit_bytes=1 << 30, limit_entries=100))
        for image in images
    ]


def assert_pulled(client: Client, repository: str, tag: str, images: list[Layer], into: Path) -> None:
    pulled = client.pull(repository, tag, into)
    assert [(image.id, image.json) for image in pulled] == [(image.id, image.json) for image in images]
    for image, got in zip(images, pulled, strict=True):
        assert (into / f"{image.id}.layer").read_bytes() == image.layer
        assert got.announced_checksum == got.payload_checksum == image.payload_checksum()


@pytest.mark.parametrize("era", ["A", "C"])
def test_a_push_by_an_engine_of_each_era_is_pulled_back(registry: Registry, tmp_path: Path, era: Era) -> None:
    """Era A sends checksums with the json, era C on a route of its own."""
    repository, images = new_repository(), fresh_chain()
    assert registry.client().push(repository, images, ["latest", "1.0"], era=era) == [i.id for i in images]
    assert_pulled(registry.client(), repository, "1.0", images, tmp_path)


def test_a_push_by_an_engine_of_era_b_is_pulled_back(registry: Registry, tmp_path: Path) -> None:
    """It knows tarsums only, so the archives have to be read."""
    repository = new_repository()
    images = with_tarsums(fresh_chain((EMPTY_LAYER, gzip.compress(bytes(10_240)), b"")))
    client = replace(registry.client(), agent="docker/0.7.6 go/go1.2 git-commit/bc3b2ec kernel/3.8.0")
    client.push(repository, images, ["latest"], era="B")
    listed = client.index("GET", f"/v1/repositories/{repository}/images").value
    assert {entry["id"]: entry["checksum"] for entry in listed} == {image.id: image.tarsum for image in images}
    images[-1] = replace(images[-1], layer=EMPTY_LAYER)
    assert_pulled(client, repository, "latest", images, tmp_path)


def test_a_repeated_push_sends_nothing_but_tags(registry: Registry) -> None:
    """All probes say present; the tag may be another one."""
    repository, images = new_repository(), fresh_chain((b"one", b"two"))
    registry.client().push(repository, images, ["a"])
    assert registry.client().push(repository, images, ["a", "b"]) == []
    assert registry.ask("GET", f"/v1/repositories/{repository}/tags").value == {
        "a": images[-1].id,
        "b": images[-1].id,
    }


def test_a_shared_base_is_sent_once(registry: Registry) -> None:
    """Into another repository too."""
    images = fresh_chain((b"base", b"top"))
    registry.client().push(new_repository(), images[:1], ["latest"])
    assert registry.client().push(new_repository(), images, ["latest"]) == [images[1].id]


def test_a_tag_may_wander_up_the_chain(registry: Registry) -> None:
    """Engines up to 0.7 tag every image in turn; the last one wins."""
    repository, images = new_repository(), fresh_chain((b"one", b"two", b"three"))
    client = registry.client()
    for number in range(len(images)):
        client.push(repository, images[: number + 1], ["latest"])
    assert [image.id for image in client.pull(repository, "latest")] == [image.id for image in images]


def test_a_name_without_namespace_is_pushed_and_pulled(registry: Registry, tmp_path: Path) -> None:
    """The engine spells it `foo` in one half of its requests and `library/foo` in the other."""
    images = fresh_chain((b"layer",))
    registry.client().push("pushpull", images, ["latest"])
    assert_pulled(registry.client(), "pushpull", "latest", images, tmp_path)


def test_what_was_pushed_is_there_after_a_restart(tmp_path: Path) -> None:
    """Images, tags and lists; tokens too."""
    images = fresh_chain()
    with running(tmp_path / "root") as registry:
        client = registry.client()
        client.push("kept/here", images, ["latest"])
        client.index("DELETE", "/v1/repositories/kept/gone/")
        registry.client().push("kept/gone", images, ["latest"])
        token = client.index("DELETE", "/v1/repositories/kept/gone/").headers["X-Docker-Token"]
    with running(tmp_path / "root") as registry:
        assert_pulled(registry.client(), "kept/here", "latest", images, tmp_path)
        headers = {"Authorization": f"Token {token}"}
        assert registry.ask("DELETE", "/v1/repositories/kept/gone/", headers=headers).status == 200
        assert registry.ask("DELETE", "/v1/repositories/kept/gone/").status == 404


# --- cut off ----------------------------------------------------------------------------------------------


def chunked(target: str, sent: bytes) -> bytes:
    head = f"PUT {target} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head.encode() + b"%x\r\n" % len(sent) + sent + b"\r\n"


def sized(target: str, sent: bytes) -> bytes:
    return f"PUT {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(sent) + 1}\r\n\r\n".encode() + sent


@pytest.mark.parametrize("framing", [chunked, sized])
def test_a_layer_cut_off_in_the_middle_leaves_nothing_visible(registry: Registry, framing: object) -> None:
    """And takes nothing away: the layer that was there before is still the image's."""
    assert callable(framing)
    image_id = new_id()
    body = image_json(image_id)
    registry.put_json(image_id, body)
    registry.put_layer(image_id, b"first")
    cut = random.Random(3).randbytes(700_000)
    before = registry.store.stats()
    assert b" 200 " not in registry.raw(framing(f"/v1/images/{image_id}/layer", cut))
    assert registry.store.stats().names == before.names
    assert registry.put_checksum(image_id, payload(body, cut)).status == 400
    assert registry.put_checksum(image_id, payload(body, b"first")).status == 200
    assert registry.ask("GET", f"/v1/images/{image_id}/layer").body == b"first"


@pytest.mark.parametrize("part", ["json", "layer"])
def test_a_body_cut_off_at_its_first_byte_leaves_nothing(registry: Registry, part: str) -> None:
    """Neither an image nor a layer of no bytes."""
    image_id = new_id()
    if part == "layer":
        registry.put_json(image_id)
    head = f"PUT /v1/images/{image_id}/{part} HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n"
    assert b" 200 " not in registry.raw(head.encode())
    expected = 400 if part == "layer" else 404
    assert registry.ask("GET", f"/v1/images/{image_id}/json").status == expected
    assert registry.put_checksum(image_id, payload(image_json(image_id), b"")).status == expected


def test_an_interrupted_push_is_repaired_by_pushing_again(registry: Registry, tmp_path: Path) -> None:
    """The probe of an uploading image is not 200, so the engine sends it once more."""
    repository, images = new_repository(), fresh_chain()

    class Lost(Exception):
        pass

    class Faltering(Client):
        def _put_layer(self, image: Layer) -> str:
            if image.id != images[2].id:
                return super()._put_layer(image)
            target = f"/v1/images/{image.id}/layer"
            with closing(socket.create_connection(registry.server.address)) as sock:
                assert isinstance(image.layer, bytes)
                sock.sendall(chunked(target, image.layer[:4000]))
                sock.shutdown(socket.SHUT_WR)
                assert b" 200 " not in read_all(sock)
            raise Lost

    with pytest.raises(Lost):
        Faltering(*registry.server.address).push(repository, images, ["latest"])
    assert registry.client().push(repository, images, ["latest"]) == [image.id for image in images[2:]]
    assert_pulled(registry.client(), repository, "latest", images, tmp_path)


def test_a_layer_is_answered_only_when_all_of_it_was_read(registry: Registry) -> None:
    """Not a byte before the last chunk."""
    image_id = new_id()
    registry.put_json(image_id)
    with closing(registry.server.connect()) as sock:
        sock.sendall(chunked(f"/v1/images/{image_id}/layer", b"all but the end"))
        # Another request on another connection comes through meanwhile; this one stays silent.
        assert registry.ask("GET", f"/v1/images/{image_id}/json").status == 400
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.recv(1)
        sock.setblocking(True)
        sock.sendall(b"0\r\n\r\n")
        assert sock.recv(1 << 16).startswith(b"HTTP/1.1 200 ")


# --- at once ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("era", ["A", "C"])
def test_engines_that_push_the_same_chain_at_once_all_succeed(registry: Registry, tmp_path: Path, era: Era) -> None:
    """Whoever comes second finds the image complete, or finishes it with the same bytes."""
    layers = tuple(random.Random(seed).randbytes(size) for seed, size in enumerate((50, 300_000, 90_000)))
    for number in range(5):
        images = fresh_chain(layers)
        repositories = [new_repository() for _ in range(6)]
        start = threading.Barrier(len(repositories))

        def push(repository: str, images: list[Layer] = images, start: threading.Barrier = start) -> None:
            start.wait()
            registry.client().push(repository, images, ["latest"], era=era)

        with ThreadPoolExecutor(len(repositories)) as pool:
            list(pool.map(push, repositories))
        into = tmp_path / str(number)
        into.mkdir()
        for repository in repositories:
            assert_pulled(registry.client(), repository, "latest", images, into)


def test_engines_that_push_different_bytes_under_one_id_leave_one_of_them_whole(registry: Registry) -> None:
    """One wins; nobody ever reads a mixture, and the losers are told."""
    for _ in range(10):
        image_id = new_id()
        candidates = [
            Layer(image_id, image_json(image_id, comment="x" * n), random.Random(n).randbytes(100_000))
            for n in range(4)
        ]
        start = threading.Barrier(len(candidates))
        told: list[int] = []

        def push(layer: Layer, start: threading.Barrier = start, told: list[int] = told) -> bool:
            start.wait()
            try:
                return registry.client().push(new_repository(), [layer], ["latest"]) != []
            except Refused as refused:
                told.append(refused.status)
                return False

        with ThreadPoolExecutor(len(candidates)) as pool:
            won = list(pool.map(push, candidates))
        assert sum(won) <= 1
        assert set(told) <= {400, 404, 409}
        image = registry.ask("GET", f"/v1/images/{image_id}/json")
        if image.status == 200:
            layer = registry.ask("GET", f"/v1/images/{image_id}/layer").body
            assert (image.body, layer) in [(c.json, c.layer) for c in candidates]
            assert image.headers["X-Docker-Checksum-Payload"] == payload(image.body, layer)


def test_the_second_of_two_finishes_in_every_order(registry: Registry) -> None:
    """Overtaken before its layer, during it, and before its checksum: the same bytes are good at any time."""
    layer = b"the same bytes"
    for overtaken_before in ("layer", "checksum"):
        image_id = new_id()
        body = image_json(image_id)
        checksum = payload(body, layer)
        assert registry.put_json(image_id, body).status == 200  # the first
        assert registry.put_json(image_id, body).status == 200  # the second
        if overtaken_before == "checksum":
            assert registry.put_layer(image_id, layer).status == 200
        assert registry.put_layer(image_id, layer).status == 200
        assert registry.put_checksum(image_id, checksum).status == 200
        if overtaken_before == "layer":
            assert registry.put_layer(image_id, layer).status == 200
        assert registry.put_checksum(image_id, checksum).status == 200
        for answer in (registry.put_layer(image_id, b"other bytes"), registry.put_checksum(image_id, "sha256:0")):
            assert answer.status == 409
        assert registry.ask("GET", f"/v1/images/{image_id}/layer").body == layer


def test_an_image_overtaken_during_its_layer_keeps_its_bytes(registry: Registry) -> None:
    """The slower one may send what it likes: only the same bytes are good."""
    for sent, status in ((b"same", 200), (b"else", 409)):
        image_id = new_id()
        body = image_json(image_id)
        registry.put_json(image_id, body)
        registry.put_json(image_id, body)
        with closing(http.client.HTTPConnection(*registry.server.address, timeout=30)) as slow:
            slow.putrequest("PUT", f"/v1/images/{image_id}/layer")
            slow.putheader("Content-Length", "4")
            slow.endheaders(sent[:2])
            assert registry.put_layer(image_id, b"same").status == 200
            assert registry.put_checksum(image_id, payload(body, b"same")).status == 200
            slow.send(sent[2:])
            assert slow.getresponse().status == status
        assert registry.ask("GET", f"/v1/images/{image_id}/layer").body == b"same"


def test_json_overtaken_on_its_way_to_the_store_does_not_undo_a_complete_image(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What counts is the state when the change is made, not when the request came."""
    image_id = new_id()
    body = image_json(image_id)
    upload = Store.upload

    def overtaken(store: Store, **options: Any) -> Upload:
        monkeypatch.setattr(Store, "upload", upload)
        for answer in (
            registry.put_json(image_id, body),
            registry.put_layer(image_id, b"layer"),
            registry.put_checksum(image_id, payload(body, b"layer")),
        ):
            assert answer.status == 200
        return store.upload(**options)

    monkeypatch.setattr(Store, "upload", overtaken)
    answer = registry.put_json(image_id, image_json(image_id, comment="other"))
    assert (answer.status, answer.body) == (409, b'{"error": "Image already exists"}')
    assert registry.ask("GET", f"/v1/images/{image_id}/json").body == body
