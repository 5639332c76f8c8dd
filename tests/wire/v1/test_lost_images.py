"""An image of which damage took a part is not there for engines, so they push it again, and that heals it (I9)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cas import Digest
from tests.support.losing import is_here, lose
from tests.v1client import Client, Era, Layer
from tests.wire.generations.both import new_tar, packed
from tests.wire.harness import NOW
from tests.wire.v1.talk import (
    TRUE,
    WANT,
    Guarded,
    Registry,
    basic,
    image_json,
    new_id,
    new_repository,
    payload,
    refusal,
    token,
)
from tests.wire.v1.test_push_pull import assert_pulled, chunked, sized, with_tarsums

LOST = refusal("Image was lost by damage to what this server stores, push it again")
EXISTS = refusal("Image already exists")
FINAL = refusal("Cannot set this image checksum")
MISMATCH = refusal("Checksum mismatch")
PACKED = 100_000  # bytes: what is smaller than 64 KiB lies in the index


def new_layer(size: int = PACKED) -> bytes:
    """An archive that no other test has, as engines send it."""
    return packed(new_tar(size))


def new_chain(layers: list[bytes], padding: int = 0) -> list[Layer]:
    images: list[Layer] = []
    for layer in layers:
        image_id = new_id()
        body = image_json(image_id, images[-1].id if images else None, comment="x" * padding)
        images.append(Layer(image_id, body, layer))
    return images


def blobs(image: Layer, *parts: str) -> list[Digest]:
    assert isinstance(image.layer, bytes)
    of = {"json": image.json, "layer": image.layer}
    return [Digest.of(of[part]) for part in parts or ("layer",)]


def lose_layer(registry: Registry, layer: bytes) -> None:
    lose(registry.store, Digest.of(layer))


def probe(registry: Registry, image_id: str) -> int:
    """Ask what an engine asks before it pushes an image."""
    return registry.ask("GET", f"/v1/images/{image_id}/json").status


def listening(registry: Registry, heard: list[tuple[str, str, int]]) -> Client:
    """Give an engine whose requests are noted."""
    client = registry.client()
    client.heard = lambda method, path, status: heard.append((method, path, status))
    return client


# --- not there --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["json", "layer"])
def test_a_lost_image_is_not_there_and_its_ancestry_and_tags_stay(registry: Registry, part: str) -> None:
    """Whatever is asked of it, by whoever pushes or pulls, in part or again; neighbours are served."""
    repository, images = new_repository(), new_chain([new_layer(), new_layer(), new_layer()])
    registry.client().push(repository, images, ["latest", "1.0"])
    base, lost, top = (image.id for image in images)
    lose(registry.store, *blobs(images[1], part))
    for form in ("images/{}/json", "images/{}/layer", "images/{}/files", "private_images/{}/json"):
        for headers in ({}, {"If-Modified-Since": "x"}, {"Range": "bytes=1-2"}):
            answer = registry.ask("GET", f"/v1/{form.format(lost)}", headers=headers)
            assert (answer.status, answer.body) == (404, LOST), form
            assert "max-age" not in answer.headers["Cache-Control"]
    assert registry.ask("HEAD", f"/v1/images/{lost}/layer").status == 404
    assert [probe(registry, each) for each in (base, top)] == [200, 200]
    assert registry.ask("GET", f"/v1/images/{top}/ancestry").value == [top, lost, base]
    assert registry.ask("GET", f"/v1/images/{lost}/ancestry").value == [lost, base]
    assert registry.ask("GET", f"/v1/repositories/{repository}/tags").value == {"latest": top, "1.0": top}


def test_no_tag_is_set_on_a_lost_image(registry: Registry) -> None:
    """Nor on one that descends from it, as with one that is on its way; where it has a tag, that stays."""
    repository, images = new_repository(), new_chain([new_layer(), b"top"])
    registry.client().push(repository, images, ["latest"])
    lose(registry.store, *blobs(images[0]))
    for image in images:
        answer = registry.tag(repository, "other", image.id)
        assert (answer.status, answer.body) == (404, LOST)
    assert registry.ask("GET", f"/v1/repositories/{repository}/tags").value == {"latest": images[1].id}
    assert registry.client().push(repository, images, ["other"]) == [images[0].id]


# --- pushed again -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("era", ["A", "B", "C"])
@pytest.mark.parametrize("parts", [("layer",), ("json",), ("json", "layer")], ids="-".join)
def test_an_engine_pushes_what_was_lost_again_and_nothing_else(
    registry: Registry, tmp_path: Path, era: Era, parts: tuple[str, ...]
) -> None:
    """From the hub's first word to its last; every tag is whole, the old ones, too."""
    repository, images = new_repository(), with_tarsums(new_chain([new_layer() for _ in range(3)], PACKED))
    registry.client().push(repository, images, ["old", "latest"], era=era)
    lose(registry.store, *blobs(images[1], *parts))
    heard: list[tuple[str, str, int]] = []
    assert listening(registry, heard).push(repository, images, ["latest", "new"], era=era) == [images[1].id]
    assert heard[0] == ("PUT", f"/v1/repositories/{repository}/", 200)
    assert heard[-1] == ("PUT", f"/v1/repositories/{repository}/images", 204)
    assert [status for method, _, status in heard if method == "GET"].count(404) == 1
    for tag in ("old", "latest", "new"):
        assert_pulled(registry.client(), repository, tag, images, tmp_path)
    assert registry.client().push(repository, images, ["latest"], era=era) == []


