"""OCI layouts, in and out: the same digests at both ends, whoever looks."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from api.content import repositories, tags
from api.content.repositories import Access
from api.content.repository import Repository
from api.porting.errors import CannotWrite, NothingToExport, NotThatKind
from api.v2 import manifest, referrer
from cas import Digest, Store
from tests.support import images
from tests.support.endpoint import Endpoint, Witness
from tests.support.images import Image
from tests.support.peers import path_of
from tests.support.porting import NOW, bring, die_in, take
from tests.support.serving import StartServer, run_cas

REPOSITORY = Repository.of("acme/app")
Descriptor = dict[str, Any]


def index_of(folder: Path) -> list[Descriptor]:
    found: list[Descriptor] = json.loads((folder / "index.json").read_bytes())["manifests"]
    return found


def names_of(folder: Path) -> dict[str, str]:
    """Map the names in a layout's list to digests."""
    named = ((each.get("annotations", {}).get("org.opencontainers.image.ref.name"), each) for each in index_of(folder))
    return {name: each["digest"] for name, each in named if name is not None}


def write_index(folder: Path, descriptors: list[Descriptor]) -> None:
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": descriptors}), encoding="utf-8")


def add(folder: Path, content: object, media_type: str) -> Descriptor:
    body = json.dumps(content).encode()
    digest = images.digest_of(body)
    (folder / "blobs" / digest.replace(":", "/")).write_bytes(body)
    return {"mediaType": media_type, "digest": digest, "size": len(body)}


def named(descriptor: Descriptor, name: str) -> Descriptor:
    return {**descriptor, "annotations": {"org.opencontainers.image.ref.name": name}}


def sign(image: Image) -> tuple[str, str]:
    """Put something about an image into its layout, listed in a tag of the fallback scheme; give it and that tag."""
    subject = {"mediaType": images.MANIFEST, "digest": image.digest, "size": len(image.blob(image.digest))}
    about = add(image.folder, {**image.manifest(), "subject": subject}, images.MANIFEST)
    listed = {"schemaVersion": 2, "mediaType": images.INDEX, "manifests": [about]}
    tag = image.digest.replace(":", "-")
    fallback = add(image.folder, listed, images.INDEX)
    write_index(image.folder, [*index_of(image.folder), named(fallback, tag)])
    return str(about["digest"]), tag


def tagged(store: Store) -> dict[str, str]:
    found = store.read(lambda reads: list(tags.walk(reads, REPOSITORY)))
    return {name: str(tag.manifest.digest) for name, tag in found if tag.manifest is not None}


def filled(store: Store, tmp_path: Path) -> tuple[Image, Image, str]:
    """Import an index, and an image about which there is something."""
    many, one = images.multi_arch(tmp_path / "many", "many"), images.image(tmp_path / "one", "one")
    about, _ = sign(one)
    for image in (many, one):
        assert bring("oci", image.folder, store).left == []
    return many, one, about


def test_a_layout_comes_with_its_tags_its_indexes_and_what_is_about_them(store: Store, tmp_path: Path) -> None:
    """A tag of the fallback scheme is no tag here: what it lists stands among referrers."""
    many, one, about = filled(store, tmp_path)
    assert tagged(store) == {"many": many.digest, "one": one.digest}
    found = store.read(lambda reads: list(referrer.walk(reads, REPOSITORY, Digest.parse(one.digest))))
    assert [str(digest) for digest, _ in found] == [about]


