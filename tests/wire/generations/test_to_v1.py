"""What today's clients push, as clients of Registry v1 see it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import zstandard

from api.v1.settings import V1Settings
from tests.wire.generations.both import EMPTY, LAYER, MANIFEST, Both, Sample, both, new_tar, packed, sha, tar
from tests.wire.v1.talk import new_repository
from tests.wire.v2.content import OCI_INDEX, OCI_MANIFEST, descriptor, document, index
from tests.wire.v2.pushing import sha256

ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(3).compress(data)


def test_an_image_is_pulled_as_an_old_engine_does(registry: Both, tmp_path: Path) -> None:
    """A chain of its history's length; the very layers, and the empty layer for what changed no file."""
    repository = new_repository()
    history: list[dict[str, Any]] = [{"created_by": "ADD"}, {"created_by": "ENV A=1", "empty_layer": True}]
    history.append({"created_by": "RUN <make>"})
    sample = Sample([new_tar(), new_tar()], history)
    registry.push(repository, sample)
    pulled = registry.pull(repository, "latest", tmp_path)
    assert [layer for _, layer in pulled] == [sample.layers[0], EMPTY, sample.layers[1]]
    contents = [json.loads(image.json) for image, _ in pulled]
    assert [each["container_config"]["Cmd"] for each in contents[:2]] == [["ADD"], ["ENV A=1"]]
    assert contents[1]["throwaway"] is True
    assert contents[2]["config"] == {"Cmd": ["/hello"], "Env": ["A=1"]}
    assert [each.get("parent") for each in contents] == [None, contents[0]["id"], contents[1]["id"]]
    top = sha(f"{sha(sample.layers[1])} {contents[1]['id']} ".encode() + sample.config)
    assert registry.image(repository) == contents[2]["id"] == top
    listed = {each["id"] for each in registry.v1.index("GET", f"/v1/repositories/{repository}/images").value}
    assert listed == {each["id"] for each in contents}


@pytest.mark.parametrize("told", ["application/octet-stream", "application/json", "text/html"])
def test_an_image_is_one_whatever_its_engine_called_the_configuration(
    registry: Both, told: str, tmp_path: Path
) -> None:
    """Engines 1.10 to 1.12 call what they find there as the answer to HEAD did; only in a manifest of Docker's."""
    repository = new_repository()
    sample = Sample([new_tar()])
    registry.push(repository, sample, "first")
    layers = [descriptor(layer, LAYER) for layer in sample.layers]
    members = {"config": descriptor(sample.config, told), "layers": layers}
    registry.put(repository, document(members, MANIFEST), "again")
    registry.put(repository, document(members, OCI_MANIFEST), "other")
    assert [layer for _, layer in registry.pull(repository, "again", tmp_path)] == sample.layers
    assert registry.tags_v1(repository) == dict.fromkeys(["again", "first"], registry.image(repository, "first"))


def test_an_old_engine_that_lists_all_tags_finds_them(registry: Both) -> None:
    """Those that are images, and only those; the others are not there one by one either."""
    repository = new_repository()
    registry.push(repository, Sample([new_tar()]), "one")
    registry.push(repository, Sample([new_tar()]), "two")
    registry.client.push(repository, b"{}")
    artifact = {"config": descriptor(b"{}", "application/vnd.oci.empty.v1+json"), "layers": []}
    registry.put(repository, document(artifact), "artifact")
    registry.put(repository, index([]), "nothing")
    assert registry.tags_v1(repository) == {tag: registry.image(repository, tag) for tag in ("one", "two")}
    assert [registry.image(repository, tag) for tag in ("artifact", "nothing")] == [None, None]
    assert registry.tags(repository) == ["artifact", "nothing", "one", "two"]
    answer = registry.registry.ask("GET", f"/v1/search?q={repository}")
    assert [each["name"] for each in answer.value["results"]] == [repository]


@pytest.mark.parametrize("pack", [bytes, zstd], ids=["plain", "zstd"])
def test_a_layer_is_sent_as_old_engines_can_read_it(registry: Both, tmp_path: Path, pack: object) -> None:
    """A plain archive is; one packed with zstd is sent in gzip, made once: two images that share it share that."""
    repository, base = new_repository(), new_tar(300_000)
    kind = ZSTD if pack is zstd else ZSTD.removesuffix("+zstd")
    samples = [Sample([base, new_tar()], pack=pack, layer_type=kind) for _ in range(2)]
    for number, sample in enumerate(samples):
        registry.push(repository, sample, str(number))
    pulls = []
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        pulls.append(registry.pull(repository, str(number), tmp_path / str(number)))
    layer = pulls[0][0][1]
    assert layer == (packed(base) if pack is zstd else base)
    assert pulls[1][0] == pulls[0][0]


