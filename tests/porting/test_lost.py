"""An import brings back what was lost by damage of what it brought before (I9), and undoes no deletion."""

from __future__ import annotations

from pathlib import Path

import pytest

from api.content.repository import Repository
from api.v2 import links
from cas import Depth, Digest, Store
from tests.porting.test_oci import add, index_of, named, tagged, write_index
from tests.porting.test_v1 import BASE, MIDDLE, TOP, Old
from tests.support import images
from tests.support.images import Image
from tests.support.losing import is_here, lose
from tests.support.porting import bring

REPOSITORY = Repository.of("acme/app")
LARGE = 200_000  # bytes: what is smaller than 64 KiB lies in the index


def layers(image: Image, digest: str | None = None) -> list[str]:
    return [each["digest"] for each in image.manifest(digest)["layers"]]


def test_a_lost_layer_of_an_image_that_is_there_comes_back(store: Store, tmp_path: Path) -> None:
    """Only its bytes are read; the manifest was there already."""
    image = images.image(tmp_path / "one", "one", layer_bytes=LARGE)
    bring("oci", image.folder, store)
    lose(store, layers(image)[1])
    again = bring("oci", image.folder, store)
    counts = again.report.counts
    assert (again.left, counts.unchanged, counts.manifests, counts.blobs) == ([], 1, 0, 1)
    assert is_here(store, layers(image)[1])
    assert list(store.check(Depth.DEEP)) == []
    assert bring("oci", image.folder, store).report.counts.blobs == 0


def test_what_an_index_leads_to_comes_back(store: Store, tmp_path: Path) -> None:
    """Lost layers and configurations of its images, though all manifests are there."""
    many = images.multi_arch(tmp_path / "many", "many")
    bring("oci", many.folder, store)
    child = many.manifest()["manifests"][1]["digest"]
    gone = [layers(many, child)[-1], many.manifest(child)["config"]["digest"]]
    lose(store, *gone)
    again = bring("oci", many.folder, store)
    assert (again.left, again.report.counts.blobs) == ([], 2)
    assert all(is_here(store, digest) for digest in gone)


def test_a_lost_manifest_comes_back(store: Store, tmp_path: Path) -> None:
    """One so large that its bytes are a blob of their own."""
    image = images.image(tmp_path / "one", "one")
    large = add(image.folder, {**image.manifest(), "annotations": {"a": "b" * 100_000}}, images.MANIFEST)
    write_index(image.folder, [named(large, "large"), *index_of(image.folder)])
    bring("oci", image.folder, store)
    lose(store, large["digest"])
    assert bring("oci", image.folder, store).left == []
    assert is_here(store, large["digest"])
    assert tagged(store) == {"large": large["digest"], "one": image.digest}


def test_what_the_folder_has_not_got_either_is_named(store: Store, tmp_path: Path) -> None:
    """The manifest and its tag stay as they are, and the rest is brought back."""
    image = images.image(tmp_path / "one", "one", layer_bytes=LARGE)
    bring("oci", image.folder, store)
    first, second, _ = layers(image)
    lose(store, first, second)
    (image.folder / "blobs" / first.replace(":", "/")).write_bytes(b"rotten")
    again = bring("oci", image.folder, store)
    (left,) = again.left
    assert left.what == f"acme/app@{image.digest}"
    assert f"blob {first} is lost here" in left.why
    assert "its bytes have another digest" in left.why
    assert (is_here(store, first), is_here(store, second)) == (False, True)
    assert tagged(store) == {"one": image.digest}


def test_a_layer_that_was_deleted_stays_deleted(store: Store, tmp_path: Path) -> None:
    """A second run changes nothing of that: it was no damage."""
    image = images.image(tmp_path / "one", "one", layer_bytes=LARGE)
    bring("oci", image.folder, store)
    gone = Digest.parse(layers(image)[0])
    store.change(lambda names: links.delete(names, REPOSITORY, gone))
    again = bring("oci", image.folder, store)
    assert (again.left, again.report.counts.blobs) == ([], 0)
    assert store.read(lambda reads: links.find(reads, REPOSITORY, gone)) is None


@pytest.mark.parametrize("lost", [TOP, BASE])
def test_a_lost_layer_of_a_v1_image_comes_back(store: Store, tmp_path: Path, lost: str) -> None:
    """Of what a tag names, or of an ancestor of it; damage of the folder too is named."""
    old = Old(tmp_path / "old")
    for image_id, parent in ((BASE, None), (MIDDLE, BASE), (TOP, MIDDLE)):
        old.image(image_id, parent, layer_bytes=LARGE)
    old.repository("acme/app", latest=TOP)
    bring("v1", old.folder, store)
    layer = old.folder / "images" / lost / "layer"
    digest = images.digest_of(layer.read_bytes())
    lose(store, digest)
    again = bring("v1", old.folder, store)
    assert (again.left, again.report.counts.blobs, again.report.counts.images) == ([], 1, 0)
    assert is_here(store, digest)
    lose(store, digest)
    layer.write_bytes(b"rotten")
    (left,) = bring("v1", old.folder, store).left
    assert left.what == f"acme/app: image {lost}"
    assert f"its layer {digest} is lost here" in left.why
