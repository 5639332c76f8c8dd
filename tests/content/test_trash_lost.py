"""What was deleted goes on holding what its names held, lost or not, and comes back with it (I1, I9)."""

# ruff: noqa: SLF001 - damage is made inside, not only from the front

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from api import maintenance
from api.content import removal, trash, undelete
from api.content.repository import Repository
from api.content.settings import KeepingSettings
from api.content.undelete import StandsInTheWay, Target
from cas import Depth, Digest, Name, Record, Store
from tests.content.test_trash import names_of, trashed
from tests.engine.test_damage import chunks_of, spoil
from tests.support.engine import noise
from tests.wire.harness import NOW
from tests.wire.v2.content import Document, Home
from tests.wire.v2.pushing import Pushed

LAYER = noise(300_000)
LARGE = {"annotations": {"x": "y" * 100_000}}  # a manifest of more than 64 KiB is a blob


@pytest.fixture
def home(registry: Pushed) -> Iterator[Home]:
    with closing(registry.client()) as client:
        yield Home(client, layers=(LAYER,))


def back(registry: Pushed, what: str) -> undelete.Restored:
    return undelete.undelete(registry.store, Target.of(what))


def lose(store: Store, digest: str | Digest) -> Digest:
    """Let a stored blob rot, and set that aside."""
    digest = Digest.parse(str(digest))
    spoil(store, store._parts.layout.root, chunks_of(store, digest)[0][1].extent)
    store.repair()
    assert digest in missed(store)
    return digest


def missed(store: Store) -> set[Digest]:
    """What is lost and known to be needed."""
    return {digest for finding in store.check(Depth.QUICK) if finding.check == "lost" for digest in finding.blobs}


def collect(registry: Pushed) -> None:
    """All that a collection does."""
    maintenance.sweep(registry.store, maintenance.terms(KeepingSettings(), lambda: NOW + 3 * 86400))
    registry.store.collect()


@pytest.fixture(params=["a layer", "a large manifest"])
def needed(request: pytest.FixtureRequest, registry: Pushed, home: Home) -> tuple[Document, str]:
    """A manifest with a tag, and which of its blobs is to be lost: one in the repository, or its own."""
    image = home.push(home.image(**({} if request.param == "a layer" else LARGE)), "some")
    return image, str(Digest.of(LAYER)) if request.param == "a layer" else image.digest


class TestARepository:
    """Deleted with what it lost before, or losing it in the trash."""

    @pytest.mark.parametrize("lost_first", [True, False])
    def test_it_comes_back_with_every_name_it_had_and_what_is_lost_stays_known(
        self, registry: Pushed, home: Home, needed: tuple[Document, str], *, lost_first: bool
    ) -> None:
        """Also a collection in between takes nothing of it; a push makes it whole."""
        before, store, repository = names_of(registry.store), registry.store, Repository.of(home.name)
        if lost_first:
            lose(store, needed[1])
        assert removal.remove(store, repository, NOW)
        if not lost_first:
            lose(store, needed[1])
        assert missed(store) == {Digest.parse(needed[1])}
        collect(registry)
        assert missed(store) == {Digest.parse(needed[1])}
        back(registry, home.name)
        assert names_of(store) == before
        assert missed(store) == {Digest.parse(needed[1])}
        assert home.client.blob(home.name, needed[1]).status_code == 404
        assert {finding.check for finding in store.check(Depth.DEEP)} == {"lost"}
        home.client.push(home.name, LAYER)
        home.push(needed[0], "some")
        assert home.client.blob(home.name, str(Digest.of(LAYER))).content == LAYER
        assert home.get("some").content == needed[0].body
        assert list(store.check(Depth.DEEP)) == []

    def test_what_is_lost_in_the_trash_is_healed_there_by_a_push_elsewhere(self, registry: Pushed, home: Home) -> None:
        """Whoever pushes the same content."""
        home.push(home.numbered(1), "some")
        lose(registry.store, Digest.of(LAYER))
        removal.remove(registry.store, Repository.of(home.name), NOW)
        Home(home.client, layers=(LAYER,))
        assert missed(registry.store) == set()
        back(registry, home.name)
        assert home.client.blob(home.name, str(Digest.of(LAYER))).content == LAYER

    def test_once_it_cannot_be_undone_what_was_lost_is_needed_no_more(self, registry: Pushed, home: Home) -> None:
        """The trash keeps nothing for longer than it said."""
        home.push(home.numbered(1), "some")
        lose(registry.store, Digest.of(LAYER))
        removal.remove(registry.store, Repository.of(home.name), NOW)
        maintenance.sweep(registry.store, maintenance.terms(KeepingSettings(), lambda: NOW, grace_s=0))
        assert (missed(registry.store), trashed(registry.store)) == (set(), 0)
        registry.store.collect()
        assert registry.store.stats().lost == 0


class TestAManifest:
    """Whose own bytes are a blob, deleted by its digest."""

    @pytest.mark.parametrize("lost_first", [True, False])
    @pytest.mark.parametrize("by_tag", [True, False])
    def test_it_comes_back_with_its_tags_also_where_its_bytes_are_lost(
        self, registry: Pushed, home: Home, *, by_tag: bool, lost_first: bool
    ) -> None:
        """No tag is left without its manifest; pushed again, that is served."""
        image = home.push(home.image(**LARGE), "some")
        before, store = names_of(registry.store), registry.store
        if lost_first:
            lose(store, image.digest)
        assert home.delete(image.digest) == 202
        if not lost_first:
            lose(store, image.digest)
        collect(registry)
        restored = back(registry, f"{home.name}:some" if by_tag else f"{home.name}@{image.digest}")
        assert restored.left == ()
        assert names_of(store) == before
        assert missed(store) == {Digest.parse(image.digest)}
        assert home.get("some").status_code == 404
        home.push(image)
        assert home.get("some").content == image.body


class TestByAnEarlierVersion:
    """It let go of what was lost when that was deleted."""

    @pytest.fixture
    def image(self, registry: Pushed, home: Home) -> Document:
        image = home.push(home.image(**LARGE), "some")
        assert home.delete(image.digest) == 202
        lose(registry.store, image.digest)
        row = next(row for row, _ in registry.store.scan(trash.TRASH) if trash.original(row).kind == "manifest")
        found = registry.store.get(row)
        assert found is not None
        registry.store.change(lambda names: names.put(row, Record(found.value)))
        return image

    def test_what_is_not_collected_yet_is_held_again(self, registry: Pushed, home: Home, image: Document) -> None:
        """It comes back as anything else."""
        assert missed(registry.store) == set()
        assert back(registry, f"{home.name}@{image.digest}").left == ()
        assert missed(registry.store) == {Digest.parse(image.digest)}

    def test_what_was_collected_since_is_refused(self, registry: Pushed, home: Home, image: Document) -> None:
        """No name holds what is neither stored nor lost."""
        registry.store.collect()
        with pytest.raises(StandsInTheWay, match="needs a blob that is gone; push it again"):
            back(registry, f"{home.name}@{image.digest}")
        assert registry.store.get(Name("manifest", f"{home.name}@{image.digest}")) is None
