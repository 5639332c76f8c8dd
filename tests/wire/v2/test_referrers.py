"""Referrers over real sockets: always an answer, and a true one."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from api.v2.settings import V2Settings
from tests.wire.v2.content import CONFIG, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Document, Home, index
from tests.wire.v2.pushing import Client, Pushed, code, pushing, sha256, sha512

SBOM, SIGNATURE = "application/vnd.example.sbom+json", "application/vnd.example.signature"


@pytest.fixture
def home(client: Client) -> Home:
    return Home(client)


def about(home: Home, subject: Document, **more: Any) -> Document:
    return home.image(subject=subject.descriptor, **more)


def shown(document: Document, artifact_type: str | None, **more: object) -> dict[str, Any]:
    return document.descriptor | ({"artifactType": artifact_type} if artifact_type else {}) | more


def by_digest(descriptors: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(descriptors, key=lambda each: str(each["digest"]))


def test_what_nobody_knows_has_no_referrers_and_is_no_404(home: Home) -> None:
    """Also in a repository that is not there, and for algorithms that nobody knows here."""
    zero = "sha256:" + "0" * 64
    for name in (home.name, "nobody/made-this"):
        for digest in (zero, sha512(b"x"), "blake3:" + "a" * 64):
            path = f"/v2/{name}/referrers/{digest}"
            answer, head = home.client.ask("GET", path), home.client.ask("HEAD", path)
            assert answer.status_code == head.status_code == 200
            assert answer.headers["content-type"] == head.headers["content-type"] == OCI_INDEX
            assert answer.json() == {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
            assert (head.content, head.headers["content-length"]) == (b"", str(len(answer.content)))


@pytest.mark.parametrize("digest", ["sha256:short", "latest", "sha256:" + "A" * 64, "sha256:" + "a" * 63, "a:b:c"])
def test_a_malformed_digest_is_refused(home: Home, digest: str) -> None:
    """400, as everywhere; so is one to begin behind."""
    answer = home.client.ask("GET", f"/v2/{home.name}/referrers/{digest}")
    assert (answer.status_code, code(answer)) == (400, "DIGEST_INVALID")
    answer = home.client.ask("GET", f"/v2/{home.name}/referrers/{sha256(b'')}?last={digest}")
    assert (answer.status_code, code(answer)) == (400, "DIGEST_INVALID")


def test_everything_about_a_subject_is_listed_with_what_it_is(home: Home) -> None:
    """Images by their config's type, artifacts by their own, an index by its own or none; annotations in full."""
    subject = home.push(home.image(), "subject")
    image = about(home, subject, annotations={"b": "\u00e4", "a": "x" * 5_000})
    artifact, docker = about(home, subject, artifactType=SBOM), about(home, subject, mediaType=DOCKER_MANIFEST)
    docker.type = DOCKER_MANIFEST
    untyped, typed = index([], subject=subject.descriptor), index([], subject=subject.descriptor, artifactType=SBOM)
    for each in (image, artifact, docker, untyped, typed):
        answer = home.put(each)
        assert (answer.status_code, answer.headers["oci-subject"]) == (201, subject.digest)
    expected = [
        shown(image, CONFIG, annotations={"b": "\u00e4", "a": "x" * 5_000}),
        shown(artifact, SBOM),
        shown(docker, CONFIG),
        shown(untyped, None),
        shown(typed, SBOM),
    ]
    assert by_digest(home.referrers(subject.digest)) == by_digest(expected)
    assert "oci-subject" not in home.put(home.image()).headers


def test_a_filter_is_applied_and_says_so(home: Home) -> None:
    """Percent-encoded or not; without one, no header."""
    subject = home.push(home.image(), "subject")
    sbom = home.push(about(home, subject, artifactType=SBOM))
    home.push(about(home, subject, artifactType=SIGNATURE))
    path = f"/v2/{home.name}/referrers/{subject.digest}"
    for text in (SBOM.replace("+", "%2B"), quote(SBOM, safe="")):
        answer = home.client.ask("GET", f"{path}?artifactType={text}")
        assert answer.json()["manifests"] == [shown(sbom, SBOM)]
        assert answer.headers["oci-filters-applied"] == "artifactType"
    nothing = home.client.ask("GET", f"{path}?artifactType=application/none")
    assert (nothing.json()["manifests"], nothing.headers["oci-filters-applied"]) == ([], "artifactType")
    for unfiltered in (home.client.ask("GET", path), home.client.ask("GET", f"{path}?artifactType=")):
        assert "oci-filters-applied" not in unfiltered.headers
        assert len(unfiltered.json()["manifests"]) == 2