def test_all_images_that_share_a_lost_layer_are_whole_again(registry: Registry) -> None:
    """Under other ids and in other repositories, by one push of one of them."""
    layer = new_layer()
    first, second = new_chain([layer]), new_chain([b"base", layer])
    registry.client().push("first/app", first, ["latest"])
    registry.client().push("second/app", second, ["latest"])
    lose_layer(registry, layer)
    assert [probe(registry, each.id) for each in (first[0], second[1])] == [404, 404]
    assert registry.client().push("first/app", first, ["latest"]) == [first[0].id]
    assert registry.ask("GET", f"/v1/images/{second[1].id}/layer").body == layer
    assert registry.client().push("second/app", second, ["latest"]) == []


def test_a_lost_image_takes_its_own_content_only(registry: Registry) -> None:
    """Other json or another layer is refused as ever and heals nothing; once healed, all is refused as ever."""
    layer, image_id = new_layer(), new_id()
    body = image_json(image_id)
    for answer in (
        registry.put_json(image_id, body),
        registry.put_layer(image_id, layer),
        registry.put_checksum(image_id, payload(body, layer)),
    ):
        assert answer.status == 200
    lose_layer(registry, layer)
    for answer in (registry.put_layer(image_id, layer), registry.put_checksum(image_id, payload(body, layer))):
        assert (answer.status, answer.body) == (404, LOST)  # as without json for an image that is not there
    answer = registry.put_json(image_id, image_json(image_id, comment="other"))
    assert (answer.status, answer.body) == (409, EXISTS)
    assert registry.put_json(image_id, body).body == TRUE
    for other in (b"other", new_layer(), b""):
        answer = registry.put_layer(image_id, other)
        assert (answer.status, answer.body) == (409, EXISTS)
        answer = registry.put_checksum(image_id, payload(body, other))
        assert (answer.status, answer.body) == (400, MISMATCH)
    assert registry.put_checksum(image_id, payload(body, layer)).body == MISMATCH
    assert probe(registry, image_id) == 404
    assert registry.put_layer(image_id, layer).body == TRUE
    assert registry.put_checksum(image_id, "sha256:0").body == MISMATCH
    assert registry.put_checksum(image_id, payload(body, layer)).body == TRUE
    assert registry.ask("GET", f"/v1/images/{image_id}/layer").body == layer
    for answer in (registry.put_json(image_id, body), registry.put_layer(image_id, layer)):
        assert (answer.status, answer.body) == (409, EXISTS)
    assert registry.put_checksum(image_id, payload(body, layer)).body == FINAL


