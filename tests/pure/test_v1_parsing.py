"""JSON from strangers: what is read out of it, and the exact words of every refusal."""

from __future__ import annotations

import json

import pytest

from api.errors import ApiError
from api.v1 import parsing

ID, PARENT = "1a" * 32, "2b" * 32


def refusal(parse: object, *arguments: object) -> tuple[int, str]:
    assert callable(parse)
    with pytest.raises(ApiError) as caught:
        parse(*arguments)
    return caught.value.status, caught.value.message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b"null",
        b'"x"',
        b"3",
        b"\xff\xfe",
        b'{"id": NaN}',
        pytest.param(b"[" * 100_000, id="deep list"),
        pytest.param(b'{"a":' * 100_000, id="deep object"),
        b"\xef\xbb\xbf{}",
        '{"id":"x"}'.encode("utf-16"),
        pytest.param(b'{"id":' + b"9" * 10_000 + b"}", id="long number"),
    ],
)
def test_an_image_json_is_an_object_with_content(body: bytes) -> None:
    """Not JSON, not UTF-8, nested to the bottom of the stack, or empty: all the same."""
    assert refusal(parsing.image_json, body, ID) == (400, "Invalid JSON")


def test_an_image_json_must_have_an_id() -> None:
    """With the reference's odd quotes."""
    assert refusal(parsing.image_json, b'{"x": 1}', ID) == (400, "Missing key `id' in JSON")


@pytest.mark.parametrize("other", [PARENT, "", None, 1, [ID], ID.upper(), ID + "\n"])
def test_an_image_json_must_have_the_id_of_its_path(other: object) -> None:
    """Any other value, of any type."""
    body = json.dumps({"id": other}).encode()
    assert refusal(parsing.image_json, body, ID) == (400, "JSON data contains invalid id")


@pytest.mark.parametrize("parent", [1, [], {}, True, "x", PARENT.upper(), PARENT[:16]])
def test_a_parent_that_no_image_can_have_does_not_exist(parent: object) -> None:
    """Whatever its type."""
    body = json.dumps({"id": ID, "parent": parent}).encode()
    assert refusal(parsing.image_json, body, ID) == (400, "Image depends on a non existing parent")


@pytest.mark.parametrize(
    ("content", "parent"),
    [
        ({"id": ID}, None),
        ({"id": ID, "parent": None}, None),
        ({"id": ID, "parent": ""}, None),
        ({"id": ID, "parent": PARENT}, PARENT),
        ({"parent": PARENT, "id": ID, "Size": 3, "created": "never", "os": 5}, PARENT),
    ],
)
def test_nothing_but_id_and_parent_is_demanded_or_looked_at(content: object, parent: str | None) -> None:
    """Engines since 1.10 send no more for all but the top."""
    assert parsing.image_json(json.dumps(content).encode(), ID) == parent


def test_an_image_list_may_repeat_ids_and_carry_tags() -> None:
    """One entry for every tag; a checksum given once is kept."""
    body = [
        {"id": ID},
        {"id": PARENT, "Tag": "latest"},
        {"id": PARENT, "Tag": "1.0", "checksum": "tarsum+sha256:0"},
    ]
    again = [*body, {"id": PARENT, "Tag": "x", "checksum": ""}]
    assert parsing.image_list(json.dumps(again).encode()) == {ID: None, PARENT: "tarsum+sha256:0"}
    assert parsing.image_list(b"[]") == {}


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"nonsense"])
def test_an_image_list_that_is_no_json(body: bytes) -> None:
    """Its own words, unlike those for an image."""
    assert refusal(parsing.image_list, body) == (400, "Error Decoding JSON")


@pytest.mark.parametrize(
    "content",
    [
        {},
        "x",
        None,
        3,
        ["x"],
        [{}],
        [{"id": None}],
        [{"id": "x"}],
        [{"id": ID, "checksum": 3}],
        [{"id": ID, "checksum": "x" * 300}],
        [[ID]],
        [{"id": ID.upper()}],
    ],
)
def test_an_image_list_of_something_else(content: object) -> None:
    """An entry without an id crashed the reference; here it is the sender's mistake."""
    assert refusal(parsing.image_list, json.dumps(content).encode()) == (400, "Invalid data")


@pytest.mark.parametrize("body", [b"", b'""', b"{}", b"null", b"[]", b"1", b"\xff", ID.encode()])
def test_a_tag_target_is_a_json_string(body: bytes) -> None:
    """Bare text is not."""
    assert refusal(parsing.tag_target, body) == (400, "Invalid data")


def test_a_tag_target_that_no_image_can_have_is_not_found() -> None:
    """Like any other image that is not there."""
    assert refusal(parsing.tag_target, b'"latest"') == (404, "Image not found")
    assert parsing.tag_target(json.dumps(ID).encode() + b"\n") == ID


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"null", b'{"x": 1}', b'{"access": 1}', b"\xff"])
def test_properties_without_access_are_refused(body: bytes) -> None:
    """The reference crashed on some of these."""
    assert refusal(parsing.access, body) == (400, "Invalid data")
    assert parsing.access(b'{"access": "private"}') == "private"
