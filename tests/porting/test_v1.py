"""Import of the old Python registry's storage: images with their ancestors, proven by what was kept beside them."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import pytest

from api.content import repositories, tags
from api.content.repositories import Access
from api.content.repository import Repository
from api.porting.errors import NotThatKind
from api.v1 import homes
from api.v1.repositories import list_images
from api.v1.tarsum import Form, tarsum
from cas import Store
from tests.support import images
from tests.support.endpoint import Endpoint, Witness
from tests.support.porting import NOW, bring, die_in, terms
from tests.support.serving import StartServer, run_cas

BASE, MIDDLE, TOP, OTHER = (letter * 64 for letter in "abcd")


class Old:
    """A folder as the file driver writes it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("images", "repositories"):
            (folder / name).mkdir(parents=True)

    def image(
        self, image_id: str, parent: str | None = None, *, checksum: str = "payload", layer_bytes: int = 3000
    ) -> Path:
        """Add an image; `checksum` is what was kept of it."""
        path = self.folder / "images" / image_id
        path.mkdir()
        said = {"id": image_id, "created": "2014-01-01T00:00:00Z"} | ({} if parent is None else {"parent": parent})
        text, layer = json.dumps(said).encode(), gzip.compress(images.layer(image_id[:8], layer_bytes), mtime=0)
        (path / "json").write_bytes(text)
        (path / "layer").write_bytes(layer)
        payload = "sha256:" + hashlib.sha256(text + b"\n" + layer).hexdigest()
        form = Form.of("tarsum+sha256:00")
        assert form is not None
        unpacked = tarsum(form, text, [layer], limit_bytes=1 << 20, limit_entries=100)
        kept = {
            "payload": json.dumps(["tarsum+sha256:" + "0" * 64, payload]),
            "tarsum": json.dumps([unpacked]),
            "bare": payload,
            "wrong": json.dumps(["sha256:" + "0" * 64]),
        }
        if checksum in kept:
            (path / "_checksum").write_text(kept[checksum], encoding="utf-8")
        return path

    def repository(self, name: str, *, private: bool = False, listed: list[str] | None = None, **its: str) -> Path:
        path = self.folder / "repositories" / name
        path.mkdir(parents=True)
        for tag, image_id in its.items():
            (path / f"tag_{tag}").write_text(image_id, encoding="utf-8")
            (path / f"tag{tag}_json").write_text('{"last_update": 1}', encoding="utf-8")
        if private:
            (path / "_private").touch()
        if listed is not None:
            (path / "_index_images").write_text(json.dumps([{"id": each} for each in listed]), encoding="utf-8")
        return path


@pytest.fixture
def old(tmp_path: Path) -> Old:
    """Three images on each other, in two repositories; a fourth in none."""
    made = Old(tmp_path / "old")
    made.image(BASE)
    made.image(MIDDLE, BASE, checksum="tarsum")
    made.image(TOP, MIDDLE, checksum="none")
    made.image(OTHER, BASE, checksum="bare")
    made.repository("library/base", latest=BASE)
    made.repository("acme/app", private=True, listed=[BASE, MIDDLE, TOP, "e" * 64], v1=MIDDLE, latest=TOP)
    return made


def seen(store: Store, repository: str) -> set[str]:
    """Return which of the images are seen from a repository, complete."""
    found = store.read(lambda reads: {each: homes.find(reads, repository, each) for each in ALL})
    return {image_id for image_id, image in found.items() if image is not None and image.complete}


ALL = (BASE, MIDDLE, TOP, OTHER)


def tagged(store: Store, repository: str) -> dict[str, str]:
    found = store.read(lambda reads: list(tags.walk(reads, Repository.of(repository))))
    return {name: tag.target.id for name, tag in found if isinstance(tag.target, tags.Image)}


def test_images_come_with_their_ancestors_tags_and_lists(store: Store, old: Old) -> None:
    """Into every repository that has them, each read once; what no repository has stays behind."""
    run = bring("v1", old.folder, store)
    assert (run.left, run.report.counts.images, run.report.counts.tags) == ([], 3, 3)
    assert tagged(store, "acme/app") == {"v1": MIDDLE, "latest": TOP}
    assert tagged(store, "library/base") == {"latest": BASE}
    assert seen(store, "acme/app") == {BASE, MIDDLE, TOP}
    assert seen(store, "library/base") == {BASE}
    assert {each["id"] for each in list_images(store, Repository.of("acme/app"))} == {BASE, MIDDLE, TOP, "e" * 64}


@pytest.mark.parametrize("kept", ["payload", "tarsum", "bare", "none"])
def test_any_checksum_that_was_kept_proves_an_image(store: Store, old: Old, kept: str) -> None:
    """Of the payload, of what is in it, as a bare text; where none was kept its own is what clients are told."""
    old.image("f" * 64, checksum=kept)
    old.repository("acme/one", latest="f" * 64)
    assert bring("v1", old.folder, store).left == []
    assert tagged(store, "acme/one") == {"latest": "f" * 64}


