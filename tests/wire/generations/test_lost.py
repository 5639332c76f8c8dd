"""What damage took of an image comes back to both generations by a push of either (I9)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.losing import lose
from tests.v1client import Layer
from tests.wire.generations.both import Both, Sample, both, new_tar, packed
from tests.wire.generations.test_to_v1 import ZSTD, zstd
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


class TestMade:
    """What was made for the other generation, and lost by itself: what it was made of is whole."""

    @pytest.mark.parametrize("lost", ["layer", "json"])
    @pytest.mark.parametrize("way", ["tag", "tags"])
    def test_an_old_engines_pull_has_it_made_anew(self, registry: Both, tmp_path: Path, lost: str, way: str) -> None:
        """By the same ids, whether the engine asks for its tag or for all of them."""
        repository = new_repository()
        sample = Sample([new_tar(PACKED), new_tar(PACKED)], pack=zstd, layer_type=ZSTD)
        registry.push(repository, sample)
        pulled = registry.pull(repository, "latest", tmp_path)
        image, layer = pulled[0]
        lose(registry.store, sha256(layer if lost == "layer" else image.json))
        ids = registry.tags_v1(repository)["latest"] if way == "tags" else registry.image(repository)
        assert ids == pulled[1][0].id
        assert registry.pull(repository, "latest", tmp_path) == pulled
        assert registry.pull_v2(repository)[2] == sample.layers

    @pytest.mark.parametrize("lost", ["layer", "config"])
    def test_todays_clients_pull_has_it_made_anew(self, registry: Both, lost: str) -> None:
        """By the same digest; answers given again do not hide that."""
        repository = new_repository()
        registry.push_v1(repository, [new_tar(PACKED), packed(new_tar(PACKED))])
        manifest, config, layers = registry.pull_v2(repository)
        assert len({registry.manifest(repository).content for _ in range(3)}) == 1
        lose(registry.store, sha256(layers[0]) if lost == "layer" else manifest["config"]["digest"])
        assert registry.manifest(repository, "latest", "HEAD").status_code == 200
        assert registry.pull_v2(repository) == (manifest, config, layers)

    def test_where_what_it_was_made_of_is_lost_too_it_is_shown_as_it_was(self, registry: Both, tmp_path: Path) -> None:
        """Whoever has the rest can do with that, and what is lost is 404 by itself; a push of the one heals both."""
        old, new = new_repository(), new_repository()
        sample = Sample([new_tar(PACKED)], pack=zstd, layer_type=ZSTD)
        registry.push(new, sample)
        archive = new_tar(PACKED)
        images = registry.push_v1(old, [archive])
        ((pulled, layer),) = registry.pull(new, "latest", tmp_path)
        made = registry.pull_v2(old)
        body = registry.manifest(old).content
        lose(registry.store, *(sha256(each) for each in (layer, sample.layers[0], archive, made[2][0])))
        assert (registry.image(new), registry.tags_v1(new)) == (pulled.id, {"latest": pulled.id})
        assert registry.registry.ask("GET", f"/v1/images/{pulled.id}/layer").status == 404
        assert registry.manifest(old).content == body
        assert registry.client.blob(old, sha256(made[2][0])).status_code == 404
        registry.client.push(new, sample.layers[0])
        registry.v1.push(old, images, ["other"])
        assert registry.pull(new, "latest", tmp_path) == [(pulled, layer)]
        assert registry.pull_v2(old) == made
