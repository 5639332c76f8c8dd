"""Manifests over real sockets: what is taken, what is refused, and that it comes back byte for byte."""

from __future__ import annotations

import json
from contextlib import closing
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import pytest

from api.v2.settings import V2Settings
from tests.wire.harness import PATIENCE_S
from tests.wire.v2.content import (
    CONFIG,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    LAYER,
    OCI_INDEX,
    OCI_MANIFEST,
    TYPES,
    Document,
    Home,
    descriptor,
    document,
    index,
)
from tests.wire.v2.pushing import Client, Pushed, code, sha256, sha512

ABSENT = sha256(b"nobody pushed this")
FOREIGN = (
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
)


@pytest.fixture
def home(client: Client) -> Home:
    return Home(client)


@pytest.mark.parametrize("http2", [False, True])
@pytest.mark.parametrize("reference", ["latest", ""])
def test_a_manifest_comes_back_byte_for_byte(registry: Pushed, reference: str, http2: bool) -> None:
    """By tag and by digest, with the same headers to GET and HEAD, whatever `Accept` says."""
    client = registry.client(http2=http2)
    home = Home(client)
    image = home.image()
    answer = home.put(image, reference)
    assert answer.status_code == 201
    assert answer.headers["location"] == home.path(image.digest)
    assert answer.headers["docker-content-digest"] == image.digest
    for asked in (reference or image.digest, image.digest):
        for accept in ("application/vnd.docker.distribution.manifest.list.v2+json", "*/*", ", ".join(TYPES)):
            got, head = home.get(asked, accept=accept), home.get(asked, "HEAD", accept=accept)
            assert (got.status_code, got.content, head.content) == (200, image.body, b"")
            assert dict(got.headers) | {"date": ""} == dict(head.headers) | {"date": ""}
            assert got.headers["content-type"] == OCI_MANIFEST
            assert got.headers["content-length"] == str(len(image.body))
            assert got.headers["docker-content-digest"] == image.digest
            assert got.headers["etag"] == f'"{image.digest}"'
            assert got.headers["docker-distribution-api-version"] == "registry/2.0"
    client.close()


@pytest.mark.parametrize("size", [1_000, 65_000, 66_000, 1_000_000, 4_150_000])
def test_manifests_of_every_size_are_taken(home: Home, size: int) -> None:
    """Annotations of ten thousand bytes each, as conformance programs send; clients pull up to 4.19 MiB."""
    image = home.image(annotations={f"a{at}": "x" * min(10_000, size - at) for at in range(0, size, 10_000)})
    assert len(image.body) >= size
    home.push(image, "large")
    got = home.get("large")
    assert (got.content, got.headers["content-length"]) == (image.body, str(len(image.body)))
    assert home.get(image.digest, "HEAD").headers["content-length"] == str(len(image.body))
    assert home.get(image.digest, if_none_match=f'"{image.digest}"').status_code == 304
    assert home.delete(image.digest) == 202
    assert home.get("large").status_code == 404


def test_a_manifest_that_is_too_large_is_refused_before_it_is_read(home: Home) -> None:
    """413; the limit is a setting."""
    answer = home.put(Document(b" " * (32 << 20), OCI_MANIFEST), "huge")
    assert (answer.status_code, code(answer)) == (413, "SIZE_INVALID")


@pytest.mark.parametrize("media_type", [OCI_MANIFEST, DOCKER_MANIFEST])
def test_images_of_both_families_are_taken(home: Home, media_type: str) -> None:
    """The type is the one it was pushed with, without parameters."""
    image = home.image(media_type)
    assert home.put(image, "t", content_type=f"{media_type}; charset=utf-8").status_code == 201
    assert home.get("t").headers["content-type"] == media_type


@pytest.mark.parametrize("media_type", [OCI_INDEX, DOCKER_LIST])
def test_indexes_of_both_families_are_taken(home: Home, media_type: str) -> None:
    """With children, nested, and empty."""
    child = home.push(home.image())
    inner = home.push(index([child], media_type))
    outer = home.push(index([inner, child], media_type), "outer")
    empty = home.push(index([], media_type), "empty")
    for each in (inner, outer, empty):
        got = home.get(each.digest)
        assert (got.content, got.headers["content-type"]) == (each.body, media_type)


