"""An import beside a collection that gives nobody any grace: what it takes meanwhile comes again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from api import maintenance
from api.content.settings import KeepingSettings
from api.porting.report import Report
from cas import Depth, Store
from tests.porting.test_oci import tagged
from tests.porting.test_v1 import BASE, MIDDLE, Old, seen
from tests.support import images
from tests.support.images import Image
from tests.support.porting import NOW, Run, bring


def collecting(store: Store, times: int, *, untagged: bool = False) -> Callable[[Report], None]:
    """Give a listener that has a whole collection run at each of its first words.

    One of manifests without a tag, too, at each manifest.
    """
    left, manifests = times, 0

    def moved(report: Report) -> None:
        nonlocal left, manifests
        is_due = left > 0 and (report.counts.manifests > manifests or not untagged)
        manifests = report.counts.manifests
        if is_due:
            left -= 1
            terms = maintenance.terms(KeepingSettings(), lambda: NOW, grace_s=0, untagged=untagged)
            assert maintenance.run(store, terms).left == []

    return moved


@pytest.mark.parametrize("times", [2, 3, 5, 8])
def test_nothing_is_left_out_of_an_import_beside_collections_without_grace(
    times: int, store: Store, tmp_path: Path
) -> None:
    """A blob that was taken before the manifest came that names it is read once more."""
    image = images.image(tmp_path / "one", "one", layer_bytes=100_000)
    run = bring("oci", image.folder, store, moved=collecting(store, times))
    assert run.said() == ""
    assert tagged(store) == {"one": image.digest}
    assert list(store.check(Depth.DEEP)) == []


def test_what_is_taken_again_and_again_is_named_with_what_to_do(store: Store, tmp_path: Path) -> None:
    """Once nobody takes it any more, the same import brings it."""
    image = images.image(tmp_path / "one", "one", layer_bytes=100_000)
    run = bring("oci", image.folder, store, moved=collecting(store, 1000))
    assert is_told_to_begin_anew(run)
    assert bring("oci", image.folder, store).left == []
    assert tagged(store) == {"one": image.digest}


@pytest.mark.parametrize("times", [1, 2, 4])
def test_an_image_of_registry_v1_that_was_taken_on_its_way_comes_once_more(
    times: int, store: Store, tmp_path: Path
) -> None:
    """From its base on."""
    old = chain(tmp_path)
    run = bring("v1", old.folder, store, moved=collecting(store, times))
    assert run.said() == ""
    assert seen(store, "acme/app") == {BASE, MIDDLE}


def test_one_that_is_taken_again_and_again_is_named_with_what_to_do(store: Store, tmp_path: Path) -> None:
    """What stands on it was left out, and says so."""
    old = chain(tmp_path)
    run = bring("v1", old.folder, store, moved=collecting(store, 1000))
    assert is_told_to_begin_anew(Run(run.left[:1]))
    assert bring("v1", old.folder, store).left == []
    assert seen(store, "acme/app") == {BASE, MIDDLE}


def chain(tmp_path: Path) -> Old:
    """Two images in the folder of an old registry, one on the other."""
    made = Old(tmp_path / "old")
    made.image(BASE)
    made.image(MIDDLE, BASE)
    made.repository("acme/app", latest=MIDDLE)
    return made


@pytest.mark.parametrize("make", [images.image, images.multi_arch])
def test_a_manifest_that_is_taken_before_it_is_needed_is_named_with_what_to_do(
    make: Callable[[Path, str], Image], store: Store, tmp_path: Path
) -> None:
    """By a collection of what has no tag: an index has none until its images came, nor have these."""
    image = make(tmp_path / "image", "new")
    run = bring("oci", image.folder, store, moved=collecting(store, 1000, untagged=True))
    assert is_told_to_begin_anew(run)
    assert bring("oci", image.folder, store).left == []
    assert tagged(store) == {"new": image.digest}


def is_told_to_begin_anew(run: Run) -> bool:
    remedy = "was removed meanwhile, by a client or a collection without grace; import again after that"
    return bool(run.left) and all(each.why.endswith(remedy) for each in run.left)