def test_a_subject_need_not_be_there(home: Home) -> None:
    """It may come later, or never; of whichever algorithm it is."""
    subject = home.numbered(7)
    for digest in (subject.digest, subject.digest512):
        one = home.push(home.image(subject=subject.descriptor | {"digest": digest}))
        assert home.referrers(digest) == [shown(one, CONFIG)]
    home.push(subject)
    assert len(home.referrers(subject.digest)) == 1


def test_a_referrer_may_itself_be_named_by_sha512(home: Home) -> None:
    """The list shows the name it was pushed with; deleting that takes it out."""
    name = "n" * 60 + "/" + "/".join(["m" * 60] * 3)
    longest = Home(home.client, name=name + "/" + "p" * (255 - len(name) - 1))
    subject = longest.numbered(8)
    artifact = longest.image(subject=subject.descriptor | {"digest": subject.digest512}, artifactType=SBOM)
    answer = longest.put(artifact, artifact.digest512)
    assert (answer.status_code, answer.headers["oci-subject"]) == (201, subject.digest512)
    assert longest.referrers(subject.digest512) == [shown(artifact, SBOM) | {"digest": artifact.digest512}]
    assert longest.delete(artifact.digest512) == 202
    assert longest.referrers(subject.digest512) == []


def test_a_deleted_referrer_is_not_listed(home: Home) -> None:
    """Its tag may go without it; the subject may go without its referrers."""
    subject = home.push(home.image(), "subject")
    artifact = home.push(about(home, subject, artifactType=SBOM), "artifact")
    assert home.delete("artifact") == 202
    assert home.delete(subject.digest) == 202
    assert home.referrers(subject.digest) == [shown(artifact, SBOM)]
    assert home.delete(artifact.digest) == 202
    assert home.referrers(subject.digest) == []


def test_referrers_are_those_of_one_repository(home: Home) -> None:
    """Another one has its own."""
    subject, other = home.push(home.image()), Home(home.client)
    home.push(about(home, subject))
    assert other.referrers(subject.digest) == []


def test_a_list_in_a_fallback_tag_adds_nothing_and_loses_nothing(home: Home) -> None:
    """What it lists was pushed as manifests with a subject, so each is here once, and the tag stays a tag."""
    subject = home.push(home.image(), "subject")
    artifact, stranger = home.push(about(home, subject, artifactType=SBOM)), home.push(home.numbered(9))
    tag = subject.digest.replace(":", "-")
    assert home.get(tag).status_code == 404
    fallback = home.push(index([artifact, stranger]), tag)
    assert home.referrers(subject.digest) == [shown(artifact, SBOM)]
    assert home.get(tag).content == fallback.body


def test_long_lists_come_in_pages_that_clients_can_read(registry: Pushed, home: Home) -> None:
    """Each under 4 MiB, every referrer once, with the filter kept from page to page."""
    subject = home.push(home.image())
    pushed = [
        home.push(about(home, subject, artifactType=SBOM, annotations={"n": str(number), "x": "y" * 900_000}))
        for number in range(8)
    ]
    for query in ("", f"?artifactType={quote(SBOM, safe='')}"):
        path, found, pages = f"/v2/{home.name}/referrers/{subject.digest}{query}", [], 0
        while path:
            answer = home.client.ask("GET", path)
            assert len(answer.content) < 4 << 20
            assert ("oci-filters-applied" in answer.headers) == bool(query)
            found += [each["digest"] for each in answer.json()["manifests"]]
            pages += 1
            path = answer.links.get("next", {}).get("url", "")
        assert sorted(found) == sorted(each.digest for each in pushed)
        assert pages == 3


def test_a_page_has_one_referrer_at_least(tmp_path: Path) -> None:
    """However large that is."""
    with (
        pushing(tmp_path / "root", v2=V2Settings(referrers_page_bytes=10)) as registry,
        closing(registry.client()) as client,
    ):
        home = Home(client)
        subject = home.numbered(0)
        first, second = (home.push(about(home, subject, annotations={"n": str(n)})) for n in range(2))
        answer = client.ask("GET", f"/v2/{home.name}/referrers/{subject.digest}")
        rest = client.ask("GET", answer.links["next"]["url"])
        digests = [each["digest"] for page in (answer, rest) for each in page.json()["manifests"]]
        assert sorted(digests) == sorted([first.digest, second.digest])
        assert "link" not in rest.headers


def test_the_type_of_a_referrer_is_the_one_it_was_pushed_with(home: Home) -> None:
    """In the list as in the answer to a GET."""
    artifact = home.push(about(home, home.image()))
    assert home.referrers(home.image().digest)[0]["mediaType"] == OCI_MANIFEST
    assert home.get(artifact.digest).headers["content-type"] == OCI_MANIFEST
