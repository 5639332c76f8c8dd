"""`cas du`: what each repository and tag takes, and what deleting it frees."""

from __future__ import annotations

import json
import random
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from api.content import repositories, tags
from api.content.repositories import Access
from api.content.repository import Repository
from api.v1 import homes
from api.v1.image import Image
from api.v2 import links, push
from api.v2.document import OCI_INDEX, OCI_MANIFEST
from api.v2.push import Conditions, Push
from cas import Digest, Name, Names, Record, Store
from tests.support.serving import StartServer, run_cas

KIB = 1 << 10
NOW = 1_800_000_000.0
CONFIG = b"{}"


def noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def descriptor(data: bytes, media_type: str = "application/octet-stream") -> dict[str, Any]:
    return {"mediaType": media_type, "digest": str(Digest.of(data)), "size": len(data)}


def link(store: Store, repository: str, data: bytes) -> None:
    """Put a blob where a repository shows it."""
    with store.upload() as upload:
        upload.write(data)
        staged = upload.finish()

        def edit(names: Names) -> None:
            names.keep(staged)
            repositories.ensure(names, Repository.of(repository), NOW, Access.PRIVATE)
            links.put(names, Repository.of(repository), staged.digest, staged.size, NOW)

        store.change(edit)


def manifest(store: Store, repository: str, content: dict[str, Any], media_type: str, *names: str) -> bytes:
    body = json.dumps({"schemaVersion": 2, "mediaType": media_type, **content}).encode()
    pushed = Push(Repository.of(repository), body, media_type, None, names, Conditions())
    pushed.store(store, Access.PRIVATE, {}, NOW)
    return body


def image(store: Store, repository: str, layers: list[bytes], *names: str, **more: Any) -> bytes:
    """Push an image the way clients do: blobs, then the manifest."""
    for data in (CONFIG, *layers):
        link(store, repository, data)
    content = {"config": descriptor(CONFIG), "layers": [descriptor(data) for data in layers], **more}
    return manifest(store, repository, content, OCI_MANIFEST, *names)