def test_of_an_index_old_engines_get_the_platform_that_is_set(tmp_path: Path) -> None:
    """linux/amd64, unless told otherwise; an index without it is not there."""
    samples = {each: Sample([new_tar()], more={"architecture": each}) for each in ("amd64", "arm64")}
    for setting, wanted in (("linux/amd64", "amd64"), ("linux/arm64/v8", "arm64"), ("linux/riscv64", None)):
        with both(tmp_path / setting.replace("/", "-"), V1Settings(platform=setting)) as registry:
            children = []
            for architecture, sample in samples.items():
                platform = {"os": "linux", "architecture": architecture}
                platform |= {"variant": "v8"} if architecture == "arm64" else {}
                child = registry.push("some/where", sample, None)
                children.append(child.descriptor | {"platform": platform})
            registry.put("some/where", index(children))
            into = tmp_path / "pulled" / setting
            into.mkdir(parents=True)
            if wanted is None:
                assert (registry.image("some/where"), registry.tags_v1("some/where")) == (None, {})
            else:
                assert [layer for _, layer in registry.pull("some/where", "latest", into)] == samples[wanted].layers


def test_an_image_whose_layers_lie_elsewhere_is_not_there(registry: Both) -> None:
    """Nor one of which a layer was deleted, nor one whose configuration tells of other layers, nor a bad zstd layer."""
    repository = new_repository()
    sample = Sample([new_tar()])
    registry.push(repository, sample, "good")
    foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    away = descriptor(b"elsewhere", foreign, urls=["http://127.0.0.1/layer"])
    config = descriptor(sample.config, "application/vnd.docker.container.image.v1+json")
    registry.put(repository, document({"config": config, "layers": [away]}, OCI_MANIFEST), "foreign")
    layers = [descriptor(each, sample.layer_type) for each in sample.layers * 2]
    registry.put(repository, document({"config": config, "layers": layers}), "other")
    broken = Sample([new_tar(200_000)], pack=lambda data: zstd(data)[:-100], layer_type=ZSTD)
    registry.push(repository, broken, "broken")
    lying = Sample([new_tar()], pack=lambda _: zstd(tar(other=b"thing")), layer_type=ZSTD)
    registry.push(repository, lying, "lying")
    lost = Sample([new_tar()])
    registry.push(repository, lost, "lost")
    assert registry.client.blob(repository, sha256(lost.layers[0]), "DELETE").status_code == 202
    assert set(registry.tags_v1(repository)) == {"good"}
    for tag in ("foreign", "other", "broken", "lying", "lost"):
        assert registry.image(repository, tag) is None, tag


def test_a_history_that_is_missing_too_long_or_of_other_layers_gives_one_image_a_layer(
    registry: Both, tmp_path: Path
) -> None:
    """In each case all layers are there, in their order."""
    unusable: dict[str, list[dict[str, Any]]] = {
        "none": [],
        "long": [{"created_by": "ENV", "empty_layer": True}] * 127 + [{}, {}],
        "few": [{"created_by": "one"}],
        "odd": [{"created_by": 5}, {"created_by": 6}],
    }
    for name, history in unusable.items():
        repository, sample = new_repository(), Sample([new_tar(), new_tar()], history)
        registry.push(repository, sample)
        (tmp_path / name).mkdir()
        assert [layer for _, layer in registry.pull(repository, "latest", tmp_path / name)] == sample.layers


def test_a_chain_as_long_as_engines_stack_is_pulled_and_a_longer_one_is_not_there(
    registry: Both, tmp_path: Path
) -> None:
    """127 layers; of 128 nothing."""
    longest, longer = (Sample([tar(a=b"%d %d" % (count, n)) for n in range(count)]) for count in (127, 128))
    repository = new_repository()
    registry.push(repository, longest, "longest")
    registry.push(repository, longer, "longer")
    assert len(registry.pull(repository, "longest", tmp_path)) == 127
    assert registry.image(repository, "longer") is None
    assert OCI_INDEX not in registry.manifest(repository, "longest").text


def test_what_a_tag_shows_stays_what_it_is(registry: Both, tmp_path: Path) -> None:
    """For v2 the very manifest that was pushed, whoever looked at it by v1; and its json and layers never change."""
    repository, sample = new_repository(), Sample([new_tar(), new_tar()])
    pushed = registry.push(repository, sample)
    first = registry.pull(repository, "latest", tmp_path)
    assert registry.manifest(repository).content == pushed.body
    assert registry.pull(repository, "latest", tmp_path) == first


def test_who_pushed_a_tag_and_when_is_told_as_far_as_it_is_known(registry: Both) -> None:
    """By v2 nobody says what he runs on."""
    repository = new_repository()
    registry.push(repository, Sample([new_tar()]))
    answer = registry.registry.ask("GET", f"/v1/repositories/{repository}/tags/latest/json")
    assert answer.value == {"last_update": int(registry.registry.clock.now)}
