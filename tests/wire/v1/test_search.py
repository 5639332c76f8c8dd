"""Search as today's clients send it: who finds what, and in which shape."""

from __future__ import annotations

import json
import secrets

import pytest

from api.access import bearer
from api.access.bearer import Resource
from api.access.principal import Principal
from tests.v1client import Answer
from tests.wire.harness import NOW
from tests.wire.v1.talk import Guarded, Registry, basic, token


def found(answer: Answer) -> list[str]:
    assert answer.status == 200, answer.body
    return [result["name"] for result in answer.value["results"]]


@pytest.fixture(scope="module")
def library(registry: Registry) -> Registry:
    """An open registry with 260 repositories."""
    for number in range(250):
        assert registry.ask("PUT", f"/v1/repositories/many/r{number:03}/", b"[]").status == 200
    for name in ("foo", "foo/bar", "deep/er/foo", "a.b-c_d/tool"):
        registry.ask("PUT", f"/v1/repositories/{name}/", b"[]")
    registry.tag("by/tag", "1", registry.image())
    return registry


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("q=foo", ["deep/er/foo", "foo/bar", "library/foo"]),
        ("q=FOO", ["deep/er/foo", "foo/bar", "library/foo"]),
        ("q=o%2Fb", ["foo/bar"]),
        ("q=library/foo", ["library/foo"]),
        ("q=by/tag&n=25", ["by/tag"]),
        ("q=c_d", ["a.b-c_d/tool"]),
        ("q=c%25d", []),
        ("q=nothing+at+all", []),
        ("q=%00%0a", []),
        ("q=%ff%fe", []),
        ("q=r00&n=2", ["many/r000", "many/r001"]),
        ("q=r00&n=2&page=3", ["many/r004", "many/r005"]),
        ("q=r00&n=4&page=3", ["many/r008", "many/r009"]),
        ("q=r00&n=4&page=4", []),
        ("q=r00&n=4&page=999999999999999999999999", ["many/r000", "many/r001", "many/r002", "many/r003"]),
    ],
)
def test_a_term_finds_what_contains_it(library: Registry, query: str, names: list[str]) -> None:
    """Substrings of the full name, in any case, page by page; nothing found is an empty list."""
    assert found(library.ask("GET", f"/v1/search?{query}")) == names


@pytest.mark.parametrize(
    ("query", "size"),
    [
        ("", 25),
        ("q=", 25),
        ("n=100", 100),
        ("n=1000", 100),
        ("n=0", 1),
        ("n=-3", 25),
        ("n=x", 25),
        ("n=", 25),
        ("n=7&page=0", 7),
        ("n=%D9%A3", 25),
        ("n=1e1", 25),
        ("page=x", 25),
    ],
)
def test_whatever_is_asked_for_is_brought_within_bounds(library: Registry, query: str, size: int) -> None:
    """No term is everything; a number that is none is the default."""
    answer = library.ask("GET", f"/v1/search?{query}")
    assert len(found(answer)) == size
    assert (answer.value["page_size"], answer.value["page"], answer.value["num_results"]) == (size, 1, 255)
    assert answer.value["num_pages"] == -(-255 // size)


def test_an_answer_has_the_types_that_engines_insist_on(library: Registry) -> None:
    """One wrong type and the whole search fails: numbers are numbers, flags are flags, texts are texts."""
    answer = library.ask("GET", "/v1/search?q=bar", None, {"X-Docker-Token": "true", "Authorization": "Basic Og=="})
    assert (answer.headers["Content-Type"], answer.headers["Cache-Control"]) == ("application/json", "no-cache")
    kinds = {"query": str, "num_results": int, "num_pages": int, "page": int, "page_size": int, "results": list}
    assert {name: type(value) for name, value in answer.value.items()} == kinds
    flags = dict.fromkeys(("is_official", "is_automated", "is_trusted"), bool)
    (result,) = answer.value["results"]
    assert {name: type(value) for name, value in result.items()} == {
        "name": str,
        "description": str,
        "star_count": int,
        **flags,
    }


def test_everybody_finds_what_they_may_pull_and_nothing_else(guarded: Guarded) -> None:
    """Anonymous, by password, by token, by Bearer; and at once when it changes."""
    ask = guarded.registry.ask
    for name in ("alice", "bob"):
        guarded.account(name)
        guarded.push(name, f"{name}/app")
        guarded.push(name, f"{name}/shown-app")
        guarded.publish(f"{name}/shown-app")
    guarded.account("root", admin=True)
    shown, everything = (
        ["alice/shown-app", "bob/shown-app"],
        ["alice/app", "alice/shown-app", "bob/app", "bob/shown-app"],
    )

    def search(headers: dict[str, str]) -> list[str]:
        return found(ask("GET", "/v1/search?q=app", None, headers))

    def by_bearer(name: str, *granted: Resource) -> dict[str, str]:
        stamp = guarded.registry.store.scan("user", name)[0][1].value
        who = Principal(name, stamp=json.loads(stamp)["stamp"])
        text = guarded.registry.store.read(
            lambda reads: bearer.issue(reads, who, granted, now=NOW, life_s=60, unique=secrets.token_hex(4))
        )
        return {"Authorization": f"Bearer {text}"}

    lists, one = Resource("registry", "catalog", ("search",)), Resource("repository", "bob/app", ("pull",))

    bobs = ["alice/shown-app", "bob/app", "bob/shown-app"]
    assert search({}) == search({"Authorization": "Basic Og=="}) == shown
    assert search(basic("bob")) == search(by_bearer("bob", lists)) == bobs
    assert search(token(ask("PUT", "/v1/repositories/bob/app/", b"[]", basic("bob")))) == bobs
    assert search(basic("root")) == everything
    guarded.grant("bob", "alice/*", "pull")
    assert search(basic("bob")) == everything
    guarded.grant("bob", "alice/app")
    assert search(basic("bob")) == bobs
    assert ask("DELETE", "/v1/repositories/bob/app/", None, basic("bob")).status == 200
    assert search(basic("bob")) == shown
    wrong_ones = (
        basic("bob", "wrong"),
        {"Authorization": "Bearer a.b.c"},
        {"Authorization": "Token signature=1"},
        by_bearer("bob", one),  # good, but for one repository: it tells of no other
    )
    for wrong in wrong_ones:
        assert ask("GET", "/v1/search?q=app", None, wrong).status == 401
