"""What engines of Registry v1 push, as today's clients see it."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from pathlib import Path

import httpx2
import pytest

from api.v1.settings import V1Settings
from cas import Digest
from tests.support.engine import file_ranges, flip, packs_of
from tests.wire.generations.both import EMPTY, MANIFEST, Both, Sample, both, new_tar, packed, sha, unpacked
from tests.wire.v1.talk import image_json, new_id, new_repository, payload
from tests.wire.v2.pushing import code, sha256


def refused(answer: httpx2.Response) -> str:
    """Return the reason of a refusal."""
    assert (answer.status_code, code(answer)) == (404, "MANIFEST_UNKNOWN")
    detail: dict[str, str] = answer.json()["errors"][0]["detail"]
    return detail["reason"]


def test_a_chain_is_pulled_as_a_manifest_of_the_very_layers(registry: Both) -> None:
    """With a history entry an image, its command, and a configuration that is the top's json without the chain."""
    repository, archives = new_repository(), [new_tar(), new_tar(90_000)]
    layers = [packed(each) for each in archives]
    top = {"config": {"Cmd": ["/hello"], "Env": ["A=<1>"]}, "architecture": "arm64", "os": "linux", "Size": 7}
    registry.push_v1(repository, layers, **top)
    manifest, config, pulled = registry.pull_v2(repository)
    assert manifest["mediaType"] == MANIFEST
    assert pulled == layers
    assert config["rootfs"] == {"type": "layers", "diff_ids": [sha256(each) for each in archives]}
    assert [each["created_by"] for each in config["history"]] == ["/bin/sh -c step 0", "/bin/sh -c step 1"]
    assert (config["config"], config["architecture"]) == (top["config"], "arm64")
    assert not {"id", "parent", "Size"} & config.keys()


def test_the_digest_is_the_same_however_often_and_wherever_it_is_asked_for(registry: Both) -> None:
    """By GET or HEAD, by tag or digest; `If-None-Match` knows it."""
    repository = new_repository()
    registry.push_v1(repository, [packed(new_tar())])
    head = registry.manifest(repository, method="HEAD")
    digest = head.headers["docker-content-digest"]
    first = registry.manifest(repository)
    assert first.headers["etag"] == head.headers["etag"]
    assert registry.manifest(repository, digest).content == first.content
    assert registry.manifest(repository, if_none_match=first.headers["etag"]).status_code == 304
    assert registry.tags(repository) == ["latest"]


@pytest.mark.parametrize("pack", [bytes, bz2.compress, lzma.compress], ids=["plain", "bzip2", "xz"])
def test_a_layer_that_is_not_gzip_is_packed_once_and_always_the_same(registry: Both, pack: object) -> None:
    """Its head tells of no time and no name; the layer that v1 pulls stays as it came."""
    assert callable(pack)
    repository, archive = new_repository(), new_tar(100_000)
    registry.push_v1(repository, [pack(archive), packed(new_tar())])
    manifest, config, (layer, _) = registry.pull_v2(repository)
    assert gzip.decompress(layer) == archive
    assert (layer[3], layer[4:8]) == (0, bytes(4))
    assert config["rootfs"]["diff_ids"][0] == sha256(archive)
    registry.push_v1(repository, [pack(archive)], "other")
    assert registry.pull_v2(repository, "other")[0]["layers"][0] == manifest["layers"][0]


def test_layers_without_any_entry_are_the_one_empty_layer(registry: Both) -> None:
    """Whatever they are packed in, and however short; all stay, since nobody said they are to be thrown away."""
    repository, archive = new_repository(), new_tar()
    registry.push_v1(repository, [packed(archive), gzip.compress(b""), bytes(10_240), b""])
    _, config, layers = registry.pull_v2(repository)
    assert layers == [packed(archive), EMPTY, EMPTY, EMPTY]
    assert config["rootfs"]["diff_ids"][1:] == [sha256(bytes(1024))] * 3
    assert len(config["history"]) == 4


def test_a_layer_to_be_thrown_away_is_left_out_only_if_it_is_empty(registry: Both) -> None:
    """Its history stays, and says so; one that holds a file stays, whatever the json says."""
    for layer, kept in ((EMPTY, 1), (packed(new_tar()), 2)):
        repository = new_repository()
        registry.push_v1(repository, [packed(new_tar()), layer], throwaway=True)
        _, config, layers = registry.pull_v2(repository)
        assert len(layers) == len(config["rootfs"]["diff_ids"]) == kept
        assert config["history"][1].get("empty_layer", False) is (kept == 1)
        assert "throwaway" not in config


def test_an_old_json_is_reduced_to_what_belongs_in_a_configuration(registry: Both) -> None:
    """Before engine 1.8.3 there was more in it; who says no architecture runs on the usual one."""
    for version, kept in (("1.8.2", False), ("1.6.0-dev", False), (None, False), ("1.8.3", True), ("17.11.0-ce", True)):
        repository = new_repository()
        registry.push_v1(repository, [packed(new_tar())], docker_version=version, strange=1, layer_id="x")
        _, config, _ = registry.pull_v2(repository)
        assert ("strange" in config, "layer_id" in config) == (kept, False), version
        assert (config["architecture"], config["os"]) == ("amd64", "linux")


