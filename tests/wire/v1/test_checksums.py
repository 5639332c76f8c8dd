"""What completes an image: the three ways in which engines have sent checksums."""

# ruff: noqa: SLF001 - what comes between a check and its change is put there, not waited for

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import tarfile
from pathlib import Path
from typing import Any

import pytest

from api.v1 import images
from api.v1.settings import V1Settings
from api.v1.tarsum import Form, tarsum
from tests.wire.v1.talk import Registry, image_json, new_id, payload, refusal, running

MISMATCH = refusal("Checksum mismatch")


def make_layer(data: bytes = b"hello") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo("a.txt")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


LAYER = gzip.compress(make_layer())


def compute(body: bytes, layer: bytes, version: str = "tarsum", algorithm: str = "sha256") -> str:
    return tarsum(Form(version, algorithm), body, [layer], limit_bytes=1 << 20, limit_entries=100)


def uploaded(registry: Registry, layer: bytes = LAYER) -> tuple[str, bytes]:
    """An image that lacks nothing but its checksum."""
    image_id = new_id()
    body = image_json(image_id)
    assert registry.put_json(image_id, body).status == 200
    assert registry.put_layer(image_id, layer).status == 200
    return image_id, body


def is_complete(registry: Registry, image_id: str) -> bool:
    return registry.ask("GET", f"/v1/images/{image_id}/json").status == 200


# --- era C: both checksums --------------------------------------------------------------------------------


def test_beside_a_payload_checksum_the_tarsum_is_not_looked_at(registry: Registry) -> None:
    """Tarsums differ between readers and versions; a right payload checksum completes whatever they say."""
    image_id, body = uploaded(registry)
    answer = registry.put_checksum(image_id, payload(body, LAYER), tarsum="tarsum+sha256:" + "0" * 64)
    assert answer.status == 200
    assert is_complete(registry, image_id)


def test_a_right_tarsum_does_not_save_a_wrong_payload_checksum(registry: Registry) -> None:
    """It is the stricter one that counts."""
    image_id, body = uploaded(registry)
    answer = registry.put_checksum(image_id, "sha256:" + "0" * 64, tarsum=compute(body, LAYER))
    assert (answer.status, answer.body) == (400, MISMATCH)
    assert not is_complete(registry, image_id)


def test_a_payload_checksum_needs_its_newline(registry: Registry) -> None:
    """One byte between json and layer; without it, it is another checksum."""
    image_id, body = uploaded(registry)
    assert registry.put_checksum(image_id, payload(body[:-1], body[-1:] + LAYER)).status == 400


def test_no_checksum_at_all_is_412(registry: Registry) -> None:
    """In the reference's words, two blanks and all."""
    image_id, _ = uploaded(registry)
    answer = registry.put_checksum(image_id)
    words = (
        "X-Docker-Checksum-Payload not set.  If you are using the Docker daemon, "
        "you should upgrade to version 0.10 or later"
    )
    assert (answer.status, answer.body) == (412, refusal(words))


@pytest.mark.parametrize("blank", ["", "  "])
def test_an_empty_checksum_is_400(registry: Registry, blank: str) -> None:
    """In either header."""
    image_id, _ = uploaded(registry)
    for answer in (registry.put_checksum(image_id, blank), registry.put_checksum(image_id, tarsum=blank)):
        assert (answer.status, answer.body) == (400, refusal("Missing Image's checksum"))


def test_a_checksum_before_its_layer_is_a_mismatch(registry: Registry) -> None:
    """The reference crashed here."""
    image_id = new_id()
    body = image_json(image_id)
    registry.put_json(image_id, body)
    for answer in (
        registry.put_checksum(image_id, payload(body, b"")),
        registry.put_checksum(image_id, tarsum=compute(body, b"")),
        registry.put_checksum(image_id, tarsum=payload(body, b"")),
    ):
        assert (answer.status, answer.body) == (400, MISMATCH)


# --- 0.9, between the two: a payload checksum of other bytes ----------------------------------------------

AGENT = "docker/0.9.1 go/go1.2.1 git-commit/3600720 kernel/3.8.0 os/linux arch/amd64"