def test_a_document_may_leave_its_type_to_the_header(home: Home) -> None:
    """Or the header to it; one of the two must say it."""
    bare = Document(home.image().body.replace(b'"mediaType": "' + OCI_MANIFEST.encode() + b'",', b"", 1), OCI_MANIFEST)
    assert b"manifest.v1" not in bare.body
    home.push(bare)
    assert home.get(bare.digest).headers["content-type"] == OCI_MANIFEST
    image = home.image()
    assert home.client.ask("PUT", home.path("untold"), image.body).status_code == 201
    assert home.get("untold").headers["content-type"] == OCI_MANIFEST
    assert code(home.client.ask("PUT", home.path("untold"), bare.body)) == "MANIFEST_INVALID"


@pytest.mark.parametrize("layers", [[], None])
def test_an_image_may_have_no_layers(home: Home, layers: list[object] | None) -> None:
    """An empty list, or how some encoders write one."""
    home.push(home.image(layers=layers), "no-layers")


def test_an_artifact_may_carry_anything(home: Home) -> None:
    """Unknown types, custom fields, inlined data."""
    home.client.push(home.name, b"{}")
    empty = descriptor(b"{}", "application/vnd.oci.empty.v1+json", data="e30=")
    artifact = document(
        {
            "artifactType": "application/vnd.example+json",
            "config": empty,
            "layers": [empty | {"org.example": 1}],
            "org.example.custom": {"deep": [None, True, 1.5]},
            "annotations": {"a": "b"},
        }
    )
    home.push(artifact)
    assert home.get(artifact.digest).content == artifact.body


@pytest.mark.parametrize("media_type", FOREIGN)
def test_layers_that_may_not_be_distributed_need_not_be_here(home: Home, media_type: str) -> None:
    """If the descriptor says where else they are, and only then."""
    layer = {"mediaType": media_type, "digest": ABSENT, "size": 5}
    home.push(home.image(layers=[layer | {"urls": ["https://example.com/layer"]}]), "foreign")
    answer = home.put(home.image(layers=[layer]), "foreign")
    assert (answer.status_code, code(answer)) == (400, "MANIFEST_BLOB_UNKNOWN")


@pytest.mark.parametrize("media_type", [LAYER, CONFIG])
def test_urls_excuse_no_other_layer(home: Home, media_type: str) -> None:
    """What may be distributed has to be here."""
    layer = {"mediaType": media_type, "digest": ABSENT, "size": 5, "urls": ["https://example.com/layer"]}
    assert code(home.put(home.image(layers=[layer]), "t")) == "MANIFEST_BLOB_UNKNOWN"


@pytest.mark.parametrize(
    "more",
    [
        {"config": {"mediaType": CONFIG, "digest": ABSENT, "size": 1}},
        {"layers": [{"mediaType": LAYER, "digest": ABSENT, "size": 1}]},
    ],
)
def test_a_manifest_that_names_what_is_not_here_is_refused(home: Home, more: dict[str, object]) -> None:
    """400 that says which, and nothing is stored."""
    image = home.image(**more)
    for reference in ("t", image.digest):
        answer = home.put(image, reference)
        assert (answer.status_code, code(answer)) == (400, "MANIFEST_BLOB_UNKNOWN")
        assert answer.json()["errors"][0]["detail"]["missing"] == [ABSENT]
        assert home.get(reference).status_code == 404


def test_a_blob_of_another_repository_is_not_here(home: Home) -> None:
    """Whoever knows a digest does not get at it by naming it."""
    other = Home(home.client, config=b"their config")
    assert code(home.put(other.image(), "theirs")) == "MANIFEST_BLOB_UNKNOWN"
    assert home.client.blob(home.name, sha256(b"their config")).status_code == 404


def test_the_children_of_an_index_must_be_here(home: Home) -> None:
    """As manifests: a blob of the same bytes is none. What is no manifest may be a blob, as in build caches."""
    child = home.image()
    assert code(home.put(index([child]), "t")) == "MANIFEST_BLOB_UNKNOWN"
    home.client.push(home.name, child.body)
    assert code(home.put(index([child]), "t")) == "MANIFEST_BLOB_UNKNOWN"
    home.push(child)
    home.push(index([child]), "t")
    home.push(index([descriptor(home.layers[0], LAYER)]), "cache")
    assert code(home.put(index([{"mediaType": LAYER, "digest": ABSENT, "size": 1}]), "t")) == "MANIFEST_BLOB_UNKNOWN"