def test_a_bad_layer_is_a_404_that_says_which_and_why(registry: Both) -> None:
    """No archive, one that ends too early; v1 serves it as it was pushed."""
    for layer in (b"this is no archive", packed(new_tar(50_000))[:-2000], packed(b"no archive either" * 50)):
        repository = new_repository()
        registry.push_v1(repository, [layer])
        for _ in range(2):
            assert sha256(layer) in refused(registry.manifest(repository))
        assert registry.image(repository) is not None


def test_a_layer_that_unpacks_to_more_than_the_limit_is_a_404(tmp_path: Path) -> None:
    """In bounded memory and time; what is within it is served."""
    with both(tmp_path / "root", V1Settings(max_unpacked_bytes=1 << 20)) as registry:
        registry.push_v1("some/bomb", [packed(bytes(50 << 20))])
        registry.push_v1("some/thing", [packed(new_tar(900_000))])
        assert "unpacks to more" in refused(registry.manifest("some/bomb"))
        registry.pull_v2("some/thing")


def test_a_chain_with_more_json_than_is_held_in_memory_is_a_404(registry: Both) -> None:
    """Five images of nearly 4 MiB each; four of them are shown."""
    comment = "x" * ((4 << 20) - 1000)
    repository, parent = new_repository(), None
    for number in range(5):
        image_id, ask = new_id(), registry.registry
        body, layer = image_json(image_id, parent, comment=comment), packed(new_tar())
        assert ask.put_json(image_id, body).status == ask.put_layer(image_id, layer).status == 200
        assert ask.put_checksum(image_id, payload(body, layer)).status == 200
        assert ask.tag(repository, str(number), image_id).status == 200
        parent = image_id
    assert "bytes of json" in refused(registry.manifest(repository, "4"))
    assert len(registry.pull_v2(repository, "3")[2]) == 4


def test_a_chain_of_which_a_layer_was_lost_is_a_404(empty: Both, tmp_path: Path) -> None:
    """As a check found it, and set the damaged pack aside; pushed again, it is there."""
    layers = [packed(new_tar(300_000)), packed(new_tar())]
    images = empty.push_v1("some/thing", layers)
    where = file_ranges(empty.store, Digest.of(layers[0]))[0]
    flip(next(path for path in packs_of(tmp_path / "root") if path.stat().st_size > 300_000), where.offset + 100)
    empty.store.repair()
    assert "lost" in refused(empty.manifest("some/thing"))
    empty.client.push("some/thing", layers[0])
    assert [len(each) for each in empty.pull_v2("some/thing")[2]] == [len(each) for each in layers]
    assert empty.image("some/thing") == images[-1].id


def test_layers_are_stored_once(empty: Both) -> None:
    """Pulling by both generations stores a configuration, a manifest and notes, and no layer: counted in bytes."""
    layers = [packed(new_tar(400_000)), packed(new_tar(400_000))]
    images = empty.push_v1("some/thing", layers)
    assert len(images) == 2
    before = empty.store.stats()
    empty.pull_v2("some/thing")
    after = empty.store.stats()
    assert after.chunks == before.chunks
    assert after.pack_bytes - before.pack_bytes < 20_000


def test_a_round_trip_from_v2_restores_layers_and_what_is_run(registry: Both, tmp_path: Path) -> None:
    """Pushed by v2, pulled and pushed elsewhere by v1, pulled by v2: the same layers, the empty ones left out again."""
    source, target = new_repository(), new_repository()
    history = [{"created_by": each, "empty_layer": each in {"ENV", "CMD"}} for each in ("ADD", "ENV", "COPY", "CMD")]
    sample = Sample([new_tar(), new_tar()], history)
    registry.push(source, sample)
    pulled = registry.pull(source, "latest", tmp_path)
    for each, _ in pulled:
        answer = registry.registry.ask("GET", f"/v1/images/{each.id}/ancestry")
        assert answer.value[0] == each.id
    assert registry.registry.tag(target, "latest", pulled[-1][0].id).status == 200
    _, config, layers = registry.pull_v2(target)
    assert layers == sample.layers
    assert unpacked(layers) == list(sample.archives)
    told = json.loads(sample.config)
    assert (config["rootfs"], config["config"]) == (told["rootfs"], told["config"])
    assert [each.get("empty_layer", False) for each in config["history"]] == [False, True, False, True]


def test_a_round_trip_from_v1_keeps_every_byte(registry: Both, tmp_path: Path) -> None:
    """While a tag was written by v1, v1 gets its own json and layers, whoever looked at it by v2."""
    repository = new_repository()
    images = registry.push_v1(repository, [packed(new_tar()), new_tar()])
    registry.pull_v2(repository)
    pulled = registry.pull(repository, "latest", tmp_path)
    assert [(each.id, each.json, layer) for each, layer in pulled] == [(i.id, i.json, i.layer) for i in images]
    assert sha(pulled[0][1]) == pulled[0][0].sha256
