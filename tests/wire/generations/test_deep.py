"""What nests too deeply to be read comes in no more; what an older version let in stops nobody."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.content import usage
from api.content.repository import Repository
from api.strict import DEEPEST
from api.v2 import document
from tests.content.test_collect import sweep
from tests.wire.generations.both import Both, Sample, both, new_tar
from tests.wire.v1.talk import new_id
from tests.wire.v2.content import Document
from tests.wire.v2.pushing import code, sha256

HOME = "some/thing"
DEPTHS = (DEEPEST + 1, 985, 100_000)  # 985 is as deep as a stack of Python's usual size can read


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Both]:
    with both(tmp_path / "root") as registry:
        yield registry


def deep(document: Document, depth: int) -> Document:
    """The same manifest with one more member, of lists within each other."""
    nested = b"[" * (depth - 1) + b"]" * (depth - 1)
    return Document(document.body.rstrip().removesuffix(b"}") + b', "zz": ' + nested + b"}", document.type)


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_manifest_that_nests_too_deeply_is_refused(registry: Both, depth: int) -> None:
    """By a depth that is always the same; one less is taken."""
    sample = Sample([new_tar()])
    registry.push(HOME, sample)
    answer = registry.client.ask(
        "PUT", f"/v2/{HOME}/manifests/deep", deep(sample.manifest, depth).body, content_type=sample.manifest.type
    )
    assert (answer.status_code, code(answer)) == (400, "MANIFEST_INVALID")
    assert str(DEEPEST) in answer.text
    registry.put(HOME, deep(sample.manifest, DEEPEST), "deep")
    assert registry.image(HOME, "deep") == registry.image(HOME)


@pytest.mark.parametrize("depth", DEPTHS)
def test_an_image_json_that_nests_too_deeply_is_refused(registry: Both, depth: int) -> None:
    """With the words of Registry v1."""
    image_id = new_id()
    body = json.dumps({"id": image_id})[:-1].encode() + b', "zz": ' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"
    answer = registry.registry.ask("PUT", f"/v1/images/{image_id}/json", body)
    assert (answer.status, answer.value) == (400, {"error": "Invalid JSON"})


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_deep_manifest_of_an_older_version_stops_nobody(registry: Both, depth: int) -> None:
    """What it names is kept, the collection goes on to its end, what it takes is told, and the other tags are shown."""
    sample, other = Sample([new_tar()]), Sample([new_tar()])
    registry.push(HOME, other, "other")
    for blob in (sample.config, *sample.layers):
        registry.client.push(HOME, blob)
    old = deep(sample.manifest, depth)
    with pytest.MonkeyPatch.context() as patch:  # as a version that did not look at the depth took it
        patch.setattr(document, "_load", lambda _body: json.loads(sample.manifest.body))
        registry.put(HOME, old, "old")
    unused = registry.client.push(HOME, b"nobody names this")

    swept = sweep(registry.pushed, 2)
    assert swept.removed == {"blobs that no manifest of their repository names": 1}
    assert registry.client.blob(HOME, unused).status_code == 404
    assert registry.client.blob(HOME, sha256(sample.layers[0])).status_code == 200
    assert registry.manifest(HOME, "old").content == old.body

    report = usage.of_repository(registry.store, Repository.of(HOME))
    taken = {line.name: line.logical for line in report.lines}
    assert taken["old"] == len(old.body) + len(sample.config) + sum(map(len, sample.layers))

    tags = registry.tags_v1(HOME)
    assert tags.keys() == {"other"}
    answer = registry.registry.ask("GET", f"/v1/repositories/{HOME}/images")
    assert answer.status == 200
    assert tags["other"] in {each["id"] for each in answer.value}
    assert registry.image(HOME, "old") is None