def test_what_was_private_stays_private_and_the_rest_is_as_said(store: Store, old: Old) -> None:
    """Even where everything else is made public."""
    bring("v1", old.folder, store, terms(access=Access.PUBLIC))
    access = {name: repositories.find(store, Repository.of(name)) for name in ("acme/app", "library/base")}
    assert {name: info and info.access for name, info in access.items()} == {
        "acme/app": Access.PRIVATE,
        "library/base": Access.PUBLIC,
    }


def test_the_protocol_serves_the_very_bytes(server: StartServer, old: Old, tmp_path: Path) -> None:
    """By the sequence of a pull: tags, ancestry, each json and layer."""
    ended = run_cas("import", "v1", old.folder, "--root", tmp_path / "root")
    assert (ended.returncode, ended.stderr) == (0, "")
    running = server(root=tmp_path / "root")
    witness = Witness(Endpoint(f"{running.host}:{running.port}"))
    assert json.loads(witness.ask("GET", "/v1/repositories/acme/app/tags").body)["latest"] == TOP
    assert json.loads(witness.ask("GET", f"/v1/images/{TOP}/ancestry").body) == [TOP, MIDDLE, BASE]
    for image_id in (TOP, MIDDLE, BASE):
        for part in ("json", "layer"):
            kept = (old.folder / "images" / image_id / part).read_bytes()
            assert witness.ask("GET", f"/v1/images/{image_id}/{part}").body == kept


def test_a_client_of_today_pulls_what_the_old_registry_left(server: StartServer, old: Old, tmp_path: Path) -> None:
    """Each tag as a manifest of the very layers, base first, with a configuration that tells of just those."""
    assert run_cas("import", "v1", old.folder, "--root", tmp_path / "root").returncode == 0
    running = server(root=tmp_path / "root")
    witness = Witness(Endpoint(f"{running.host}:{running.port}"))
    for repository, tag, chain in (("acme/app", "latest", (BASE, MIDDLE, TOP)), ("library/base", "latest", (BASE,))):
        manifest = json.loads(witness.manifest(repository, tag).body)
        layers = [(old.folder / "images" / image_id / "layer").read_bytes() for image_id in chain]
        for told, layer in zip(manifest["layers"], layers, strict=True):
            assert witness.ask("GET", f"/v2/{repository}/blobs/{told['digest']}").body == layer
        config = json.loads(witness.ask("GET", f"/v2/{repository}/blobs/{manifest['config']['digest']}").body)
        diff_ids = ["sha256:" + hashlib.sha256(gzip.decompress(layer)).hexdigest() for layer in layers]
        assert config["rootfs"]["diff_ids"] == diff_ids


def test_a_second_run_reads_no_layer_and_changes_nothing(store: Store, old: Old) -> None:
    """What is there is not asked for again."""
    bring("v1", old.folder, store)
    before = store.read(lambda reads: [reads.scan(kind) for kind in ("tag", "v1.image", "v1.member", "v1.upload")])
    again = bring("v1", old.folder, store, terms(NOW + 10**6))
    after = store.read(lambda reads: [reads.scan(kind) for kind in ("tag", "v1.image", "v1.member", "v1.upload")])
    assert (again.left, again.report.counts.bytes, again.report.counts.tags) == ([], 0, 0)
    assert after == before


def test_there_already_is_what_was_there_before_the_run(store: Store, old: Old) -> None:
    """Each image once, however many lists and tags name it."""
    assert bring("v1", old.folder, store).report.counts.unchanged == 0
    assert bring("v1", old.folder, store).report.counts.unchanged == 3


def test_a_killed_import_is_begun_anew_and_ends_whole(old: Old, tmp_path: Path) -> None:
    """In the middle of the second layer."""
    root = tmp_path / "root"
    die_in("bring('v1', Path(a[1]), Store.open(Path(a[0]), create=True), moved=dying(2))", root, old.folder)
    with Store.open(root) as store:
        assert bring("v1", old.folder, store).left == []
        assert tagged(store, "acme/app") == {"v1": MIDDLE, "latest": TOP}
        assert store.read(lambda reads: reads.paths("v1.upload")) == []


def test_an_image_whose_bytes_have_none_of_its_checksums_is_left_out_with_all_above_it(store: Store, old: Old) -> None:
    """It is named once, and so is each tag that needed it; mended, it comes with the next run."""
    layer = old.folder / "images" / MIDDLE / "layer"
    kept = layer.read_bytes()
    layer.write_bytes(gzip.compress(images.layer("else", 100), mtime=0))
    run = bring("v1", old.folder, store)
    assert "none of the checksums" in run.said()
    assert f"its ancestor {MIDDLE} was left out" in run.said()
    assert [each.what for each in run.left if "tag" not in each.what].count(f"acme/app: image {MIDDLE}") == 1
    assert {each.what for each in run.left} >= {"acme/app:v1", "acme/app:latest"}
    assert (tagged(store, "acme/app"), tagged(store, "library/base")) == ({}, {"latest": BASE})
    layer.write_bytes(kept)
    assert bring("v1", old.folder, store).left == []
    assert tagged(store, "acme/app") == {"v1": MIDDLE, "latest": TOP}


