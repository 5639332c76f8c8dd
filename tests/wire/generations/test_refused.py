"""What Registry v1 can never have is looked at once; what only lacks something, whenever it is asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from api.bridge import images, pushed
from api.bridge.refused import Refused
from api.content.tags import Manifest
from api.v1 import repositories
from cas import Digest
from tests.wire.generations.both import CONFIG, Both, Sample, new_tar
from tests.wire.v1.talk import new_repository
from tests.wire.v2.content import OCI_MANIFEST, Document, descriptor, document, index
from tests.wire.v2.pushing import sha256

LARGE = 70_000  # bytes of a manifest that is kept as a blob


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the manifests that are read for v1, and the images that are begun."""
    counted = Counter[str]()

    def count(module: object, name: str, what: str) -> None:
        before: Callable[..., object] = getattr(module, name)

        def counting(*args: object) -> object:
            counted[what] += 1
            return before(*args)

        monkeypatch.setattr(module, name, counting)

    count(pushed, "_named", "read")
    count(images, "_make", "begun")
    return counted


def artifact(registry: Both, repository: str, **more: object) -> Document:
    """Something that is no image, with its blobs pushed."""
    for blob in (b"{}", b"a signature"):
        registry.client.push(repository, blob)
    config = descriptor(b"{}", "application/vnd.oci.empty.v1+json")
    layers = [descriptor(b"a signature", "application/vnd.example.signature")]
    return document({"config": config, "layers": layers, **more}, OCI_MANIFEST)


def test_what_is_no_image_is_read_once_and_never_begun(registry: Both, looks: Counter[str]) -> None:
    """By whatever tags and routes, and in whatever repositories; an index without an image for v1 is the same."""
    repository, other = new_repository(), new_repository()
    for tag in ("one", "two"):
        registry.put(repository, artifact(registry, repository), tag)
    registry.put(other, artifact(registry, other), "three")
    registry.put(repository, index([registry.put(repository, artifact(registry, repository))]), "list")
    registry.push(repository, Sample([new_tar()]), "image")
    assert registry.tags_v1(repository).keys() == {"image"}
    assert looks == {"read": 3 + 1, "begun": 1}  # an artifact, a list, and an image: before it is begun, and then
    looks.clear()
    assert registry.tags_v1(repository).keys() == {"image"}
    assert registry.tags_v1(other) == {}
    assert registry.registry.ask("GET", f"/v1/repositories/{repository}/images").status == 200
    assert registry.image(repository, "one") is None
    assert looks == Counter()


def test_what_is_found_out_while_an_image_is_made_is_remembered_as_well(registry: Both, looks: Counter[str]) -> None:
    """A configuration that tells of other layers, and a manifest that lies in a blob."""
    repository, sample = new_repository(), Sample([new_tar()])
    registry.push(repository, sample, "image")
    layers = [descriptor(each, sample.layer_type) for each in sample.layers * 2]
    registry.put(repository, document({"config": descriptor(sample.config, CONFIG), "layers": layers}), "other")
    registry.put(repository, artifact(registry, repository, annotations={"much": "x" * LARGE}), "large")
    assert registry.tags_v1(repository).keys() == {"image"}
    assert looks["begun"] == 3
    looks.clear()
    assert registry.tags_v1(repository).keys() == {"image"}
    assert registry.image(repository, "large") is None
    assert looks == Counter()


def test_what_only_lacked_something_is_there_once_it_has_come(registry: Both) -> None:
    """A layer that was deleted and is pushed again; a child of a list."""
    repository, sample = new_repository(), Sample([new_tar()])
    registry.push(repository, sample, "image")
    child = registry.push(repository, Sample([new_tar()]), None)
    told = child.descriptor | {"platform": {"os": "linux", "architecture": "amd64"}}
    registry.put(repository, index([told]), "list")
    assert registry.client.blob(repository, sha256(sample.layers[0]), "DELETE").status_code == 202
    registry.delete(repository, child.digest)
    for _ in range(2):
        assert registry.tags_v1(repository) == {}
    registry.client.push(repository, sample.layers[0])
    registry.put(repository, child, None)
    assert registry.tags_v1(repository).keys() == {"image", "list"}


def test_a_list_of_tags_is_whole_however_many_looks_it_takes(registry: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    """In byte order; what has no image may stand at the end of a look."""
    monkeypatch.setattr(repositories, "_LIST_STEP", 2)
    repository, sample = new_repository(), Sample([new_tar()])
    registry.push(repository, sample, None)
    images = {f"tag{number}" for number in range(5)}
    for tag in images:
        registry.put(repository, sample.manifest, tag)
    for tag in ("tag1-none", "zone"):
        registry.put(repository, artifact(registry, repository), tag)
    assert list(registry.tags_v1(repository)) == sorted(images)


def test_refusals_are_remembered_up_to_a_bound() -> None:
    """The last ones, whatever was asked for between; what is read otherwise by its type is another one."""
    refused, made = Refused(most=3), [Manifest(Digest.of(b"%d" % n), OCI_MANIFEST, n) for n in range(20)]
    for each in made:
        refused.add(each)
        assert each in refused
    held = [each for each in made if each in refused]
    assert held == made[-len(held) :]
    assert 3 <= len(held) <= 6
    assert Manifest(made[-1].digest, "application/vnd.oci.image.index.v1+json", 1) not in refused
