"""A manifest that names what damage took is refused as one that names what never came: clients push that then (I9)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.engine import noise
from tests.support.losing import lose
from tests.wire.v2.content import Document, Home, index
from tests.wire.v2.pushing import MIB, Pushed, code, pushing, sha256

LAYER = noise(2 * MIB)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Pushed]:
    with pushing(tmp_path / "root") as registry:
        yield registry


@pytest.fixture
def home(registry: Pushed) -> Iterator[Home]:
    with closing(registry.client()) as client:
        yield Home(client, layers=(LAYER, b"small"))


@pytest.mark.parametrize("is_stored", [True, False], ids=["stored", "new"])
@pytest.mark.parametrize("by", ["tag", "digest"])
def test_a_manifest_that_names_a_lost_layer_is_refused(
    registry: Pushed, home: Home, by: str, *, is_stored: bool
) -> None:
    """By tag and by digest, pushed before or not; once the layer was pushed it is taken, and can be pulled."""
    image = home.image()
    reference = "t" if by == "tag" else image.digest
    if is_stored:
        home.push(image, reference)
    lose(registry.store, sha256(LAYER))
    assert home.client.blob(home.name, sha256(LAYER), "HEAD").status_code == 404
    refused = home.put(image, reference)
    assert (refused.status_code, code(refused)) == (400, "MANIFEST_BLOB_UNKNOWN")
    assert refused.json()["errors"][0]["detail"]["missing"] == [sha256(LAYER)]
    home.client.push(home.name, LAYER)
    home.push(image, reference)
    assert home.client.blob(home.name, sha256(LAYER)).content == LAYER


def test_an_index_that_names_a_lost_manifest_is_refused(registry: Pushed, home: Home) -> None:
    """One so large that its bytes are a blob; pushed again, the index is taken."""
    child: Document = home.push(home.image(annotations={"x": "y" * (2 * MIB)}))
    whole = home.push(index([child]), "t")
    lose(registry.store, sha256(child.body))
    refused = home.put(whole, "t")
    assert (refused.status_code, code(refused)) == (400, "MANIFEST_BLOB_UNKNOWN")
    home.push(child)
    home.push(whole, "t")
    assert home.get(child.digest).content == child.body