@pytest.mark.parametrize("framing", [chunked, sized])
def test_a_push_that_breaks_off_leaves_the_image_lost(registry: Registry, tmp_path: Path, framing: object) -> None:
    """After its json, or in the midst of its layer; the next push heals it."""
    assert callable(framing)
    repository, [image] = new_repository(), new_chain([new_layer(700_000)])
    registry.client().push(repository, [image], ["latest"])
    lose(registry.store, *blobs(image))
    assert isinstance(image.layer, bytes)
    assert registry.put_json(image.id, image.json).status == 200
    assert probe(registry, image.id) == 404
    assert b" 200 " not in registry.raw(framing(f"/v1/images/{image.id}/layer", image.layer[:-1]))
    assert registry.put_checksum(image.id, image.payload_checksum()).status == 400
    assert not is_here(registry.store, *blobs(image))
    for part in ("json", "layer"):
        answer = registry.ask("GET", f"/v1/images/{image.id}/{part}")
        assert (answer.status, answer.body) == (404, LOST)
    assert registry.ask("GET", f"/v1/repositories/{repository}/tags").value == {"latest": image.id}
    assert registry.client().push(repository, [image], ["latest"]) == [image.id]
    assert_pulled(registry.client(), repository, "latest", [image], tmp_path)


def test_an_upload_of_which_the_layer_was_lost_begins_anew(registry: Registry) -> None:
    """It is not completed without, and its json is taken again, which holds what is there."""
    image_id, layer = new_id(), new_layer()
    body = image_json(image_id)
    registry.put_json(image_id, body)
    registry.put_layer(image_id, layer)
    lose_layer(registry, layer)
    answer = registry.put_checksum(image_id, payload(body, layer))
    assert (answer.status, answer.body) == (400, MISMATCH)
    for answer in (
        registry.put_json(image_id, body),
        registry.put_layer(image_id, layer),
        registry.put_checksum(image_id, payload(body, layer)),
    ):
        assert answer.status == 200
    assert registry.ask("GET", f"/v1/images/{image_id}/layer").body == layer


def test_what_is_lost_again_before_its_checksum_stays_lost(registry: Registry) -> None:
    """The checksum does not say that an image is whole which is not."""
    image_id, layer = new_id(), new_layer()
    body = image_json(image_id)
    for _ in range(2):  # pushed, and pushed again
        registry.put_json(image_id, body)
        registry.put_layer(image_id, layer)
        lose_layer(registry, layer)
        assert registry.put_checksum(image_id, payload(body, layer)).body == MISMATCH
        registry.put_json(image_id, body)
        registry.put_layer(image_id, layer)
        assert registry.put_checksum(image_id, payload(body, layer)).status == 200
        lose_layer(registry, layer)
        assert probe(registry, image_id) == 404


# --- by several at once -----------------------------------------------------------------------------------


def steps(registry: Registry, image: Layer) -> Iterator[int]:
    """Push an image step by step, as an engine does that saw it was not there; yields what it hears."""
    assert isinstance(image.layer, bytes)
    answer = registry.put_json(image.id, image.json)
    yield answer.status
    if answer.body == EXISTS:
        return  # it goes on with the next image
    yield registry.put_layer(image.id, image.layer).status
    yield registry.put_checksum(image.id, image.payload_checksum()).status


@pytest.mark.parametrize("part", ["json", "layer"])
@pytest.mark.parametrize("order", sorted(set(itertools.permutations("111222"))), ids="".join)
def test_two_that_push_a_lost_image_both_finish_in_every_order(
    registry: Registry, order: tuple[str, ...], part: str
) -> None:
    """None hears a no that would end its push, and at no moment is there anything but nothing or all."""
    [image] = new_chain([new_layer(100)])
    assert set(steps(registry, image)) == {200}
    lose(registry.store, *blobs(image, part))
    pushers = {each: steps(registry, image) for each in "12"}
    for each in order:
        heard = next(pushers[each], 200)
        assert heard == 200 or (heard == 409 and next(pushers[each], None) is None)
        if probe(registry, image.id) == 200:
            assert registry.ask("GET", f"/v1/images/{image.id}/layer").body == image.layer
    assert probe(registry, image.id) == 200


