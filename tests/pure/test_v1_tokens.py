"""Tokens are read in every shape clients send them back in, and only when they are ours and still good."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.v1.names import Repository
from api.v1.tokens import Signer, Token

KEY = b"k" * 32
REPOSITORY = Repository.parse("foo/bar")


class Clock:
    """A time that a test moves."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def signer(clock: Clock | None = None, key: bytes = KEY) -> Signer:
    return Signer(key, clock or Clock(), 3600)


TEXT = signer().issue(REPOSITORY, "write")


def test_a_token_has_the_three_fields_of_old() -> None:
    """Signature, quoted repository with its namespace, access; no word in front."""
    assert TEXT.startswith("signature=")
    assert TEXT.endswith(',repository="foo/bar",access=write')
    library = signer().issue(Repository.parse("foo"), "read")
    assert 'repository="library/foo"' in library


@pytest.mark.parametrize(
    "header",
    [
        f"Token {TEXT}",
        f"Token Token {TEXT}",
        f"token {TEXT}",
        f"TOKEN token  {TEXT}",
        "Token " + TEXT.replace('"', ""),
        "Token " + TEXT.replace(",", ", "),
        "Token " + TEXT.replace("=", ":"),
    ],
)
def test_every_shape_of_header_is_read(header: str) -> None:
    """One prefix or two, quoted or not, blanks after commas."""
    assert signer().read(header) == Token("foo/bar", "write", 4600)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Token",
        "Token ",
        "Basic Og==",
        f"Bearer {TEXT}",
        TEXT,
        "Token signature=zz,access=write",
        'Token signature=5,repository="foo/bar",access=write',
        "Token " + TEXT.replace("write", "delete"),
        "Token " + TEXT.replace("foo/bar", "foo/baz"),
        "Token " + TEXT[:30],
        "Token signature=é.é,repository=a,access=b",
    ],
)
def test_anything_else_is_no_token(header: str | None) -> None:
    """Nor is one whose fields were changed."""
    assert signer().read(header) is None


def test_a_token_is_good_again_and_again_until_it_expires() -> None:
    """One push sends the same one hundreds of times."""
    clock = Clock()
    keeper = signer(clock)
    header = "Token " + keeper.issue(REPOSITORY, "read")
    for clock.now in (1000.0, 1000.0, 4600.0):
        assert keeper.read(header) is not None
    clock.now = 4601.0
    assert keeper.read(header) is None


def test_another_key_does_not_read_it() -> None:
    """A copied token text proves nothing elsewhere."""
    assert signer(key=b"x" * 32).read(f"Token {TEXT}") is None
    assert signer(key=KEY).read(f"Token {TEXT}") is not None


@given(st.text())
def test_no_header_breaks_the_reader(text: str) -> None:
    """Whatever a stranger sends."""
    assert signer().read(text) is None
    assert signer().read("Token " + text) is None
