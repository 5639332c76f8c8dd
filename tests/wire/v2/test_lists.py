"""Tag lists and the catalogue over real sockets."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from api.content import tags
from api.content.repositories import Access, ensure
from api.content.repository import Repository
from cas import Names
from tests.wire.v2.content import Home, index
from tests.wire.v2.pushing import Client, Pushed, code, pushing

TAGS = ["Zeta", "_x", "a", "a-b", "a.b", "a_b", "aa", "b", "latest", "v1", "v10", "v2"]


@pytest.fixture
def home(client: Client) -> Home:
    """A repository with some tags, pushed out of order."""
    home = Home(client)
    image = home.image()
    for tag in reversed(TAGS):
        home.push(image, tag)
    return home


def follow(client: Client, path: str, key: str) -> Iterator[list[str]]:
    """Read page after page by the links."""
    while path:
        answer = client.ask("GET", path)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
        yield answer.json()[key]
        path = answer.links.get("next", {}).get("url", "")
        assert not path or path.startswith("/v2/")


def test_tags_come_in_byte_order(home: Home) -> None:
    """With the repository's name; GET and HEAD alike."""
    path = f"/v2/{home.name}/tags/list"
    answer, head = home.client.ask("GET", path), home.client.ask("HEAD", path)
    assert answer.json() == {"name": home.name, "tags": TAGS}
    assert "link" not in answer.headers
    assert (head.content, head.headers["content-length"]) == (b"", str(len(answer.content)))


@pytest.mark.parametrize("number", [1, 2, 5, 11, 12, 13, 9_999_999_999])
def test_pages_lead_from_one_to_the_next(home: Home, number: int) -> None:
    """Each as long as asked for, the last without a link; together they are the list."""
    pages = list(follow(home.client, f"/v2/{home.name}/tags/list?n={number}", "tags"))
    assert [tag for page in pages for tag in page] == TAGS
    assert all(len(page) == number for page in pages[:-1])


@pytest.mark.parametrize(
    "last", ["", "Zeta", "a-b", "a-c", "v10", "v3", "~", "A" * 500, "\u00e4", "a b&c=d", "\0", "v1\0x", "\u00e4" * 300]
)
def test_a_list_begins_behind_last(home: Home, last: str) -> None:
    """Which need not exist, nor be a tag at all."""
    answer = home.client.speech.get(f"/v2/{home.name}/tags/list", params={"last": last})
    assert answer.json()["tags"] == [tag for tag in TAGS if tag.encode() > last.encode()]


def test_no_entries_asked_for_are_none_and_no_link(home: Home) -> None:
    """For both lists."""
    for path, key in ((f"/v2/{home.name}/tags/list", "tags"), ("/v2/_catalog", "repositories")):
        answer = home.client.ask("GET", f"{path}?n=0")
        assert (answer.json()[key], "link" in answer.headers) == ([], False)


@pytest.mark.parametrize("number", ["x", "-1", "", "1.5", "+1", "1e3", "%20", "1%00", "\u0663", "0x10"])
@pytest.mark.parametrize("path", ["/v2/_catalog", "/v2/{name}/tags/list"])
def test_what_is_no_number_is_refused(home: Home, path: str, number: str) -> None:
    """400 with a code of its own."""
    answer = home.client.ask("GET", f"{path.replace('{name}', home.name)}?n={number}")
    assert (answer.status_code, code(answer)) == (400, "PAGINATION_NUMBER_INVALID")


def test_odd_places_to_begin_at_are_no_server_error(home: Home) -> None:
    """They are places in the order like any other, also where the repository's name is as long as can be."""
    long = Home(home.client, "n" * 255)
    for last in ("%00", "%ff", "%ed%a0%80", "a" * 5_000, "%F0%9F%90%B3" * 200):
        for path in ("/v2/_catalog", f"/v2/{home.name}/tags/list", f"/v2/{long.name}/tags/list"):
            assert home.client.ask("GET", f"{path}?last={last}").status_code == 200
        path = f"/v2/{home.name}/referrers/sha256:{'a' * 64}"
        assert home.client.ask("GET", f"{path}?last={last}").status_code in {200, 400}