def test_an_export_has_the_digests_of_what_was_imported(store: Store, tmp_path: Path) -> None:
    """All of it and nothing else, and every file is what its name says."""
    many, one, about = filled(store, tmp_path)
    out = tmp_path / "out"
    assert take(store, "acme/app", out).left == []
    assert names_of(out) == {"many": many.digest, "one": one.digest}
    assert about in {each["digest"] for each in index_of(out)}
    files = {path: images.digest_of(path.read_bytes()) for path in (out / "blobs" / "sha256").iterdir()}
    assert all(digest == f"sha256:{path.name}" for path, digest in files.items())
    assert set(files.values()) == many.digests() | one.digests() - {_fallback(one)}
    assert json.loads((out / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}


def _fallback(image: Image) -> str:
    return names_of(image.folder)[image.digest.replace(":", "-")]


def test_one_tag_is_added_to_what_a_layout_has(store: Store, tmp_path: Path) -> None:
    """Each name once, and whole files are not written again."""
    many, one, about = filled(store, tmp_path)
    out = tmp_path / "out"
    take(store, "acme/app", out, "many")
    assert names_of(out) == {"many": many.digest}
    before = {path: path.stat().st_ino for path in (out / "blobs" / "sha256").iterdir()}
    for _ in range(2):
        take(store, "acme/app", out, "one")
        assert names_of(out) == {"many": many.digest, "one": one.digest}
        assert [each["digest"] for each in index_of(out)].count(about) == 1
    assert take(store, "acme/app", out).report.counts.blobs == 0
    assert {path: path.stat().st_ino for path in before} == before


def test_an_exported_layout_can_be_imported_elsewhere(store: Store, tmp_path: Path) -> None:
    """With what is about its images, though that has no name there."""
    many, one, about = filled(store, tmp_path)
    take(store, "acme/app", tmp_path / "out")
    with Store.open(tmp_path / "other", create=True) as other:
        assert bring("oci", tmp_path / "out", other).left == []
        assert tagged(other) == {"many": many.digest, "one": one.digest}
        found = other.read(lambda reads: list(referrer.walk(reads, REPOSITORY, Digest.parse(one.digest))))
        assert [str(digest) for digest, _ in found] == [about]


@pytest.mark.needs("skopeo")
def test_skopeo_copies_an_export_elsewhere_with_equal_digests(server: StartServer, tmp_path: Path) -> None:
    """Out of one registry by `cas export oci`, into another by skopeo, which proves every digest on its way."""
    root = tmp_path / "root"
    with Store.open(root, create=True) as store:
        many, one, _ = filled(store, tmp_path)
    ended = run_cas("export", "oci", "acme/app", tmp_path / "out", "--root", root)
    assert (ended.returncode, ended.stderr) == (0, "")
    running = server(root=tmp_path / "elsewhere")
    address = f"{running.host}:{running.port}"
    witness = Witness(Endpoint(address))
    for image in (many, one):
        source, target = f"oci:{tmp_path / 'out'}:{image.tag}", f"docker://{address}/moved/app:{image.tag}"
        command = [path_of("skopeo"), "copy", "--all", "--preserve-digests", "--dest-tls-verify=false", source, target]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        assert witness.digest("moved/app", image.tag) == image.digest


def test_a_killed_export_is_begun_anew_and_ends_whole(store: Store, tmp_path: Path) -> None:
    """The list comes last: until then nobody takes the folder for more than it is."""
    many, one, _ = filled(store, tmp_path)
    store.close()
    root, out = tmp_path / "root", tmp_path / "out"
    die_in("take(Store.open(Path(a[0])), 'acme/app', Path(a[1]), moved=dying(5))", root, out)
    assert not (out / "index.json").exists()
    with Store.open(root) as opened:
        take(opened, "acme/app", out)
    assert names_of(out) == {"many": many.digest, "one": one.digest}
    for path in (out / "blobs" / "sha256").iterdir():
        assert images.digest_of(path.read_bytes()) == f"sha256:{path.name}"


def wrong_layer(image: Image) -> str:
    layer = image.manifest()["layers"][0]["digest"]
    path = image.folder / "blobs" / layer.replace(":", "/")
    path.write_bytes(path.read_bytes() + b"x")
    return "its bytes have another digest"


def lost_config(image: Image) -> str:
    (image.folder / "blobs" / image.config.replace(":", "/")).unlink()
    return "is missing"


def pipe_for_a_layer(image: Image) -> str:
    layer = image.folder / "blobs" / image.manifest()["layers"][0]["digest"].replace(":", "/")
    layer.unlink()
    os.mkfifo(layer)
    return "is no file"


def huge_manifest(image: Image) -> str:
    path = image.folder / "blobs" / image.digest.replace(":", "/")
    path.write_bytes(b" " * (5 << 20))
    return "more than the"


def folder_linked_away(image: Image) -> str:
    blobs = image.folder / "blobs" / "sha256"
    elsewhere = image.folder.with_name("elsewhere")
    blobs.rename(elsewhere)
    blobs.symlink_to(elsewhere)
    return "symbolic link"


@pytest.mark.parametrize(
    "damage", [wrong_layer, lost_config, pipe_for_a_layer, huge_manifest, folder_linked_away], ids=lambda f: f.__name__
)
def test_what_cannot_be_trusted_is_named_and_left_out(store: Store, tmp_path: Path, damage: Any) -> None:
    """And the rest comes over."""
    bad, good = images.image(tmp_path / "bad", "bad"), images.image(tmp_path / "good", "good")
    why = damage(bad)
    assert why in bring("oci", bad.folder, store).said()
    assert bring("oci", good.folder, store).left == []
    assert tagged(store) == {"good": good.digest}


@pytest.mark.parametrize("digest", ["sha256:../../../../etc/passwd", "md5:00", "sha256:" + "A" * 64, 7, None])
def test_a_digest_that_is_none_leads_nowhere(store: Store, tmp_path: Path, digest: object) -> None:
    """It is named by its place in the list."""
    image = images.image(tmp_path / "one", "one")
    write_index(image.folder, [{"mediaType": images.MANIFEST, "digest": digest, "size": 1}, *index_of(image.folder)])
    run = bring("oci", image.folder, store)
    assert [each.what for each in run.left] == ["index.json: manifests[0]"]
    assert tagged(store) == {"one": image.digest}


def test_a_name_that_is_no_tag_leaves_its_manifest_to_be_found_by_digest(store: Store, tmp_path: Path) -> None:
    """Names in layouts may be anything."""
    image = images.image(tmp_path / "one", "one")
    write_index(image.folder, [named(index_of(image.folder)[0], "registry.example/app:1.0")])
    run = bring("oci", image.folder, store)
    assert "cannot be a tag" in run.said()
    assert store.read(lambda reads: manifest.find(reads, REPOSITORY, Digest.parse(image.digest))) is not None


@pytest.mark.parametrize(
    "content",
    ["[]", "{", '{"manifests": 1}', '{"manifests": [1]}', "[" * 100_000],
    ids=["list", "cut", "n", "m", "deep"],
)
def test_a_list_that_is_none_is_refused(store: Store, tmp_path: Path, content: str) -> None:
    """Before anything is changed."""
    image = images.image(tmp_path / "one", "one")
    (image.folder / "index.json").write_text(content, encoding="utf-8")
    with pytest.raises(NotThatKind, match=r"index\.json"):
        bring("oci", image.folder, store)
    assert repositories.find(store, REPOSITORY) is None


def test_an_image_whose_blob_was_lost_is_left_out_of_an_export(store: Store, tmp_path: Path) -> None:
    """It is named, and the layout is whole without it."""
    filled(store, tmp_path)
    with store.upload() as upload:
        upload.write(b"{}")
        body = upload.finish()
    gone = {"schemaVersion": 2, "config": {"mediaType": images.CONFIG, "digest": str(body.digest), "size": 2}}
    text = json.dumps({**gone, "mediaType": images.MANIFEST, "layers": []}).encode()
    entry = manifest.Manifest(Digest.of(text), images.MANIFEST, len(text), None, text)
    target = tags.Manifest(entry.digest, images.MANIFEST, len(text))
    store.change(lambda names: manifest.put(names, REPOSITORY, entry, None))
    store.change(lambda names: tags.put(names, REPOSITORY, "gone", target, {}))
    run = take(store, "acme/app", tmp_path / "out")
    assert [each.what for each in run.left] == ["acme/app:gone"]
    assert "is missing; `cas fsck` says more" in run.said()
    assert set(names_of(tmp_path / "out")) == {"many", "one"}


def test_a_v1_image_without_a_manifest_is_left_out_with_what_to_do(store: Store, tmp_path: Path) -> None:
    """A pull makes one."""
    store.change(lambda names: repositories.ensure(names, REPOSITORY, NOW, Access.PRIVATE))
    store.change(lambda names: tags.put(names, REPOSITORY, "old", tags.Image("a" * 64), {}))
    run = take(store, "acme/app", tmp_path / "out")
    assert "pulling it once" in run.said()
    assert names_of(tmp_path / "out") == {}


def test_what_is_not_there_cannot_be_exported(store: Store, tmp_path: Path) -> None:
    """A repository, a tag."""
    with pytest.raises(NothingToExport, match="no repository acme/app"):
        take(store, "acme/app", tmp_path / "out")
    filled(store, tmp_path)
    with pytest.raises(NothingToExport, match="no tag none"):
        take(store, "acme/app", tmp_path / "out", "none")


def test_a_folder_of_something_else_is_never_written_to(store: Store, tmp_path: Path) -> None:
    """Nor one whose list is damaged, nor one that another export writes to."""
    filled(store, tmp_path)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "letters").write_text("dear", encoding="utf-8")
    with pytest.raises(CannotWrite, match="no OCI layout"):
        take(store, "acme/app", mine)
    assert [path.name for path in mine.iterdir()] == ["letters"]
    out = tmp_path / "out"
    take(store, "acme/app", out)
    fd = os.open(out, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        with pytest.raises(CannotWrite, match="another export"):
            take(store, "acme/app", out)
    finally:
        os.close(fd)
    (out / "index.json").write_text("{", encoding="utf-8")
    with pytest.raises(CannotWrite, match=r"index\.json"):
        take(store, "acme/app", out)


def test_a_partial_file_of_a_killed_export_is_replaced(store: Store, tmp_path: Path) -> None:
    """It never stands for the whole one."""
    _, one, _ = filled(store, tmp_path)
    out = tmp_path / "out"
    take(store, "acme/app", out, "one")
    blob = out / "blobs" / one.config.replace(":", "/")
    part = blob.with_name(blob.name + ".part")
    shutil.move(blob, part)
    part.write_bytes(b"{")
    run = take(store, "acme/app", out, "one")
    assert (run.left, part.exists(), blob.read_bytes()) == ([], False, one.blob(one.config))


def test_a_build_cache_comes_over_and_goes_out(store: Store, tmp_path: Path) -> None:
    """It is an index that lists layers, which are blobs."""
    image = images.image(tmp_path / "one", "one")
    layers = image.manifest()["layers"]
    cache = {"schemaVersion": 2, "mediaType": images.INDEX, "manifests": layers}
    top = add(image.folder, cache, images.INDEX)
    write_index(image.folder, [named(top, "cache")])
    assert bring("oci", image.folder, store).left == []
    assert take(store, "acme/app", tmp_path / "out").left == []
    files = {f"sha256:{path.name}" for path in (tmp_path / "out" / "blobs" / "sha256").iterdir()}
    assert files == {top["digest"], *(layer["digest"] for layer in layers)}


def test_digests_of_the_longer_algorithm_come_over_and_go_out(store: Store, tmp_path: Path) -> None:
    """A layout has a folder for each algorithm."""
    image = images.image(tmp_path / "one", "one")
    body = image.blob(image.digest)
    digest = "sha512:" + hashlib.sha512(body).hexdigest()
    (image.folder / "blobs" / "sha512").mkdir()
    (image.folder / "blobs" / digest.replace(":", "/")).write_bytes(body)
    write_index(image.folder, [named({"mediaType": images.MANIFEST, "digest": digest, "size": len(body)}, "long")])
    assert bring("oci", image.folder, store).left == []
    take(store, "acme/app", tmp_path / "out")
    assert names_of(tmp_path / "out") == {"long": digest}
    assert (tmp_path / "out" / "blobs" / digest.replace(":", "/")).read_bytes() == body
