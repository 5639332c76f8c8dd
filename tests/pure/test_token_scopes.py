"""Scopes as clients write them, and what is read out of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.access.bearer import Resource
from api.v2 import token_scopes

PULL = Resource("repository", "a/b", ("pull",))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("repository:a/b:pull", [PULL]),
        ("repository(plugin):a/b:pull", [PULL]),
        ("repository:a/b:push,pull", [Resource("repository", "a/b", ("pull", "push"))]),
        ("repository:a/b:*", [Resource("repository", "a/b", ("delete", "pull", "push"))]),
        ("repository:a/b:pull,fly", [PULL]),
        ("repository:a/b:", [Resource("repository", "a/b", ())]),
        ("repository:a/b:pull repository:c:pull", [PULL, Resource("repository", "c", ("pull",))]),
        ("repository:a/b:pull repository:a/b:push", [Resource("repository", "a/b", ("pull", "push"))]),
        ("registry:catalog:*", [Resource("registry", "catalog", ("*",))]),
        ("registry:catalog:search", [Resource("registry", "catalog", ("search",))]),
    ],
)
def test_a_scope_is_read_as_its_client_meant_it(text: str, expected: list[Resource]) -> None:
    """Types, classes, lists of actions, several scopes in one text, and the star."""
    assert token_scopes.parse([text]) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "::",
        "repository",
        "repository:",
        "repository:a",
        "repository::pull",
        "repository:A/b:pull",
        "repository:a//b:pull",
        "repository:../b:pull",
        "repository:a/b\x00:pull",
        "repository:" + "a" * 256 + ":pull",
        "repository():a/b:pull",
        "repository(plugin:a/b:pull",
        "Repository:a/b:pull",
        "registry:users:*",
        "image:a/b:pull",
        "repository:host:5000/a/b:pull",
    ],
)
def test_a_scope_that_makes_no_sense_is_left_out(text: str) -> None:
    """What nobody can be granted is no error, and does not take the others with it."""
    assert token_scopes.parse([text]) == []
    assert token_scopes.parse([text, "repository:a/b:pull"]) == [PULL]


def test_a_name_with_colons_is_split_off_at_the_last_one() -> None:
    """The actions are behind the last colon, so that what is left of it is no repository instead of a wrong one."""
    assert token_scopes.parse(["repository:host:5000:pull"]) == []


def test_what_one_token_can_speak_of_is_bounded() -> None:
    """A token travels in a header, so the thousandth repository is not granted; the first ones still are."""
    asked = [f"repository:r{number}:pull" for number in range(1000)]
    found = token_scopes.parse([*asked, "repository:r0:push"])
    assert [one.name for one in found] == [f"r{number}" for number in range(token_scopes.MOST)]
    assert found[0].actions == ("pull", "push")


def test_scopes_are_written_as_they_are_read() -> None:
    """Whatever is written in a challenge comes back as the same wish."""
    resources = [
        Resource("repository", "a/b", ("pull", "push")),
        Resource("repository", "c", ("pull",)),
        Resource("registry", "catalog", ("*",)),
    ]
    text = token_scopes.write(resources)
    assert text == "repository:a/b:pull,push repository:c:pull registry:catalog:*"
    assert token_scopes.parse([text]) == resources


@given(st.lists(st.text() | st.from_regex(r"(repository|registry)(\(\w+\))?:[a-z:/.]*:[a-z,*]*")))
def test_no_text_is_too_strange_to_be_read(texts: list[str]) -> None:
    """Strangers write scopes: each is understood, or left out."""
    for one in token_scopes.parse(texts):
        assert token_scopes.parse([token_scopes.write([one])]) == [one]