DEEP = b"[" * 100_000
GOOD: dict[str, Any] = {"config": descriptor(b"", CONFIG)}
BAD_DESCRIPTORS: list[object] = [
    None,
    5,
    "text",
    [],
    {},
    {"mediaType": CONFIG, "size": 1},
    {"digest": ABSENT, "size": 1},
    {"mediaType": CONFIG, "digest": ABSENT},
    {"mediaType": CONFIG, "digest": ABSENT, "size": -1},
    {"mediaType": CONFIG, "digest": ABSENT, "size": True},
    {"mediaType": CONFIG, "digest": ABSENT, "size": 1.5},
    {"mediaType": CONFIG, "digest": "sha256:short", "size": 1},
    {"mediaType": CONFIG, "digest": "md5:d41d8cd98f00b204e9800998ecf8427e", "size": 1},
    {"mediaType": 5, "digest": ABSENT, "size": 1},
    {"mediaType": CONFIG, "digest": 5, "size": 1},
]


@pytest.mark.parametrize("bad", BAD_DESCRIPTORS)
@pytest.mark.parametrize("where", ["config", "layers", "manifests", "subject"])
def test_a_descriptor_must_be_one(home: Home, bad: object, where: str) -> None:
    """400 for every other shape, wherever it stands; only a subject may be null."""
    match where:
        case "manifests":
            manifest = document({"manifests": [bad]}, OCI_INDEX)
        case "layers":
            manifest = home.image(layers=[bad])
        case _:
            manifest = home.image(**{where: bad})
    answer = home.put(manifest, "t")
    if where == "subject" and bad is None:
        assert answer.status_code == 201
    else:
        assert (answer.status_code, code(answer)) == (400, "MANIFEST_INVALID"), answer.text


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"{}",
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b'{"schemaVersion": NaN}',
        DEEP,
        b'{"a":' * 100_000,
        b'{"schemaVersion": 2, "x": ' + b"9" * 5_000 + b"}",
        json.dumps({"schemaVersion": 1, "name": "a", "tag": "b", "fsLayers": [], "history": []}).encode(),
        json.dumps({**GOOD, "layers": []}).encode(),
        json.dumps({**GOOD, "schemaVersion": True}).encode(),
        json.dumps({**GOOD, "schemaVersion": "2"}).encode(),
        json.dumps({**GOOD, "schemaVersion": 2.0}).encode(),
        json.dumps({**GOOD, "schemaVersion": 2, "config": {**GOOD["config"], "size": 1 << 63}}).encode(),
        json.dumps({**GOOD, "schemaVersion": 2, "layers": {}}).encode(),
        json.dumps({**GOOD, "schemaVersion": 2, "layers": "text"}).encode(),
        json.dumps({**GOOD, "schemaVersion": 2, "annotations": {"a": 1}}).encode(),
        json.dumps({**GOOD, "schemaVersion": 2, "annotations": []}).encode(),
        json.dumps({**GOOD, "schemaVersion": 2, "artifactType": 1}).encode(),
        json.dumps({**GOOD, "schemaVersion": 2, "mediaType": 1}).encode(),
        json.dumps({**GOOD, "schemaVersion": 2, "mediaType": OCI_INDEX}).encode(),
        json.dumps({**GOOD, "schemaVersion": 2, "manifests": []}).encode(),
        json.dumps({"schemaVersion": 2, "layers": []}).encode(),
        json.dumps({**GOOD, "schemaVersion": 2, "Layers": []}).encode(),
        json.dumps({**GOOD, "schemaVersion": 2, "layer\u017f": []}).encode(),  # whose upper case is the one of "layers"
        json.dumps({**GOOD, "schemaVersion": 2, "Subject": None}).encode(),
        json.dumps({**GOOD, "schemaVersion": 2, "config": {**GOOD["config"], "Digest": ABSENT}}).encode(),
    ],
)
def test_what_is_no_manifest_is_refused(home: Home, body: bytes) -> None:
    """400 MANIFEST_INVALID, whatever strangers send."""
    answer = home.put(Document(body, OCI_MANIFEST), "t")
    assert (answer.status_code, code(answer)) == (400, "MANIFEST_INVALID"), answer.text
    assert home.get("t").status_code == 404


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        "application/vnd.oci.artifact.manifest.v1+json",
        "application/json",
        "text/plain",
        CONFIG,
    ],
)
def test_other_kinds_of_documents_are_refused(home: Home, media_type: str) -> None:
    """Schema 1 included."""
    assert code(home.put(home.image(media_type), "t")) == "MANIFEST_INVALID"


@pytest.mark.parametrize("member", ["config", "layers"])
def test_a_document_is_not_two_things_at_once(home: Home, member: str) -> None:
    """An index with an image's members could be read either way."""
    assert code(home.put(index([], **{member: []}), "t")) == "MANIFEST_INVALID"