def test_engines_that_push_lost_images_at_once_all_succeed(registry: Registry, tmp_path: Path) -> None:
    """Whoever is first; none of them leaves anything behind."""
    repository, images = new_repository(), new_chain([new_layer(500_000) for _ in range(3)])
    registry.client().push(repository, images, ["latest"])
    names = registry.store.stats().names
    for _ in range(3):
        lose(registry.store, *(digest for image in images for digest in blobs(image)))
        with ThreadPoolExecutor(4) as pool:
            pushes = [pool.submit(registry.client().push, repository, images, ["latest"]) for _ in range(4)]
            sent = [push.result() for push in pushes]
        assert set().union(*sent) == {image.id for image in images}
        assert_pulled(registry.client(), repository, "latest", images, tmp_path)
        assert registry.store.stats().names == names


@pytest.mark.parametrize("after", ["json", "layer"])
def test_a_push_goes_on_when_others_heal_its_image_meanwhile(registry: Registry, after: str) -> None:
    """By another image that has the layer: no step of it is refused then."""
    [image] = new_chain([new_layer()])
    assert set(steps(registry, image)) == {200}
    lose(registry.store, *blobs(image))
    push = steps(registry, image)
    assert [next(push) for _ in range(1 if after == "json" else 2)][-1] == 200
    assert isinstance(image.layer, bytes)
    registry.image(image.layer)
    assert probe(registry, image.id) == 200
    assert set(push) == {200}
    assert probe(registry, image.id) == 200


# --- with accounts ----------------------------------------------------------------------------------------


def test_a_lost_image_is_healed_by_whoever_has_its_content(guarded: Guarded) -> None:
    """From a repository that does not show it; and nobody learns of it who could not see it before."""
    for name in ("alice", "bob"):
        guarded.account(name)
    registry, [image] = guarded.registry, new_chain([new_layer()])
    guarded.client("alice").push("alice/app", [image], ["latest"])
    lose(registry.store, *blobs(image))
    path = f"/v1/images/{image.id}/json"
    heard = [registry.ask("GET", path, headers=headers) for headers in ({}, basic("bob"), basic("alice"))]
    assert [each.status for each in heard] == [401, 404, 404]
    assert [each.body == LOST for each in heard] == [False, False, True]
    assert guarded.client("bob").push("bob/app", [image], ["latest"]) == [image.id]
    assert registry.ask("GET", path, headers=basic("alice")).status == 200
    assert guarded.client("alice").push("alice/app", [image], ["latest"]) == []


def test_a_push_of_a_lost_image_may_outlast_its_token(guarded: Guarded) -> None:
    """As any push may; a token that had expired before begins none."""
    alice, registry = guarded.account("alice"), guarded.registry
    [image] = new_chain([new_layer()])
    guarded.client("alice").push("alice/app", [image], ["latest"])
    registry.clock.now = NOW + 1_000_000
    lose(registry.store, *blobs(image))
    answer = registry.ask("PUT", "/v1/repositories/alice/app/", b"[]", {**alice, **WANT})
    shown, path = token(answer), f"/v1/images/{image.id}"
    assert registry.ask("GET", f"{path}/json", headers=shown).status == 404
    registry.clock.now += 86_400 + 1
    assert registry.ask("PUT", f"{path}/json", image.json, shown).status == 401
    registry.clock.now -= 1
    assert registry.ask("PUT", f"{path}/json", image.json, shown).status == 200
    registry.clock.now += 10_000
    assert isinstance(image.layer, bytes)
    assert registry.ask("PUT", f"{path}/layer", image.layer, shown).status == 200
    registry.clock.now += 10_000
    headers = {"X-Docker-Checksum-Payload": image.payload_checksum(), "Content-Length": "0", **shown}
    assert registry.ask("PUT", f"{path}/checksum", None, headers).status == 200
    assert registry.ask("GET", f"{path}/layer", headers=alice).body == image.layer