@pytest.mark.parametrize("missing", ["json", "layer"])
def test_what_is_missing_is_named_and_the_rest_comes(store: Store, old: Old, missing: str) -> None:
    """An image without one of its halves, and those above it."""
    (old.folder / "images" / TOP / missing).unlink()
    run = bring("v1", old.folder, store)
    assert f"images/{TOP}/{missing} is missing" in run.said()
    assert tagged(store, "acme/app") == {"v1": MIDDLE}


def test_an_image_that_nobody_finished_pushing_is_left_out(store: Store, old: Old) -> None:
    """The old registry would not have served it either."""
    (old.folder / "images" / TOP / "_inprogress").touch()
    run = bring("v1", old.folder, store)
    assert "its push was never finished" in run.said()
    assert tagged(store, "acme/app") == {"v1": MIDDLE}


def test_an_ancestry_that_has_no_end_is_left_out(store: Store, old: Old) -> None:
    """Two images that are each other's parent, and one that is its own."""
    old.image("1" * 64, "2" * 64)
    old.image("2" * 64, "1" * 64)
    old.image("3" * 64, "3" * 64)
    old.repository("acme/loop", one="1" * 64, three="3" * 64)
    run = bring("v1", old.folder, store)
    assert {each.what for each in run.left} >= {"acme/loop:one", "acme/loop:three"}
    assert tagged(store, "acme/loop") == {}


def test_another_image_of_the_same_id_is_never_mixed_up(store: Store, old: Old, tmp_path: Path) -> None:
    """The first stays; who imports the second is told."""
    other = Old(tmp_path / "other")
    path = other.image(BASE)
    (path / "layer").write_bytes(gzip.compress(images.layer("evil", 100), mtime=0))
    (path / "_checksum").unlink()
    other.repository("evil/base", latest=BASE)
    bring("v1", old.folder, store)
    run = bring("v1", other.folder, store)
    assert {each.what for each in run.left} == {f"evil/base: image {BASE}", "evil/base:latest"}
    assert (seen(store, "evil/base"), tagged(store, "evil/base")) == (set(), {})


def test_quoted_names_are_read_as_they_were_meant(store: Store, old: Old) -> None:
    """A part with a slash was quoted twice."""
    old.repository("acme/deep%252Fapp", latest=BASE)
    assert bring("v1", old.folder, store).left == []
    assert tagged(store, "acme/deep/app") == {"latest": BASE}


@pytest.mark.parametrize("name", ["..%252F..%252Fetc", "UPPER", "a%2500b", "tags"])
def test_a_name_that_no_repository_can_have_is_left_out(store: Store, old: Old, name: str) -> None:
    """Whatever it unquotes to."""
    old.repository(f"acme/{name}", latest=BASE)
    run = bring("v1", old.folder, store)
    assert [each.what for each in run.left] == [f"repositories/acme/{name}"]


def test_a_link_out_of_the_folder_is_not_followed(store: Store, old: Old, tmp_path: Path) -> None:
    """Not for an image's json, nor for a tag."""
    secret = tmp_path / "secret"
    secret.write_text(TOP, encoding="utf-8")
    (old.folder / "repositories/acme/app/tag_leak").symlink_to(secret)
    layer = old.folder / "images" / TOP / "layer"
    layer.rename(tmp_path / "layer")
    layer.symlink_to(tmp_path / "layer")
    run = bring("v1", old.folder, store)
    assert run.said().count("symbolic link") == 2
    assert tagged(store, "acme/app") == {"v1": MIDDLE}


def test_a_tag_that_a_client_pushed_stays(store: Store, old: Old) -> None:
    """Who pushes to the new registry wins."""
    bring("v1", old.folder, store)
    store.change(lambda names: tags.put(names, Repository.of("acme/app"), "latest", tags.Image(BASE), {}))
    assert "pushed by a client" in bring("v1", old.folder, store).said()
    assert tagged(store, "acme/app")["latest"] == BASE


def test_a_folder_of_another_kind_is_refused(store: Store, tmp_path: Path) -> None:
    """With what to name instead."""
    with pytest.raises(NotThatKind, match="storage_path"):
        bring("v1", tmp_path, store)


def test_a_repository_of_which_nobody_can_tell_whether_it_is_private_is_left_out(store: Store, old: Old) -> None:
    """Rather than shown to everybody."""
    path = old.folder / "repositories/acme/app"
    path.rename(old.folder / "elsewhere")
    path.symlink_to(old.folder / "elsewhere")
    run = bring("v1", old.folder, store, terms(access=Access.PUBLIC))
    assert [each.what for each in run.left] == ["repositories/acme/app"]
    assert repositories.find(store, Repository.of("acme/app")) is None