@pytest.mark.parametrize("algorithm", [sha256, sha512])
def test_a_digest_that_the_bytes_do_not_have_is_refused(home: Home, algorithm: Any) -> None:
    """400 DIGEST_INVALID, and nothing is stored under either."""
    image = home.image()
    answer = home.put(image, algorithm(b"something else"))
    assert (answer.status_code, code(answer)) == (400, "DIGEST_INVALID")
    assert home.get(image.digest).status_code == 404
    assert home.get(algorithm(b"something else")).status_code == 404


@pytest.mark.parametrize("media_type", [OCI_MANIFEST, DOCKER_MANIFEST])
def test_a_manifest_may_be_named_by_sha512(home: Home, media_type: str) -> None:
    """It answers to the algorithm it was pushed with; under another one it is not there."""
    image = home.image(media_type)
    answer = home.put(image, f"{image.digest512}?tag=a&tag=b")
    assert answer.status_code == 201
    assert answer.headers["docker-content-digest"] == image.digest512
    assert answer.headers["location"] == home.path(image.digest512)
    assert home.get(image.digest).status_code == 404
    for reference in (image.digest512, "a", "b"):
        got = home.get(reference)
        assert (got.content, got.headers["docker-content-digest"]) == (image.body, image.digest512)
    home.push(image)
    assert home.delete(image.digest512) == 202
    assert (home.get("a").status_code, home.get(image.digest).status_code) == (404, 200)


def test_pulling_an_absent_manifest_is_404(home: Home) -> None:
    """By tag and by digest, also where there is no such repository, and for algorithms that nobody knows here."""
    unknown = "blake3:" + "a" * 64
    for name in (home.name, "nobody/made-this"):
        for reference in ("absent", ABSENT, sha512(b""), unknown, f"sha256-{'a' * 64}.sig"):
            answer = home.client.ask("GET", f"/v2/{name}/manifests/{reference}")
            assert (answer.status_code, code(answer)) == (404, "MANIFEST_UNKNOWN")
            head = home.client.ask("HEAD", f"/v2/{name}/manifests/{reference}")
            assert (head.status_code, head.content) == (404, b"")
            assert head.headers["content-length"] == answer.headers["content-length"]


def test_deleting_a_tag_leaves_its_manifest(home: Home) -> None:
    """And every other tag."""
    image = home.push(home.push(home.image(), "one"), "two")
    assert home.delete("one") == 202
    assert (home.get("one").status_code, home.delete("one")) == (404, 404)
    assert home.get("two").content == home.get(image.digest).content == image.body


def test_deleting_a_manifest_takes_all_its_tags_along(home: Home) -> None:
    """And leaves those of others."""
    image, other = home.push(home.push(home.image(), "one"), "two"), home.push(home.numbered(1), "three")
    assert home.delete(image.digest) == 202
    assert home.get(image.digest).status_code == home.get("one").status_code == home.get("two").status_code == 404
    assert home.delete(image.digest) == 404
    assert home.tags() == ["three"]
    assert home.get("three").content == other.body


def test_deleting_an_index_leaves_its_children(home: Home) -> None:
    """And a child may go before its index."""
    child = home.push(home.image())
    outer = home.push(index([child]), "outer")
    assert home.delete(outer.digest) == 202
    assert home.get(child.digest).status_code == 200
    home.push(outer, "outer")
    assert home.delete(child.digest) == 202
    assert home.get("outer").content == outer.body


def test_a_moved_tag_leaves_the_old_manifest(home: Home) -> None:
    """It is pulled by digest until somebody deletes it."""
    old, new = home.push(home.numbered(1), "t"), home.push(home.numbered(2), "t")
    assert (home.get("t").content, home.get(old.digest).content) == (new.body, old.body)


def test_one_push_may_set_many_tags(home: Home) -> None:
    """With a line for each in the answer."""
    image, tags = home.image(), [f"v{number}" for number in range(20)]
    answer = home.put(image, f"{image.digest}?" + "&".join(f"tag={tag}" for tag in tags))
    assert answer.status_code == 201
    assert answer.headers.get_list("oci-tag") == tags
    assert home.tags() == sorted(tags)
    assert home.get("v7").content == image.body


