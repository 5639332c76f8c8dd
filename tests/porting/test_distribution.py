"""Import of distribution's storage: a real one, made by Debian's docker-registry."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from api.content import tags
from api.content.repository import Repository
from api.porting.errors import NotThatKind
from api.v2 import manifest
from cas import Digest, Store
from tests.support import images
from tests.support.endpoint import Endpoint, Witness
from tests.support.images import Image
from tests.support.peers import path_of
from tests.support.porting import NOW, bring, die_in, docker_registry, terms
from tests.support.serving import StartServer, run_cas

pytestmark = pytest.mark.needs("docker-registry", "skopeo")

IMAGES = 22
BASE = "docker/registry/v2"


class Kept:
    """A folder, and what it holds: `repository` → tag → digest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tags: dict[str, dict[str, str]] = {}
        self.images: list[Image] = []
        self.referrer = ""

    def data(self, digest: str) -> Path:
        hexed = digest.removeprefix("sha256:")
        return self.folder / BASE / "blobs/sha256" / hexed[:2] / hexed / "data"


def _fill(kept: Kept, at: Endpoint, scratch: Path) -> None:
    witness = Witness(at)
    for number in range(IMAGES):
        repository = ("app", "acme/app", "acme/deep/er/app")[number % 3]
        image = images.image(scratch / f"i{number}", f"v{number}", layers=2, layer_bytes=3000)
        witness.put(repository, image)
        kept.images.append(image)
        kept.tags.setdefault(repository, {})[image.tag] = image.digest
    many = images.multi_arch(scratch / "many", "many")
    command = [path_of("skopeo"), "copy", "--all", "--preserve-digests", "--dest-tls-verify=false"]
    command += [f"oci:{many.folder}:many", f"docker://{at.address}/acme/app:many"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    kept.tags["acme/app"]["many"] = many.digest
    about = images.image(scratch / "about", "about", layers=1, layer_bytes=100)
    kept.tags["acme/app"]["about"] = about.digest
    kept.referrer = _sign(witness, kept.images[1], about)


def _sign(witness: Witness, image: Image, about: Image) -> str:
    """Push something about an image, listed in a tag of the fallback scheme."""
    subject = {"mediaType": images.MANIFEST, "digest": image.digest, "size": len(image.blob(image.digest))}
    body = json.dumps({**about.manifest(), "subject": subject}).encode()
    witness.put("acme/app", about)
    digest = images.digest_of(body)
    witness.ask("PUT", f"/v2/acme/app/manifests/{digest}", body, Content_Type=images.MANIFEST)
    listed = {"mediaType": images.MANIFEST, "digest": digest, "size": len(body)}
    index = json.dumps({"schemaVersion": 2, "mediaType": images.INDEX, "manifests": [listed]}).encode()
    tag = image.digest.replace(":", "-")
    answer = witness.ask("PUT", f"/v2/acme/app/manifests/{tag}", index, Content_Type=images.INDEX)
    assert answer.status == 201, answer.body
    return digest


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """Made once; read by all."""
    folder = tmp_path_factory.mktemp("elder")
    kept = Kept(folder / "storage")
    with docker_registry(kept.folder) as at:
        _fill(kept, at, folder)
    return kept


@pytest.fixture
def kept(original: Kept, tmp_path: Path) -> Kept:
    """A copy to damage."""
    copy = Kept(tmp_path / "storage")
    shutil.copytree(original.folder, copy.folder)
    copy.tags, copy.images, copy.referrer = original.tags, original.images, original.referrer
    return copy


def tagged(store: Store, repository: str) -> dict[str, str]:
    found = store.read(lambda reads: list(tags.walk(reads, Repository.of(repository))))
    return {name: str(tag.manifest.digest) for name, tag in found if tag.manifest is not None}


def test_what_docker_registry_kept_is_served_with_equal_digests(
    server: StartServer, original: Kept, tmp_path: Path
) -> None:
    """More than twenty images in three repositories, an index and a referrer, beside a live server; then no more."""
    running = server(root=tmp_path / "root", workers=2)
    first = run_cas("import", "distribution", original.folder, "--root", running.root, "--json")
    assert (first.returncode, first.stderr) == (0, "")
    witness = Witness(Endpoint(f"{running.host}:{running.port}"))
    assert sum(map(len, original.tags.values())) > 20
    for repository, its in original.tags.items():
        assert {tag: witness.digest(repository, tag) for tag in its} == its
    for image in original.images[1::3]:
        for digest in image.digests() - {image.digest}:
            assert witness.ask("GET", f"/v2/acme/app/blobs/{digest}").body == image.blob(digest)
    told = witness.ask("GET", f"/v2/acme/app/referrers/{original.images[1].digest}").body
    assert [each["digest"] for each in json.loads(told)["manifests"]] == [original.referrer]
    assert running.stop() == 0


def test_a_second_run_changes_and_reads_nothing(store: Store, original: Kept) -> None:
    """Not even years later, when links have long been forgotten as fresh."""
    first = bring("distribution", original.folder, store)
    assert first.left == []
    before = list(store.read(lambda reads: [(kind, reads.paths(kind)) for kind in ("tag", "manifest", "link")]))
    again = bring("distribution", original.folder, store, terms(NOW + 10**8))
    after = list(store.read(lambda reads: [(kind, reads.paths(kind)) for kind in ("tag", "manifest", "link")]))
    assert (again.report.counts.blobs, again.report.counts.bytes, again.report.counts.tags) == (0, 0, 0)
    assert again.report.counts.unchanged == first.report.counts.manifests
    assert after == before


def test_a_killed_import_is_begun_anew_and_ends_whole(original: Kept, tmp_path: Path) -> None:
    """What came before the kill is not read again."""
    root = tmp_path / "root"
    code = "bring('distribution', Path(a[1]), Store.open(Path(a[0]), create=True), moved=dying(60))"
    die_in(code, root, original.folder)
    with Store.open(root) as store:
        second = bring("distribution", original.folder, store)
        assert second.left == []
        assert second.report.counts.unchanged > 0
        assert {repository: tagged(store, repository) for repository in original.tags} == original.tags


def test_a_damaged_blob_costs_the_images_that_need_it_and_no_other(store: Store, kept: Kept) -> None:
    """It is named, and so is what was left out for it."""
    victim = kept.images[0]
    layer = victim.manifest()["layers"][0]["digest"]
    data = bytearray(kept.data(layer).read_bytes())
    data[10] ^= 1
    kept.data(layer).write_bytes(data)
    run = bring("distribution", kept.folder, store)
    assert victim.digest in run.said()
    assert f"app:{victim.tag}: its manifest {victim.digest} was left out" in run.said()
    assert "its bytes have another digest" in run.said()
    assert tagged(store, "app") == {tag: each for tag, each in kept.tags["app"].items() if tag != victim.tag}
    assert store.read(lambda reads: reads.stat(Digest.parse(layer))) is None


def test_what_is_missing_is_named_and_what_was_mended_comes_with_the_next_run(store: Store, kept: Kept) -> None:
    """The index whose image is left out is left out too, until it is there again."""
    many = Digest.parse(kept.tags["acme/app"]["many"])
    children = json.loads(kept.data(str(many)).read_bytes())["manifests"]
    lost = kept.data(children[1]["digest"])
    lost.rename(lost.with_name("elsewhere"))
    first = bring("distribution", kept.folder, store)
    assert f"it names {children[1]['digest']}, which was left out" in first.said()
    assert "many" not in tagged(store, "acme/app")
    lost.with_name("elsewhere").rename(lost)
    second = bring("distribution", kept.folder, store)
    assert (second.left, tagged(store, "acme/app")["many"]) == ([], str(many))


def test_nothing_outside_the_folder_is_read(store: Store, kept: Kept, tmp_path: Path) -> None:
    """A symbolic link in place of a blob, a link file or a repository is not followed, whatever it leads to."""
    victim = kept.images[0]
    layer = kept.data(victim.manifest()["layers"][0]["digest"])
    outside = tmp_path / "outside"
    layer.rename(outside)
    layer.symlink_to(outside)  # the very bytes
    repositories = kept.folder / BASE / "repositories"
    (repositories / "stolen").symlink_to(repositories / "app")
    run = bring("distribution", kept.folder, store)
    assert "is a symbolic link" in run.said()
    assert "stolen" in run.said()
    assert victim.tag not in tagged(store, "app")
    assert tagged(store, "stolen") == {}


def test_a_digest_that_a_repository_does_not_link_is_not_taken_for_it(store: Store, kept: Kept) -> None:
    """Its bytes are there, but somebody deleted the manifest, or it may not be seen."""
    victim = kept.images[0]
    hexed = victim.digest.removeprefix("sha256:")
    (kept.folder / BASE / "repositories/app/_manifests/revisions/sha256" / hexed / "link").unlink()
    run = bring("distribution", kept.folder, store)
    assert [each.what for each in run.left] == [f"app:{victim.tag}"]
    found = store.read(lambda reads: manifest.find(reads, Repository.of("app"), Digest.parse(victim.digest)))
    assert found is None


def test_a_tag_that_a_client_pushed_stays(store: Store, original: Kept) -> None:
    """Who pushes to the new registry while the old one is still imported wins."""
    bring("distribution", original.folder, store)
    theirs = tags.Manifest(Digest.parse(original.images[3].digest), images.MANIFEST, 1)
    store.change(lambda names: tags.put(names, Repository.of("app"), "v0", theirs, {}))
    run = bring("distribution", original.folder, store)
    assert "pushed by a client; it stays" in run.said()
    assert tagged(store, "app")["v0"] == original.images[3].digest


def test_a_folder_of_another_kind_is_refused(store: Store, tmp_path: Path) -> None:
    """With what to name instead."""
    with pytest.raises(NotThatKind, match="rootdirectory"):
        bring("distribution", tmp_path, store)