def test_a_repository_without_tags_has_an_empty_list(client: Client) -> None:
    """Never null; an unknown one is 404."""
    home = Home(client)
    assert client.ask("GET", f"/v2/{home.name}/tags/list").json() == {"name": home.name, "tags": []}
    answer = client.ask("GET", "/v2/nobody/made-this/tags/list")
    assert (answer.status_code, code(answer)) == (404, "NAME_UNKNOWN")


def test_ten_thousand_tags_are_one_answer_and_one_more_is_a_link(registry: Pushed, client: Client) -> None:
    """Clients that read only one page should get all there are."""
    home = Home(client)
    image = home.push(home.image(), "t00000")
    found = registry.store.read(lambda reads: tags.find(reads, Repository.of(home.name), "t00000"))
    assert found is not None
    everything = [f"t{number:05}" for number in range(10_001)]

    def fill(names: Names) -> None:
        for tag in everything[:-1]:
            tags.put(names, Repository.of(home.name), tag, found.target, {})

    registry.store.change(fill)
    assert home.tags() == everything[:-1]
    home.push(image, everything[-1])
    pages = list(follow(client, f"/v2/{home.name}/tags/list", "tags"))
    assert pages == [everything[:-1], everything[-1:]]
    assert home.delete(image.digest) == 202
    assert home.tags() == []


def test_a_tag_on_an_image_that_is_not_whole_is_listed_and_says_why_it_cannot_be_pulled(
    registry: Pushed, client: Client
) -> None:
    """It can be deleted; it counts as there for who pushes only what is new; pushing one takes the name over."""
    home = Home(client)
    repository, image = Repository.of(home.name), tags.Image("ab" * 32)

    def fill(names: Names) -> None:
        for tag in ("old", "older"):
            tags.put(names, repository, tag, image, {})

    registry.store.change(fill)
    home.push(home.image(), "new")
    assert home.tags() == ["new", "old", "older"]
    answer = home.get("old")
    assert (answer.status_code, code(answer)) == (404, "MANIFEST_UNKNOWN")
    assert image.id in answer.json()["errors"][0]["detail"]["reason"]
    assert home.delete("older") == 202
    assert home.put(home.image(), "old", if_none_match="*").status_code == 412
    home.push(home.image(), "old")
    assert home.tags() == ["new", "old"]


def test_the_catalogue_lists_every_repository_by_its_short_name(tmp_path: Path) -> None:
    """In byte order, a hundred a page unless told, never more than a thousand."""
    made = [f"r{number:04}" for number in range(1_050)]
    shown = sorted([*made, "ns/a", "zz/library/b", "a/tags/list"])
    with pushing(tmp_path / "root") as registry, closing(registry.client()) as client:
        assert client.ask("GET", "/v2/_catalog").json() == {"repositories": []}
        for name in itertools.chain(["ns/a", "zz/library/b", "a/tags/list"], made[:3]):
            empty = index([])
            path = f"/v2/{'library/' * (name == made[0])}{name}/manifests/t"
            assert client.ask("PUT", path, empty.body, content_type=empty.type).status_code == 201
        registry.store.change(lambda names: [ensure(names, Repository.of(name), 0, Access.PUBLIC) for name in made])
        for query, length in (("", 100), ("?n=7", 7), ("?n=1000", 1000), ("?n=1001", 1000), ("?n=99999999999", 1000)):
            pages = list(follow(client, f"/v2/_catalog{query}", "repositories"))
            assert [name for page in pages for name in page] == shown
            assert {len(page) for page in pages[:-1]} == {length}
        assert client.ask("GET", "/v2/_catalog?last=r1048").json() == {"repositories": ["r1049", "zz/library/b"]}


def test_lists_are_json_that_every_reader_reads(home: Home) -> None:
    """Its length is told, its names are as clients spell them."""
    answer = home.client.ask("GET", f"/v2/{home.name}/tags/list")
    assert answer.headers["content-length"] == str(len(answer.content))
    assert json.loads(answer.content)["name"] == home.name