def test_as_many_tags_as_one_push_may_set_leave_an_answer_that_clients_can_read(home: Home) -> None:
    """Python's own refuses an answer of more than 100 headers, after the push."""
    image, most = home.image(), V2Settings().max_push_tags
    place = urlsplit(str(home.client.speech.base_url))
    query = "&".join(f"tag=v{number}" for number in range(most))
    with closing(HTTPConnection(place.hostname or "", place.port, timeout=PATIENCE_S)) as connection:
        path = f"/v2/{home.name}/manifests/{image.digest}?{query}"
        connection.request("PUT", path, image.body, {"Content-Type": image.type})
        answer = connection.getresponse()
        assert answer.status == 201
        assert len(answer.headers.get_all("oci-tag") or ()) == most
        assert len(answer.headers) <= 80, "a proxy adds some"


def test_too_many_tags_and_bad_ones_are_refused(home: Home) -> None:
    """414 and 400; none of them is set."""
    image = home.image()
    many = home.put(
        image, f"{image.digest}?" + "&".join(f"tag=v{number}" for number in range(V2Settings().max_push_tags + 1))
    )
    assert (many.status_code, code(many)) == (414, "TAG_INVALID")
    for bad in ("-a", ".", "a%2Fb", "a" * 129, "", "%C3%A4"):
        answer = home.put(image, f"{image.digest}?tag=good&tag={bad}")
        assert (answer.status_code, code(answer)) == (400, "TAG_INVALID")
    assert home.tags() == []


def test_a_push_may_be_conditional(home: Home) -> None:
    """`If-None-Match: *` makes a tag once; `If-Match` moves it only from where the client saw it. 412 otherwise."""
    first, second = home.numbered(1), home.numbered(2)
    assert home.put(first, "t", if_match="*").status_code == 412
    assert home.put(first, "t", if_match=f'"{first.digest}"').status_code == 412
    assert home.get(first.digest).status_code == 404
    assert home.put(first, "t", if_none_match="*").status_code == 201
    refused = home.put(second, "t", if_none_match="*")
    assert (refused.status_code, code(refused)) == (412, "DENIED")
    assert refused.json()["errors"][0]["detail"] == {"reference": "t", "there": first.digest}
    assert home.put(second, "t", if_match=f'"{second.digest}"').status_code == 412
    assert home.get("t").content == first.body
    assert home.put(second, "t", if_match=f'"{ABSENT}", "{first.digest}"').status_code == 201
    assert home.put(first, "t", if_none_match=f'"{second.digest}"').status_code == 412
    assert home.put(first, "t", if_match="*").status_code == 201
    assert home.put(second, second.digest, if_none_match="*").status_code == 412
    assert home.put(home.numbered(3), home.numbered(3).digest, if_none_match="*").status_code == 201
    assert home.put(second, f"{second.digest}?tag=new&tag=t", if_none_match="*").status_code == 412
    assert home.get("new").status_code == 404


def test_a_client_that_has_it_gets_304(home: Home) -> None:
    """No body, no length, and the same entity tag; GET and HEAD alike."""
    image = home.push(home.image(), "t")
    for reference, kept in (("t", "no-cache"), (image.digest, "max-age=31536000, immutable")):
        for method in ("GET", "HEAD"):
            for condition in (f'"{image.digest}"', f'W/"{image.digest}"', f'"x", "{image.digest}"', "*"):
                answer = home.get(reference, method, if_none_match=condition)
                assert (answer.status_code, answer.content) == (304, b"")
                assert (answer.headers["etag"], answer.headers["cache-control"]) == (f'"{image.digest}"', kept)
    assert home.get("t", if_none_match=f'"{ABSENT}"').status_code == 200


def test_a_manifest_is_no_blob_and_a_blob_no_manifest(home: Home) -> None:
    """Clients ask at the other place after a 404; what is not there is 404, quickly."""
    image = home.push(home.image())
    assert code(home.client.blob(home.name, image.digest)) == "BLOB_UNKNOWN"
    assert home.get(sha256(home.config)).status_code == 404


def test_a_push_makes_the_repository(client: Client) -> None:
    """An empty index needs nothing that was pushed before."""
    tags = "/v2/made/by-push/tags/list"
    assert client.ask("GET", tags).status_code == 404
    empty = index([])
    answer = client.ask("PUT", "/v2/made/by-push/manifests/first", empty.body, content_type=empty.type)
    assert answer.status_code == 201
    assert client.ask("GET", tags).json() == {"name": "made/by-push", "tags": ["first"]}


def test_pushing_again_is_success(home: Home) -> None:
    """As often as one likes."""
    for _ in range(3):
        home.push(home.image(), "again")
    assert home.tags() == ["again"]
