"""Names of Registry v1: what is accepted, what is not, and which two are the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.errors import ApiError
from api.v1 import names
from api.v1.names import RESERVED
from api.v1.names import repository as parse
from cas import Name

ID = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    "text", ["", ID[:-1], ID + "0", ID[:16], ID.upper(), ID[:-1] + "g", ID + "\n", "..", "\u0660" * 64]
)
def test_an_id_is_64_lower_case_hex_digits_and_nothing_else(text: str) -> None:
    """Upper case is refused, not folded: it would be a second name of one image."""
    with pytest.raises(ApiError) as caught:
        names.image_id(text)
    assert (caught.value.status, caught.value.message) == (404, "Invalid image ID")


def test_a_good_id_passes_as_it_is() -> None:
    """Unchanged."""
    assert names.image_id(ID) == ID


@pytest.mark.parametrize("tag", ["latest", "1.0", "_x", "A-b.c_d", "0", "x" * 128, "tags", "json", "V1"])
def test_good_tags(tag: str) -> None:
    """Any case, dots and dashes inside, up to 128 characters."""
    assert names.new_tag(tag) == tag


@pytest.mark.parametrize("tag", ["", ".x", "-x", "x" * 129, "a b", "a/b", "a:b", "latest\n", "é", "a\0", "..", "%41"])
def test_bad_tags_are_refused_with_the_known_words(tag: str) -> None:
    """A trailing newline does not slip through."""
    with pytest.raises(ApiError) as caught:
        names.new_tag(tag)
    assert (caught.value.status, caught.value.message) == (
        400,
        r"Invalid tag name (must match ^[\w][\w.-]{0,127}$)",
    )


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("foo", "library/foo"),
        ("library/foo", "library/foo"),
        ("foo/bar", "foo/bar"),
        ("a/b/c", "a/b/c"),
        ("a/tags/b", "a/tags/b"),
        ("my-org/my_app.x", "my-org/my_app.x"),
        ("a__b/c--d", "a__b/c--d"),
        ("_old_/x", "_old_/x"),
        ("n" * 200 + "/" + "r" * 54, "n" * 200 + "/" + "r" * 54),
    ],
)
def test_good_repositories(text: str, full: str) -> None:
    """Split at the first slash; without one, the library's."""
    assert str(parse(text)) == full


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "a/",
        "/a",
        "a//b",
        "Foo/bar",
        "foo/Bar",
        "-a/b",
        "a/-b",
        "a-/b",
        "a/b.",
        "a b/c",
        "a/b\n",
        "é/x",
        "a:b/c",
        "../x",
        "a/..",
        ".",
        "a\x00/b",
        "n" * 200 + "/" + "r" * 55,
        "%61/b",
        *sorted(RESERVED),
        *(f"a/{name}" for name in sorted(RESERVED)),
    ],
)
def test_bad_repositories_are_refused(text: str) -> None:
    """Also the ones whose last part would make a path mean two things."""
    with pytest.raises(ApiError) as caught:
        parse(text)
    assert caught.value.status == 400


@given(st.text(max_size=300))
def test_whatever_passes_names_itself_and_fits_into_the_index(text: str) -> None:
    """A name is a fixed point, and leaves room for a tag and for an image id beside it."""
    try:
        repository = parse(text)
    except ApiError:
        return
    assert parse(str(repository)) == repository
    Name("tag", f"{repository}:{'x' * 128}").key()
    Name("v1.member", f"{repository}:{ID}").key()


def test_a_hostile_name_is_refused_quickly() -> None:
    """The grammar has no expression that backtracks for ever."""
    with pytest.raises(ApiError):
        parse("a-" * 100_000 + "!")