def of_the_disk(layer: bytes) -> str:
    """What engines of 0.9 send as payload checksum: of the tar as they read it, not yet packed, and no json."""
    return "sha256:" + hashlib.sha256(gzip.decompress(layer)).hexdigest()


def test_an_engine_of_0_9_is_taken_at_its_tarsum(registry: Registry) -> None:
    """What it calls a payload checksum is of bytes that it does not send."""
    image_id, body = uploaded(registry)
    wrong = registry.put_checksum(image_id, of_the_disk(LAYER), tarsum="tarsum+sha256:" + "0" * 64, agent=AGENT)
    assert (wrong.status, wrong.body) == (400, MISMATCH)
    right = registry.put_checksum(image_id, of_the_disk(LAYER), tarsum=compute(body, LAYER), agent=AGENT)
    assert right.status == 200
    assert is_complete(registry, image_id)


@pytest.mark.parametrize("version", ["0.10.0", "0.90.0", "1.0.1", "1.9.1"])
def test_every_later_engine_is_held_to_its_payload_checksum(registry: Registry, version: str) -> None:
    """From 0.10 on it is of what was sent."""
    image_id, body = uploaded(registry)
    agent = AGENT.replace("0.9.1", version)
    answer = registry.put_checksum(image_id, of_the_disk(LAYER), tarsum=compute(body, LAYER), agent=agent)
    assert (answer.status, answer.body) == (400, MISMATCH)


# --- era B: a tarsum alone --------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["tarsum", "tarsum.v1", "tarsum.dev"])
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_right_tarsum_completes(registry: Registry, version: str, algorithm: str) -> None:
    """Of every version and hash."""
    image_id, body = uploaded(registry)
    answer = registry.put_checksum(image_id, tarsum=compute(body, LAYER, version, algorithm))
    assert answer.status == 200
    assert is_complete(registry, image_id)


@pytest.mark.parametrize(
    "layer", [b"", make_layer(), lzma.compress(make_layer()), LAYER], ids=["empty", "tar", "xz", "gz"]
)
def test_a_tarsum_is_of_the_contents_in_any_packing(registry: Registry, layer: bytes) -> None:
    """Also of a layer of no bytes."""
    image_id, body = uploaded(registry, layer)
    assert registry.put_checksum(image_id, tarsum=compute(body, layer)).status == 200
    assert is_complete(registry, image_id)


@pytest.mark.parametrize("wrong", ["tarsum+sha256:" + "0" * 64, "tarsum.v9+sha256:00", "tarsum+md5:00", "tarsum", "x"])
def test_a_wrong_or_unknown_tarsum_does_not(registry: Registry, wrong: str) -> None:
    """The image goes on uploading, and a right one completes it later."""
    image_id, body = uploaded(registry)
    answer = registry.put_checksum(image_id, tarsum=wrong)
    assert (answer.status, answer.body) == (400, MISMATCH)
    assert not is_complete(registry, image_id)
    assert registry.put_checksum(image_id, tarsum=compute(body, LAYER)).status == 200


def test_a_tarsum_of_what_is_no_archive_is_a_mismatch(registry: Registry) -> None:
    """Damaged archives have none."""
    image_id, body = uploaded(registry, LAYER[:-12])
    assert registry.put_checksum(image_id, tarsum=compute(body, LAYER)).body == MISMATCH


def test_a_simple_checksum_may_come_under_the_old_header(registry: Registry) -> None:
    """The same content as a payload checksum."""
    image_id, body = uploaded(registry)
    assert registry.put_checksum(image_id, tarsum=payload(body, LAYER)).status == 200


def test_a_tarsum_that_takes_too_much_reading_is_refused_and_said_so(tmp_path: Path) -> None:
    """A bound on work, not a verdict on the bytes."""
    with running(tmp_path / "root", v1=V1Settings(max_unpacked_bytes=4096)) as registry:
        layer = make_layer(bytes(10_000))
        image_id, body = uploaded(registry, layer)
        answer = registry.put_checksum(image_id, tarsum=compute(body, layer))
        assert (answer.status, answer.body) == (400, refusal("Layer unpacks to more than this server reads"))
        assert not is_complete(registry, image_id)


