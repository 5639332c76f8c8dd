"""A deletion lets others write: where there are many tags, no change looks at more of them than it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any
from unittest.mock import patch

import pytest

from api.content import marks, tags
from api.content.repository import Repository
from api.v2 import pointing, push
from cas import Digest, Name, Names, Record, Store
from cas.change import Reads
from tests.wire.harness import NOW
from tests.wire.v2.content import Document, Home
from tests.wire.v2.pushing import Pushed

MANY = 3 * pointing.MANY


@pytest.fixture
def home(registry: Pushed) -> Iterator[Home]:
    with closing(registry.client()) as client:
        yield Home(client)


@pytest.fixture
def image(registry: Pushed, home: Home) -> Document:
    """An image with two tags, beside another one with very many."""
    other, image = home.push(home.numbered(1), "other"), home.push(home.numbered(2), "first")
    assert home.put(image, "second").status_code == 201
    for start in range(0, MANY, 500):
        some = [f"many-{number}" for number in range(start, start + 500)]
        registry.store.change(lambda names, some=some: point(names, home, other, some))  # type: ignore[misc]
    return image


def point(names: Names, home: Home, image: Document, some: list[str]) -> None:
    target = tags.Manifest(Digest.parse(image.digest), image.type, len(image.body))
    for tag in some:
        tags.put(names, Repository.of(home.name), tag, target, {})


@contextmanager
def counted_rows() -> Iterator[list[int]]:
    """Count the rows that changes list, each while all other writers wait."""
    rows, scan = list[int](), Reads.scan

    def counting(self: Reads, *args: Any, **named: Any) -> list[tuple[Name, Record]]:
        found = scan(self, *args, **named)
        if isinstance(self, Names):
            rows.append(len(found))
        return found

    with patch.object(Reads, "scan", counting):
        yield rows


def test_who_deletes_an_image_looks_through_many_tags_before_anybody_waits(
    registry: Pushed, home: Home, image: Document
) -> None:
    """Its own two go with it, and none of the others is looked at within the change."""
    with counted_rows() as rows:
        assert home.delete(image.digest) == 202
    assert sum(rows) <= pointing.MANY
    assert home.get(image.digest).status_code == 404
    left = home.tags()
    assert not {"first", "second"} & set(left)
    assert len(left) == MANY + 1


@pytest.mark.parametrize("times", [1, pointing.LOOKS, pointing.LOOKS + 1])
def test_a_tag_that_is_set_while_they_are_looked_through_goes_too(
    registry: Pushed, home: Home, image: Document, times: int
) -> None:
    """However often that happens: in the end the deletion looks while nobody can set one."""
    real, left = pointing.look, iter(range(times))

    def look(*args: Any) -> pointing.Looked | None:
        looked = real(*args)
        if (number := next(left, None)) is not None:
            assert home.put(image, f"late-{number}").status_code == 201
        return looked

    with patch.object(pointing, "look", look):
        assert home.delete(image.digest) == 202
    assert not [tag for tag in home.tags() if not tag.startswith(("many-", "other"))]


def test_a_tag_that_is_moved_on_while_they_are_looked_through_stays(
    registry: Pushed, home: Home, image: Document
) -> None:
    """By a change that takes no mark away, too: one to an image of Registry v1."""
    repository = Repository.of(home.name)

    def move_on(real: Callable[..., Any], *args: Any) -> Any:
        looked = real(*args)
        registry.store.change(lambda names: tags.put(names, repository, "first", tags.Image("0" * 64), {}))
        return looked

    real = pointing.look
    with patch.object(pointing, "look", lambda *args: move_on(real, *args)):
        assert home.delete(image.digest) == 202
    left = home.tags()
    assert "first" in left
    assert "second" not in left


def test_deletions_and_collections_go_by_each_others_marks(registry: Pushed, home: Home, image: Document) -> None:
    """A mark that stands is shared, not taken from whoever set it."""
    registry.store.change(lambda names: marks.put(names, home.name, "a collector's"))
    push.delete(registry.store, Repository.of(home.name), Digest.parse(image.digest), NOW)
    assert stands(registry.store, home, "a collector's")


def stands(store: Store, home: Home, token: str) -> bool:
    return store.change(lambda names: marks.stands(names, home.name, token))
