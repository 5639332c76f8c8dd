"""Images as values: from one generation's form to the other's, and back."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.bridge import to_v1, to_v2
from api.bridge.to_v1 import EMPTY, Blob, NoImage
from api.bridge.to_v2 import EMPTY_DIFF, NOTHING, Inside, Level, NotJson
from cas import Digest

# The example of the specification, byte for byte; its one layer is called 32 times `ab`.
CONFIG = (
    b'{"architecture":"amd64","config":{"Cmd":["/hello"]},"created":"2020-01-02T03:04:05Z","history":[{"created":'
    b'"2020-01-02T03:04:04Z","created_by":"ADD hello /"},{"created":"2020-01-02T03:04:05Z","created_by":"CMD '
    b'[\\"/hello\\"]","empty_layer":true}],"os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:'
    b'7dcc7c0f2143856a3b8ae96bf0e2bdaefc3e95094ebee8f938abde55283119f9"]}}'
)
LAYER = Blob(Digest("sha256", b"\xab" * 32), 1000)
FIRST = "2040c370850f0839e42251f1eccf14dcb7ea71ad63dde06497bf8a8694e1ceb2"
SECOND = "520506546d6346589fc02b6c564e78f603b197223c0adcb211fed400d6984e46"
MOST = 127


def chain(config: bytes, layers: list[Blob], most: int = MOST) -> list[tuple[str, bytes, Blob, bool]]:
    """Make a whole chain where no id is taken: id, json, layer and whether it is thrown away, base first."""
    source = to_v1.read(config, layers, most)
    found: list[tuple[str, bytes, Blob, bool]] = []
    for at, entry in enumerate(source.entries):
        image_id, body = source.derive(at, found[-1][0] if found else None)
        found.append((image_id, body, entry.blob, entry.is_empty))
    return found


def test_the_example_of_the_specification_comes_out_byte_for_byte() -> None:
    """Ids and json, the canonical empty layer for what changed no file."""
    assert len(CONFIG) == 372
    first, second = chain(CONFIG, [LAYER])
    assert first == (
        FIRST,
        b'{"id":"%s","created":"2020-01-02T03:04:04Z","container_config":{"Cmd":["ADD hello /"]}}' % FIRST.encode(),
        LAYER,
        False,
    )
    assert second[:2] == (
        SECOND,
        b'{"architecture":"amd64","config":{"Cmd":["/hello"]},"created":"2020-01-02T03:04:05Z","id":"%s",'
        b'"os":"linux","parent":"%s","throwaway":true}' % (SECOND.encode(), FIRST.encode()),
    )
    assert second[2:] == (EMPTY, True)


def test_the_empty_layer_is_the_canonical_one() -> None:
    """Its digest, packed and unpacked."""
    assert str(EMPTY.digest) == "sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4"
    assert str(EMPTY_DIFF) == "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
    assert EMPTY.size == 32


def test_an_image_of_one_entry_hashes_two_blanks() -> None:
    """One for the id that is not there."""
    config = json.dumps({"rootfs": {"diff_ids": ["x"]}, "history": [{}], "parent": "f" * 64}).encode()
    ((image_id, body, _, _),) = chain(config, [LAYER])
    assert image_id == hashlib.sha256(b"%s  %s" % (b"ab" * 32, config)).hexdigest()
    assert json.loads(body) == {"id": image_id}


def test_texts_are_written_as_engines_do() -> None:
    """In their order, markup escaped, empty ones left out, a time where there is none."""
    history = [{"comment": "é <&>", "author": "me", "created_by": ""}, {}]
    config = json.dumps({"rootfs": {"diff_ids": ["x", "y"]}, "history": history}).encode()
    (image_id, body, _, _), _ = chain(config, [LAYER, LAYER])
    said = '"comment":"é \\u003c\\u0026\\u003e","created":"0001-01-01T00:00:00Z","container_config":{"Cmd":[""]}'
    assert body.decode() == f'{{"id":"{image_id}",{said},"author":"me"}}'


def test_members_of_the_top_keep_their_inner_order_and_spelling() -> None:
    """Sorted by name outside, untouched inside."""
    config = b'{"z": {"b": 1.0, "a": "\\u00e9<"}, "A": [ ], "rootfs":{"diff_ids":["x"]},"history":[{"created_by":"x"}]}'
    ((image_id, body, _, _),) = chain(config, [LAYER])
    assert body == b'{"A":[],"id":"%s","z":{"b":1.0,"a":"\\u00e9\\u003c"}}' % image_id.encode()


def test_an_id_that_is_taken_is_followed_by_another_of_its_own() -> None:
    """It depends on what it is for; the json says it."""
    source = to_v1.read(CONFIG, [LAYER], MOST)
    image_id, body = source.derive(0, None)
    other, said = source.again(0, None, image_id, body)
    assert other == hashlib.sha256(f"{image_id} {hashlib.sha256(body).hexdigest()}".encode()).hexdigest()
    assert json.loads(said) == {**json.loads(body), "id": other}
    assert source.again(0, None, other, said)[0] not in {image_id, other}


@pytest.mark.parametrize(
    "config",
    [
        b"",
        b"[]",
        b"{}",
        b'{"rootfs":{"diff_ids":[]}}',
        b'{"rootfs":{"diff_ids":["x","y"]}}',
        b'{"rootfs":{"diff_ids":["x"],"base_layer":"windows"}}',
        b'{"rootfs":{"diff_ids":["x"]},"a":NaN}',
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_what_is_no_image_is_none(config: bytes) -> None:
    """Said, not guessed."""
    with pytest.raises(NoImage):
        to_v1.read(config, [LAYER], MOST)


@pytest.mark.parametrize("body", [b"", b"[]", b"\xff", b"{", b"[" * 100_000])
def test_json_that_cannot_be_read_makes_no_configuration(body: bytes) -> None:
    """Nobody can have pushed it by this server, but a folder may bring anything."""
    with pytest.raises(NotJson):
        to_v2.config([Level(body, NOTHING)])


LAYERS = st.integers(min_value=1, max_value=2**64).map(
    lambda number: Inside(
        Digest.of(b"diff %d" % number), has_entries=True, blob=Blob(Digest.of(b"blob %d" % number), number)
    )
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ENTRY = st.fixed_dictionaries(
    {"empty_layer": st.booleans()},
    optional={"created_by": TEXT, "comment": TEXT, "author": TEXT, "created": st.just("2020-01-02T03:04:05Z")},
)
RUN = st.dictionaries(TEXT, TEXT | st.integers() | st.lists(TEXT), max_size=4)


@given(st.lists(ENTRY, min_size=1, max_size=12), st.data())
def test_there_and_back_the_layers_and_what_is_run_are_the_same(
    history: list[dict[str, Any]], data: st.DataObject
) -> None:
    """From v2 to v1 to v2: layers, diff ids, which entries are empty, and the run configuration."""
    count = sum(not entry["empty_layer"] for entry in history)
    layers = data.draw(st.lists(LAYERS, min_size=count, max_size=count, unique=True))
    content = {
        "architecture": "arm64",
        "os": "linux",
        "docker_version": "20.10.0",
        "config": data.draw(RUN),
        "rootfs": {"type": "layers", "diff_ids": [str(each.diff) for each in layers]},
        "history": history,
    }
    images = chain(json.dumps(content).encode(), [each.blob for each in layers])
    assert len({image_id for image_id, *_ in images}) == len(history)
    inside = {each.blob: each for each in layers} | {EMPTY: NOTHING}
    config, blobs = to_v2.config([Level(body, inside[blob]) for _, body, blob, _ in images])
    back = json.loads(config)
    assert blobs == [each.blob for each in layers]
    for member in ("architecture", "os", "config", "rootfs"):
        assert back[member] == content[member], member
    assert [each.get("empty_layer", False) for each in back["history"]] == [each["empty_layer"] for each in history]
    assert [each.get("created_by", "") for each in back["history"][:-1]] == [
        each.get("created_by", "") for each in history[:-1]
    ]
    manifest = json.loads(to_v2.manifest(config, blobs))
    assert manifest["config"]["digest"] == str(Digest.of(config))
    assert [each["digest"] for each in manifest["layers"]] == [str(each.digest) for each in blobs]