@pytest.mark.parametrize("exchanged", ["layer", "json"])
def test_bytes_exchanged_while_they_are_checked_are_not_completed(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, exchanged: str
) -> None:
    """A checksum proves what was read, and another engine may have replaced that meanwhile."""
    image_id, body = uploaded(registry)
    right = compute(body, LAYER)

    def slow(*arguments: Any, **limits: Any) -> str:
        result = tarsum(*arguments, **limits)
        if exchanged == "layer":
            assert registry.put_layer(image_id, b"another").status == 200
        else:
            assert registry.put_json(image_id, image_json(image_id, comment="another")).status == 200
        return result

    monkeypatch.setattr(images, "tarsum", slow)
    answer = registry.put_checksum(image_id, tarsum=right)
    assert (answer.status, answer.body) == (400, MISMATCH)
    assert not is_complete(registry, image_id)


# --- era A: with the json ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["simple", "tarsum"])
def test_a_checksum_sent_with_the_json_completes_at_the_layer(registry: Registry, kind: str) -> None:
    """These engines never send one on a route of its own."""
    image_id = new_id()
    body = image_json(image_id)
    checksum = payload(body, LAYER) if kind == "simple" else compute(body, LAYER)
    assert registry.put_json(image_id, body, X_Docker_Checksum=checksum).status == 200
    assert not is_complete(registry, image_id)
    assert registry.put_layer(image_id, LAYER).status == 200
    assert is_complete(registry, image_id)


def test_another_layer_than_announced_is_ignored(registry: Registry) -> None:
    """400, and as if it had never come; the right one still completes."""
    image_id = new_id()
    body = image_json(image_id)
    registry.put_json(image_id, body, X_Docker_Checksum=payload(body, LAYER))
    answer = registry.put_layer(image_id, b"another")
    assert (answer.status, answer.body) == (400, refusal("Checksum mismatch, ignoring the layer"))
    assert registry.put_checksum(image_id, payload(body, b"another")).body == MISMATCH
    assert registry.put_layer(image_id, LAYER).status == 200
    assert is_complete(registry, image_id)


def test_json_sent_again_drops_what_was_announced(registry: Registry) -> None:
    """The last json says what is expected, even if that is nothing."""
    image_id = new_id()
    body = image_json(image_id)
    registry.put_json(image_id, body, X_Docker_Checksum=payload(body, LAYER))
    registry.put_json(image_id, body)
    assert registry.put_layer(image_id, b"another").status == 200
    assert not is_complete(registry, image_id)
    assert registry.put_checksum(image_id, payload(body, b"another")).status == 200


@pytest.mark.parametrize("kind", ["simple", "tarsum"])
@pytest.mark.parametrize("exchanged", ["layer", "json"])
@pytest.mark.parametrize("right", [True, False], ids=["right", "wrong"])
def test_a_layer_overtaken_while_it_is_checked_completes_nothing(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, kind: str, exchanged: str, *, right: bool
) -> None:
    """Neither it nor what came in its place: the one is told, the other stays as it was pushed."""
    image_id = new_id()
    body, other = image_json(image_id), image_json(image_id, comment="another")
    checksum = payload(body, LAYER) if kind == "simple" else compute(body, LAYER)
    registry.put_json(image_id, body, X_Docker_Checksum=checksum)
    matches = images._matches

    def overtaken(*arguments: Any) -> bool:
        monkeypatch.setattr(images, "_matches", matches)
        result = matches(*arguments)
        if exchanged == "json":
            assert registry.put_json(image_id, other).status == 200
        else:
            assert registry.put_json(image_id, body).status == 200
            assert registry.put_layer(image_id, b"another").status == 200
        return result

    monkeypatch.setattr(images, "_matches", overtaken)
    answer = registry.put_layer(image_id, LAYER if right else b"bad")
    words = "Image was replaced while its layer was uploaded, push the image again"
    told = (409, refusal(words)) if right else (400, refusal("Checksum mismatch, ignoring the layer"))
    assert (answer.status, answer.body) == told
    assert not is_complete(registry, image_id)
    if exchanged == "json":
        assert registry.put_layer(image_id, b"another").status == 200
    assert registry.put_checksum(image_id, payload(other if exchanged == "json" else body, b"another")).status == 200
