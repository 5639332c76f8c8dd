"""What goes out is what its digest says (I3): rot that nobody knew of is left out, and looked into."""

# ruff: noqa: SLF001 - damage is made inside, and what came of it looked at there

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cas import Digest, Store
from cas.extent import Codec
from cas.tables import DOUBTED
from tests.engine.test_damage import chunks_of, spoil
from tests.porting.test_lost import LARGE, layers
from tests.porting.test_oci import add, index_of, named, names_of, write_index
from tests.support import images
from tests.support.engine import push
from tests.support.images import Image
from tests.support.losing import is_here
from tests.support.porting import bring, take
from tests.support.serving import run_cas


@pytest.fixture
def image(tmp_path: Path) -> Image:
    return images.image(tmp_path / "one", "one", layer_bytes=LARGE)


def rot(store: Store, digest: str) -> int:
    """Flip a bit of a blob that is stored as it came, and tell nobody; return the pack."""
    _, row = chunks_of(store, Digest.parse(digest))[0]
    assert row.extent.codec is Codec.RAW
    spoil(store, store._parts.layout.root, row.extent)
    return row.extent.pack


def doubted(store: Store) -> set[int]:
    store._parts.committer.run(lambda _edit, _draft: None)  # what was under way is written
    checked = store._parts.index.read(lambda view: view.checked())
    return {pack for pack, when in checked.items() if when == DOUBTED}


def file_of(folder: Path, digest: str) -> Path:
    return folder / "blobs" / digest.replace(":", "/")


def is_true(folder: Path) -> bool:
    """Whether every file is what its name says."""
    return all(
        images.digest_of(path.read_bytes()) == f"sha256:{path.name}" for path in (folder / "blobs" / "sha256").iterdir()
    )


def test_rotten_bytes_are_named_and_left_out(store: Store, image: Image, tmp_path: Path) -> None:
    """With the tag that needs them; the rest is whole."""
    good = images.image(tmp_path / "two", "two")
    for each in (image, good):
        bring("oci", each.folder, store)
    layer = layers(image)[1]
    rot(store, layer)
    run = take(store, "acme/app", tmp_path / "out")
    assert [each.what for each in run.left] == ["acme/app:one"]
    assert run.said().startswith(
        f"acme/app:one: its blob {layer} is damaged: its bytes have another digest; run cas fsck"
    )
    assert not file_of(tmp_path / "out", layer).exists()
    assert names_of(tmp_path / "out") == {"two": good.digest}
    assert is_true(tmp_path / "out")


def test_the_command_says_so_by_its_exit_code(store: Store, image: Image, tmp_path: Path) -> None:
    """Nobody takes the folder for more than it is; and the store is told, by a process that ends at once."""
    bring("oci", image.folder, store)
    rot(store, layers(image)[1])
    ended = run_cas("export", "oci", "acme/app", tmp_path / "out", "--root", tmp_path / "root")
    assert (ended.returncode, "its bytes have another digest" in ended.stderr) == (1, True)
    assert store.stats().doubted == 1


def test_packs_of_rotten_bytes_alone_are_doubted(image: Image, tmp_path: Path) -> None:
    """An export is a reader: the scrub sets them aside, clients push anew what was lost, and all goes out."""
    with Store.open(tmp_path / "root", create=True) as store:
        bring("oci", image.folder, store)
    with Store.open(tmp_path / "root") as store:
        layer, out = layers(image)[1], tmp_path / "out"
        pack = rot(store, layer)
        take(store, "acme/app", out)
        assert doubted(store) == {pack}
        list(store.scrub(1))
        assert not is_here(store, layer)
        bring("oci", image.folder, store)
        assert take(store, "acme/app", out).left == []
        assert names_of(out) == {"one": image.digest}
        assert is_true(out)


def test_a_blob_in_many_packs_makes_one_of_them_doubted(tmp_path: Path) -> None:
    """What is true of it is not looked at again."""
    image = images.image(tmp_path / "one", "one", layer_bytes=3_000_000)
    layer = layers(image)[0]
    data = file_of(image.folder, layer).read_bytes()
    with Store.open(tmp_path / "root", create=True) as store:
        push(store, "beginning", data[:1_500_000])
    with Store.open(tmp_path / "root") as store:
        bring("oci", image.folder, store)
        assert len({row.extent.pack for _, row in chunks_of(store, Digest.parse(layer))}) > 1
        pack = rot(store, layer)
        assert [each.what for each in take(store, "acme/app", tmp_path / "out").left] == ["acme/app:one"]
        assert doubted(store) == {pack}


def test_a_rotten_manifest_is_left_out(store: Store, image: Image, tmp_path: Path) -> None:
    """One so large that its bytes are a blob of their own, and rotted into another manifest."""
    noise = file_of(image.folder, layers(image)[0]).read_bytes().hex()
    large = add(image.folder, {**image.manifest(), "annotations": {"a": noise}}, images.MANIFEST)
    write_index(image.folder, [named(large, "large"), *index_of(image.folder)])
    bring("oci", image.folder, store)
    _, row = chunks_of(store, Digest.parse(large["digest"]))[0]
    spoil(store, store._parts.layout.root, row.extent)
    run = take(store, "acme/app", tmp_path / "out")
    assert [each.what for each in run.left] == ["acme/app:large"]
    assert is_true(tmp_path / "out")


@pytest.mark.parametrize("what", ["layer", "manifest"])
def test_a_file_that_is_there_is_believed_only_if_it_is_right(
    store: Store, image: Image, tmp_path: Path, what: str
) -> None:
    """Of the right length, and of other bytes: it rotted in the folder, or was exported when that went unnoticed."""
    bring("oci", image.folder, store)
    out = tmp_path / "out"
    take(store, "acme/app", out)
    path = file_of(out, layers(image)[1] if what == "layer" else image.digest)
    whole = path.read_bytes()
    path.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    counts = take(store, "acme/app", out).report.counts
    assert path.read_bytes() == whole
    assert (counts.blobs, counts.manifests, counts.skipped) == ((1, 0, 0) if what == "layer" else (0, 1, 0))


def test_what_is_whole_in_the_folder_outlives_rot_in_the_store(store: Store, image: Image, tmp_path: Path) -> None:
    """It is not read again, and stays; so the tag does."""
    bring("oci", image.folder, store)
    out = tmp_path / "out"
    take(store, "acme/app", out)
    rot(store, layers(image)[1])
    assert take(store, "acme/app", out).left == []
    assert is_true(out)


def test_what_is_there_is_read_once_however_many_tags_need_it(
    store: Store, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Base layers are shared by many."""
    write_index(image.folder, [named(each, f"{number}") for number in range(5) for each in index_of(image.folder)])
    bring("oci", image.folder, store)
    take(store, "acme/app", tmp_path / "out")
    asked, hasher = list[Digest](), Digest.hasher

    def counted(digest: Digest) -> Any:
        asked.append(digest)
        return hasher(digest)

    monkeypatch.setattr(Digest, "hasher", counted)
    for _ in range(2):
        take(store, "acme/app", tmp_path / "out")
    layer = Digest.parse(layers(image)[0])
    assert asked.count(layer) == 2
