"""The rows of the two conformance programs that are about manifests, lists, referrers and deletes, in their order.

Uploads and mounts have files of their own. Each push goes on as those programs do: what `Location` names is read
back, and everything is asked for again right after it was deleted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest

from tests.wire.v2.content import (
    CONFIG,
    LAYER,
    OCI_INDEX,
    OCI_MANIFEST,
    Document,
    Home,
    descriptor,
    document,
    index,
)
from tests.wire.v2.pushing import Client, code, new_repository, sha256

EMPTY = "application/vnd.oci.empty.v1+json"
ARTIFACT = "application/vnd.example.artifact"
NONDISTRIBUTABLE = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"


@pytest.fixture
def home(client: Client) -> Home:
    home = Home(client)
    client.push(home.name, b"{}")
    return home


def artifact(**more: object) -> Document:
    empty = descriptor(b"{}", EMPTY)
    return document({"artifactType": ARTIFACT, "config": empty, "layers": [empty], **more})


def images(home: Home, count: int) -> list[Document]:
    return [home.numbered(number) for number in range(count)]


DataSet = Callable[[Home], list[Document]]
DATA: dict[str, DataSet] = {
    "image": lambda home: [home.image()],
    "image-uncompressed": lambda home: [
        home.image(layers=[descriptor(home.layers[0], "application/vnd.oci.image.layer.v1.tar")])
    ],
    "large-manifest": lambda home: [home.image(annotations={f"a{at}": "x" * 10_000 for at in range(390)})],
    "index": lambda home: [*images(home, 2), index(images(home, 2))],
    "nested-index": lambda home: [*images(home, 2), index(images(home, 2)), index([index(images(home, 2))])],
    "empty-index": lambda _: [index([])],
    "artifact": lambda _: [artifact()],
    "artifact-index": lambda _: [artifact(), index([artifact()], artifactType=ARTIFACT)],
    "artifact-without-layers": lambda _: [artifact(layers=[])],
    "artifacts-with-subject": lambda home: [
        home.image(),
        *(artifact(subject=home.image().descriptor, annotations={"n": str(number)}) for number in range(3)),
    ],
    "index-with-subject": lambda home: [home.image(), index([], subject=home.image().descriptor)],
    "missing-subject": lambda home: [artifact(subject=home.numbered(99).descriptor)],
    "data-field": lambda _: [
        artifact(layers=[descriptor(b"{}", EMPTY, data="e30=")], config=descriptor(b"{}", EMPTY, data="e30="))
    ],
    "non-distributable-layers": lambda home: [
        home.image(
            layers=[
                descriptor(home.layers[0], LAYER),
                descriptor(b"elsewhere", NONDISTRIBUTABLE, urls=["https://example.com/layer"]),
            ]
        )
    ],
    "custom-fields": lambda home: [
        home.image(**{"org.example": "x", "config": descriptor(home.config, CONFIG, **{"org.example": {"y": 1}})}),
        index([], **{"org.example": "z"}),
    ],
    "no-layers": lambda home: [home.image(layers=[])],
}


@pytest.mark.parametrize("name", DATA)
def test_a_data_set_is_pushed_listed_pulled_and_deleted(home: Home, name: str) -> None:
    """By digest and by tag, with referrers where there are subjects, and 404 right after each delete."""
    manifests = DATA[name](home)
    tags = {f"tag-{number}": manifest for number, manifest in enumerate(manifests)}
    for tag, manifest in tags.items():
        push(home, manifest, manifest.digest)
        push(home, manifest, tag)
    assert home.tags() == sorted(tags)
    for reference, manifest in [*tags.items(), *((each.digest, each) for each in manifests)]:
        for method in ("HEAD", "GET"):
            got = home.get(reference, method)
            assert (got.status_code, got.headers["docker-content-digest"]) == (200, manifest.digest)
            assert got.headers["content-length"] == str(len(manifest.body))
    subjects = {manifest.digest: _subject(manifest) for manifest in manifests}
    for subject in filter(None, subjects.values()):
        listed = {each["digest"] for each in home.referrers(subject)}
        assert listed == {digest for digest, its in subjects.items() if its == subject}
    for reference in [*tags, *(manifest.digest for manifest in manifests)]:
        assert home.delete(reference) == 202
        assert home.get(reference, "HEAD").status_code == 404
    assert not any(home.referrers(subject) for subject in subjects.values() if subject)
    for data in {home.config, *home.layers, b"{}"}:
        assert home.client.blob(home.name, sha256(data), "DELETE").status_code == 202
        assert home.client.blob(home.name, sha256(data), "HEAD").status_code == 404


def push(home: Home, manifest: Document, reference: str) -> None:
    """Push a manifest and read it where the answer says it is."""
    answer = home.put(manifest, reference)
    assert answer.status_code == 201, answer.text
    assert answer.headers["docker-content-digest"] == manifest.digest
    located = home.client.ask("GET", answer.headers["location"])
    assert (located.content, located.headers["content-type"]) == (manifest.body, manifest.type)


def _subject(manifest: Document) -> str | None:
    found = manifest.body.partition(b'"subject"')[2]
    return None if not found else "sha256:" + found.partition(b"sha256:")[2][:64].decode()


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_tag_parameters(home: Home, algorithm: str) -> None:
    """`tag-param-sha256` and `tag-param-sha512`: at least ten tags, each of which answers with that digest."""
    image = home.image()
    digest = f"{algorithm}:{hashlib.new(algorithm, image.body).hexdigest()}"
    tags = [f"param-{number}" for number in range(12)]
    answer = home.put(image, f"{digest}?" + "&".join(f"tag={tag}" for tag in tags))
    assert (answer.status_code, answer.headers["docker-content-digest"]) == (201, digest)
    assert answer.headers.get_list("oci-tag") == tags
    assert home.tags() == sorted(tags)
    for reference in (*tags, digest):
        for method in ("HEAD", "GET"):
            assert home.get(reference, method).headers["docker-content-digest"] == digest


def test_bad_digest_image(home: Home) -> None:
    """A manifest pushed under a wrong digest is 400."""
    assert home.put(home.image(), sha256(b"wrong")).status_code == 400


def test_an_empty_registry_lists_nothing(client: Client) -> None:
    """`empty/tag list` may be 404, `empty/referrers` is an empty index."""
    name = new_repository()
    assert client.ask("GET", f"/v2/{name}/tags/list").status_code == 404
    answer = client.ask("GET", f"/v2/{name}/referrers/{sha256(b'')}")
    assert (answer.status_code, answer.json()["manifests"]) == (200, [])


def test_malformed_digests_of_manifests(home: Home) -> None:
    """`invalid-digest-format`: 400 to put; to get, 400 in the JSON of every error."""
    assert home.put(home.image(), "sha256:baddigeststring").status_code == 400
    for reference in ("sha256:baddigeststring", "sha256:totallywrong"):
        answer = home.get(reference)
        assert (answer.status_code, code(answer)) == (400, "DIGEST_INVALID")


def test_discovery(home: Home) -> None:
    """The first program's workflow: halves of the tag list, five referrers of a subject, two of them of one type."""
    tags = ["test0", "test1", "test2", "test3"]
    for tag in tags:
        home.push(home.image(), tag)
    assert home.tags() == tags
    assert home.tags("?n=2") == tags[:2]
    assert home.tags("?n=2&last=test1") == tags[2:]
    subject = home.push(home.image())
    kinds = ["application/vnd.a", "application/vnd.b"]
    about = {"subject": subject.descriptor}
    five = [
        *(artifact(**about, artifactType=kind, annotations={"kind": kind}) for kind in kinds),
        *(artifact(**about, artifactType=kinds[0], layers=[], annotations={"n": str(number)}) for number in range(1)),
        home.image(**about),
        index([], **about, artifactType=kinds[1] + "x"),
    ]
    for each in five:
        answer = home.put(each)
        assert (answer.status_code, answer.headers["oci-subject"]) == (201, subject.digest)
    listed = home.referrers(subject.digest)
    assert len(listed) == 5
    assert {each["mediaType"] for each in listed} == {OCI_MANIFEST, OCI_INDEX}
    answer = home.client.ask("GET", f"/v2/{home.name}/referrers/{subject.digest}?artifactType={kinds[0]}")
    assert len(answer.json()["manifests"]) == 2
    assert answer.headers["oci-filters-applied"] == "artifactType"
    assert home.referrers(sha256(b"never seen")) == []


@pytest.mark.parametrize("manifests_first", [True, False])
def test_management(home: Home, manifests_first: bool) -> None:
    """A tag, then the manifest, then the blobs; or the blobs before it. The tag list is one shorter."""
    image = home.push(home.push(home.image(), "tag"), "other")
    blobs = [sha256(data) for data in (home.config, *home.layers)]

    def delete_blobs() -> None:
        for digest in blobs:
            assert home.client.blob(home.name, digest, "DELETE").status_code == 202
            assert home.client.blob(home.name, digest).status_code == 404

    if not manifests_first:
        delete_blobs()
    assert home.delete("tag") == 202
    assert home.tags() == ["other"]
    assert home.delete(image.digest) == 202
    assert home.get(image.digest).status_code == 404
    assert home.tags() == []
    if manifests_first:
        delete_blobs()