BASE, OWN, NEW, OTHER, LOOSE = (noise(seed, size * KIB) for seed, size in enumerate((300, 200, 150, 100, 80)))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two repositories on one base; the first has two tags, and a blob that no tag needs."""
    with Store.open(tmp_path / "root", create=True) as store:
        image(store, "acme/app", [BASE, OWN], "1.0")
        image(store, "acme/app", [BASE, NEW], "2.0", "latest")
        link(store, "acme/app", LOOSE)
        image(store, "acme/web", [BASE, OTHER], "1.0")
    return tmp_path / "root"


def du(root: Path, *what: str) -> dict[str, Any]:
    ended = run_cas("du", *what, "--json", "--root", root)
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def lines(found: dict[str, Any]) -> dict[str, tuple[int, int]]:
    return {line["name"]: (line["unique"] // KIB, line["shared"] // KIB) for line in found["items"]}


def test_each_repository_has_what_is_its_own_and_what_it_shares(root: Path) -> None:
    """Deleting one frees its own; deleting all frees what they share as well."""
    found = du(root)
    assert lines(found) == {"acme/app": (200 + 150 + 80, 300), "acme/web": (100, 300)}
    assert found["frees"] == found["disk"]["unique"] + found["disk"]["among"] == (430 + 100 + 300) * KIB
    assert found["disk"]["garbage"] == found["disk"]["beyond"] == 0


def test_all_lines_sum_up_to_the_disk(root: Path) -> None:
    """For the store, a repository and a tag alike."""
    size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    for what in ([], ["acme/app"], ["acme/app:2.0"]):
        found = du(root, *what)
        assert sum(found["disk"].values()) == found["disk_bytes"]
        assert abs(found["disk_bytes"] - size) <= 64 * KIB  # every command that opens a store writes a little


def test_each_tag_has_what_it_needs(root: Path) -> None:
    """Two tags of one manifest share it; what no tag needs is a line of its own; what others have is not freed."""
    found = du(root, "acme/app")
    expected = {"1.0": (200, 300), "2.0": (0, 450), "latest": (0, 450), "(untagged)": (80, 0)}
    assert lines(found) == expected
    assert found["frees"] == (200 + 150 + 80) * KIB
    assert lines(du(root, "acme/app:1.0")) == {"1.0": (200, 300)}
    assert du(root, "acme/app:2.0")["frees"] == 0


def test_logical_bytes_count_everything_a_tag_needs(root: Path) -> None:
    """Config, layers and manifest, shared or not."""
    (found,) = du(root, "acme/app:1.0")["items"]
    assert 500 * KIB + len(CONFIG) < found["logical"] < 501 * KIB


def test_an_index_has_its_children_and_a_referrer_goes_with_its_subject(tmp_path: Path) -> None:
    """Whatever goes when the tag goes."""
    with Store.open(tmp_path / "root", create=True) as store:
        child = image(store, "acme/app", [OWN])
        manifest(store, "acme/app", {"manifests": [descriptor(child, OCI_MANIFEST)]}, OCI_INDEX, "all")
        image(store, "acme/app", [NEW], subject=descriptor(child, OCI_MANIFEST))
        large = {"manifests": [], "annotations": {"text": noise(9, 60 * KIB).hex()}}
        manifest(store, "acme/app", large, OCI_INDEX, "large")
    found = lines(du(tmp_path / "root", "acme/app"))
    assert found["all"] == (350, 0)
    assert found["(untagged)"] == (0, 0)
    assert found["large"][0] > 60  # its manifest is a blob


def test_v1_images_count_with_their_ancestors(tmp_path: Path) -> None:
    """And in every repository from which they are seen."""
    with Store.open(tmp_path / "root", create=True) as store:
        for number, (data, parent) in enumerate(((BASE, None), (OWN, "a" * 64))):
            link(store, "acme/tmp", data)
            layer, image_id = Digest.of(data), "ab"[number] * 64
            one = Image(image_id, True, layer, 1, parent, 1 + number, layer, len(data))
            for home in ("acme/app", "acme/web")[: 2 - number]:
                store.change(partial(_show, home=home, image=one))
        store.change(lambda names: [names.delete(name) for name, _ in names.scan("link")])
    found = du(tmp_path / "root")
    assert lines(found) == {"acme/app": (200, 300), "acme/tmp": (0, 0), "acme/web": (0, 300)}
    assert lines(du(tmp_path / "root", "acme/app"))["latest"] == (200, 300)


def _show(names: Names, home: str, image: Image) -> None:
    repositories.ensure(names, Repository.of(home), NOW, Access.PRIVATE)
    names.put(image.name, image.record())
    homes.prove(names, home, image, NOW)
    tags.put(names, Repository.of(home), "latest", tags.Image(image.id), {})


def test_what_was_deleted_and_can_come_back_is_a_line_of_its_own(root: Path) -> None:
    """It counts as such only where nobody else has it."""
    with Store.open(root) as store:

        def trash(names: Names) -> None:
            for name, found in names.scan("link", "acme/web@"):
                names.delete(name)
                names.put(Name("trash", f"1/{name.kind}/{name.path}"), Record(found.encode(), found.holds))

        store.change(trash)
    found = du(root)
    assert found["disk"]["kept"] == 100 * KIB
    assert lines(found) == {"acme/app": (430 + 300, 0), "acme/web": (0, 0)}


def test_what_a_manifest_deleted_by_its_digest_needs_waits_with_it(root: Path) -> None:
    """Its layers are still shown by the repository, and only so that it can come back."""
    with Store.open(root) as store:
        found = store.read(lambda reads: tags.find(reads, Repository.of("acme/app"), "1.0"))
        assert found is not None
        assert found.manifest is not None
        push.delete(store, Repository.of("acme/app"), found.manifest.digest, NOW)
    whole, app, web = du(root), du(root, "acme/app"), du(root, "acme/web")
    assert [each["disk"]["kept"] for each in (whole, app, web)] == [200 * KIB] * 3
    assert lines(whole) == {"acme/app": (150 + 80, 300), "acme/web": (100, 300)}
    assert lines(app) == {"2.0": (0, 450), "latest": (0, 450), "(untagged)": (80, 0)}
    for each in (whole, app, web):
        assert sum(each["disk"].values()) == each["disk_bytes"]
    assert run_cas("undelete", "acme/app:1.0", "--root", root).returncode == 0
    assert du(root)["disk"]["kept"] == 0
    assert lines(du(root, "acme/app"))["1.0"] == (200, 300)


def test_what_waits_is_what_a_collection_without_grace_frees(root: Path) -> None:
    """To the byte, apart from what packs note about it."""
    with Store.open(root) as store:
        for name, _ in store.scan("manifest"):
            repository, _, digest = name.path.partition("@")
            push.delete(store, Repository.of(repository), Digest.parse(digest), NOW)
    kept = du(root)["disk"]["kept"]
    assert kept == (300 + 200 + 150 + 100) * KIB
    before = du(root)["disk"]
    assert run_cas("gc", "--grace", "0", "--root", root).returncode == 0
    after = du(root)["disk"]
    assert (after["kept"], after["unique"]) == (0, 0)
    assert before["unique"] == 80 * KIB


def test_people_read_a_table(root: Path) -> None:
    """Aligned, in units for eyes, and without a word on stderr."""
    ended = run_cas("du", "acme/app", "--root", root)
    assert (ended.returncode, ended.stderr) == (0, "")
    head, *rest = ended.stdout.splitlines()
    assert head.split() == ["acme/app", "logical", "unique", "shared"]
    assert any(line.split() == ["1.0", "501", "KiB", "200", "KiB", "300", "KiB"] for line in rest)
    assert any(line.startswith("deleting all of these frees") and line.endswith("430 KiB") for line in rest)
    assert all(line == line.rstrip() for line in rest)


@pytest.mark.parametrize(
    ("what", "code", "words"),
    [("acme/none", 66, "no repository acme/none"), ("acme/app:9", 66, "no tag 9"), ("acme/*", 65, "acme/*")],
)
def test_what_is_not_there_is_said(root: Path, what: str, code: int, words: str) -> None:
    """With what to do next."""
    ended = run_cas("du", what, "--root", root)
    assert (ended.returncode, ended.stdout) == (code, "")
    assert words in ended.stderr


def test_it_works_beside_a_live_server(server: StartServer, root: Path) -> None:
    """And changes nothing."""
    running = server(root, workers=2, flags=["--allow-open"])  # what it has is private
    assert lines(du(root))["acme/web"] == (100, 300)
    assert running.stop() == 0
    assert running.log() == ""
