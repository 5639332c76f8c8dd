"""JSON from strangers: how deep it may nest does not depend on the stack, and no text is too odd to be searched."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import pytest

from api import strict
from api.content import named

ONE, TWO = f"sha256:{'1a' * 32}", f"sha512:{'2b' * 64}"


def lists(deep: int) -> bytes:
    return b"[" * deep + b"]" * deep


def objects(deep: int) -> bytes:
    return b'{"a":' * (deep - 1) + b"{}" + b"}" * (deep - 1)


def mixed(deep: int) -> bytes:
    return b'[{"a":' * (deep // 2) + b"1" + b"}]" * (deep // 2)


@pytest.mark.parametrize("nest", [lists, objects, mixed])
def test_a_text_may_nest_as_deep_as_is_said_and_no_deeper(nest: Callable[[int], bytes]) -> None:
    """Lists and objects count alike; what is deep enough to break a parser's stack is refused the same way."""
    assert strict.load(nest(strict.DEEPEST)) == json.loads(nest(strict.DEEPEST))
    for deep in (strict.DEEPEST + 2, sys.getrecursionlimit() - 10, 1_000_000):
        with pytest.raises(ValueError, match="deep"):
            strict.load(nest(deep))


def test_much_beside_each_other_is_not_deep() -> None:
    """Nor are brackets within strings, whatever stands before them."""
    wide = {"many": [[{}] for _ in range(1000)], "a\\": "[" * 1000, '"[': '\\"' + "{" * 1000}
    assert strict.load(json.dumps(wide)) == wide


@pytest.mark.parametrize("start", ["", '"', '{"a": "', '"\\'])
def test_a_string_that_never_ends_takes_no_longer_than_it_is(start: str) -> None:
    """It is looked at once: with a look for each quote these would take hours."""
    text = start + '\\"' * 500_000 + "[" * 101
    for data in (text, text + "\\"):
        with pytest.raises(ValueError, match=r"."):
            strict.load(data)
        assert list(strict.texts(data.encode())) is not None


@pytest.mark.parametrize("text", ["NaN", "Infinity", "[-Infinity]", "", "{", '"\t"', "\ufeff{}"])
def test_what_only_some_take_for_json_is_refused(text: str) -> None:
    """So that nothing is stored that others read otherwise."""
    for either in (text, text.encode()):
        with pytest.raises(ValueError, match=r"."):
            strict.load(either)


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"a": [{"b": ONE}], TWO: 1}).encode(),
        b'{"a":' * 5000 + f'["{ONE}","{TWO}"]'.encode() + b"}" * 5000,
        f'["\\u0073ha256:{"1a" * 32}", "sha512\\u003a{"2b" * 64}"]'.encode(),
        f'{{"\\\\": "{ONE}", "\\"": ["x\\\\", "{TWO}"]}}'.encode(),
        b'["\xff", "\\ud800", "\\q", ' + f'"{ONE}" "{TWO}'.encode(),
    ],
)
def test_a_manifest_names_what_any_string_of_it_says(body: bytes) -> None:
    """However deep it stands, and however it is spelled: what an old store holds is read as well, to be kept."""
    assert named.digests(body) == {ONE, TWO}


def test_a_digest_within_a_longer_text_is_not_named() -> None:
    """A manifest that writes of a digest in an annotation does not need it."""
    assert named.digests(json.dumps({"note": f"see {ONE}", "other": '"' + ONE}).encode()) == set()
