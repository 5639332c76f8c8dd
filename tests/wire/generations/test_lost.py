"""What damage took of an image comes back to both generations by a push of either (I9)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.losing import lose
from tests.v1client import Layer
from tests.wire.generations.both import Both, Sample, both, new_tar, packed
from tests.wire.v1.talk import new_repository
from tests.wire.v2.pushing import sha256

PACKED = 100_000  # bytes: what is smaller than 64 KiB lies in the index


@pytest.mark.parametrize("is_shown", [True, False], ids=["shown before", "new"])
def test_a_v1_image_that_engines_push_again_is_whole_for_todays_clients(registry: Both, *, is_shown: bool) -> None:
    """By the same digest as before, where they have seen it; meanwhile the layer, or all of it, is 404."""
    repository, layers = new_repository(), [packed(new_tar(PACKED)) for _ in range(2)]
    images = registry.push_v1(repository, layers)
    digest = registry.manifest(repository).headers["docker-content-digest"] if is_shown else None
    lose(registry.store, sha256(layers[0]))
    if is_shown:
        assert registry.client.blob(repository, sha256(layers[0])).status_code == 404
    else:
        assert registry.manifest(repository).status_code == 404
    assert registry.v1.push(repository, images, ["latest"]) == [images[0].id]
    assert registry.pull_v2(repository)[2] == layers
    assert digest in {None, registry.manifest(repository).headers["docker-content-digest"]}


def test_a_manifests_layer_that_an_engine_pushes_again_is_back(registry: Both, tmp_path: Path) -> None:
    """An engine that pulled it has its ids and json; the manifest and its digest stay as they were."""
    repository, sample = new_repository(), Sample([new_tar(PACKED), new_tar(PACKED)])
    pushed = registry.push(repository, sample)
    pulled = registry.pull(repository, "latest", tmp_path)
    images = [Layer(image.id, image.json, layer) for image, layer in pulled]
    lose(registry.store, sha256(sample.layers[1]))
    assert registry.client.blob(repository, sha256(sample.layers[1]), "HEAD").status_code == 404
    assert registry.v1.push(repository, images, ["other"]) == [images[1].id]
    assert registry.manifest(repository).content == pushed.body
    assert registry.pull_v2(repository)[2] == sample.layers
    assert registry.pull(repository, "other", tmp_path) == pulled


def test_an_image_made_of_a_manifest_is_pushed_again_before_anybody_asked_for_it(
    registry: Both, tmp_path: Path
) -> None:
    """Its checksum is not known then; that of the same bytes is good."""
    sample, twin = Sample([new_tar(PACKED)]), new_repository()
    registry.push(twin, sample)
    pulled = registry.pull(twin, "latest", tmp_path)
    with both(tmp_path / "other") as other:
        repository = new_repository()
        other.push(repository, sample)
        assert other.image(repository) == pulled[0][0].id
        lose(other.store, sha256(sample.layers[0]))
        images = [Layer(image.id, image.json, layer) for image, layer in pulled]
        assert other.v1.push(repository, images, ["other"]) == [images[0].id]
        assert other.pull(repository, "latest", tmp_path) == pulled


def test_a_v1_image_is_whole_again_when_todays_clients_push_its_layer(registry: Both) -> None:
    """Engines send nothing then."""
    repository, layers = new_repository(), [packed(new_tar(PACKED))]
    images = registry.push_v1(repository, layers)
    lose(registry.store, sha256(layers[0]))
    registry.client.push(repository, layers[0])
    assert registry.v1.push(repository, images, ["latest"]) == []
