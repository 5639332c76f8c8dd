"""Tokens are read in every shape clients send them back in, and only when they are ours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.access.keys import Key, Keyring
from api.access.principal import ANONYMOUS, Principal
from api.v1 import tokens
from api.v1.names import repository
from api.v1.tokens import Token

KEY = Key("k1", b"k" * 32, 0)
OTHER = Key("k2", b"x" * 32, 0)
RING = Keyring((KEY,))
REPOSITORY = repository("foo/bar")
BOB = Principal("bob-1.x_y", stamp="0a1b")
TEXT = tokens.issue(KEY, REPOSITORY, "write", BOB, 4600)


def read(header: str, ring: Keyring = RING) -> Token | None:
    shown = tokens.claim(header)
    return None if shown is None else tokens.verify(ring, shown)


def test_a_token_has_the_three_fields_of_old() -> None:
    """Signature, quoted repository with its namespace, access; no word in front."""
    assert TEXT.startswith("signature=")
    assert TEXT.endswith(',repository="foo/bar",access=write')
    assert 'repository="library/foo"' in tokens.issue(KEY, repository("foo"), "read", ANONYMOUS, 1)


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
    assert read(header) == Token("foo/bar", "write", 4600, "bob-1.x_y", "0a1b")


def test_a_token_of_nobody_in_particular_is_read_as_such() -> None:
    """An anonymous pull of something public has one, too."""
    assert read("Token " + tokens.issue(KEY, REPOSITORY, "read", ANONYMOUS, 5)) == Token("foo/bar", "read", 5)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Token",
        "Token ",
        "Basic Og==",
        f"Bearer {TEXT}",
        TEXT,
        "Token signature=zz,access=write",
        'Token signature=5,repository="foo/bar",access=write',
        'Token signature=k1~5~bob~~,repository="foo/bar",access=write',
        "Token " + TEXT.replace("write", "delete"),
        "Token " + TEXT.replace("foo/bar", "foo/baz"),
        "Token " + TEXT.replace("bob", "eve"),
        "Token " + TEXT.replace("0a1b", "0a1c"),
        "Token " + TEXT.replace("11f8", "21f8"),
        "Token " + TEXT[:30],
        "Token signature=é~é~é~é~é,repository=a,access=b",
        f"Token signature={'~' * 100_000},repository=a,access=b",
    ],
)
def test_anything_else_is_no_token(header: str) -> None:
    """Nor is one any of whose fields was changed."""
    assert read(header) is None


def test_a_key_taken_off_the_ring_reads_nothing_any_more() -> None:
    """And one that was put in front of another leaves the other's tokens good."""
    header = f"Token {TEXT}"
    assert read(header, Keyring((OTHER, KEY))) is not None
    assert read(header, Keyring((OTHER,))) is None
    assert read(header, Keyring((Key("k1", OTHER.secret, 0),))) is None


def test_of_a_foreign_token_repository_and_access_are_told() -> None:
    """A registry that asks another index has to know what to ask about."""
    assert tokens.fields('Token signature=ABC,repository="foo/bar",access=read') == (REPOSITORY, "read")
    assert tokens.fields("Token signature=ABC,repository=foo,access=read") is None
    assert tokens.fields('Token repository="Foo/..",access=read') is None
    assert tokens.fields("Basic Og==") is None


@given(st.text())
def test_no_header_breaks_the_reader(text: str) -> None:
    """Whatever a stranger sends."""
    for header in (text, "Token " + text):
        assert read(header) is None
        tokens.fields(header)


def test_an_endless_word_is_looked_through_once() -> None:
    """It comes from anybody, and is read before anything is known of its sender."""
    assert tokens.claim("Token " + "a" * 1_000_000) is None
    assert tokens.fields("Token " + "a" * 1_000_000) is None
