"""A repository is gone at once with all it had, however much that is and whatever happens meanwhile."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from api.content import removal, repositories, trash
from api.content.removal import PARTS, STEP, TURNED
from api.content.repositories import Access, BeingRemoved
from api.content.repository import Repository
from cas import Name, Names, NoSpace, Record, Store
from tests.v1client import chain
from tests.wire.v1.talk import Registry, new_id, running

REPOSITORY = Repository("some", "repo")
NEIGHBOUR = Repository("some", "repo2")


def fill(store: Store, repository: Repository, rows: int) -> None:
    """Make a repository with rows of every kind it can have."""

    def edit(names: Names) -> None:
        repositories.ensure(names, repository, 0, Access.PUBLIC)
        for kind, separator in PARTS:
            for number in range(rows):
                names.put(Name(kind, f"{repository}{separator}{number:06}"), Record(b"{}"))
                if kind in TURNED:
                    names.put(Name(TURNED[kind], f"{number:06}{separator}{repository}"), Record(b"{}"))

    store.change(edit)


def rows(store: Store, repository: Repository) -> int:
    kinds = [kind for kind, _ in PARTS]
    forward = sum(len(store.scan(kind, f"{repository}{separator}")) for kind, separator in PARTS)
    turned = sum(name.path.endswith(f":{repository}") for kind in TURNED.values() for name, _ in store.scan(kind))
    assert len(kinds) == len(set(kinds))
    return forward + turned


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "root", create=True)


def test_nothing_of_a_repository_is_left_and_nothing_of_its_neighbour_is_touched(store: Store) -> None:
    """Every kind of row, those too whose path begins with something else."""
    with store:
        for repository in (REPOSITORY, NEIGHBOUR):
            fill(store, repository, 3)
        before = rows(store, NEIGHBOUR)
        assert removal.remove(store, REPOSITORY, 0)
        assert not removal.remove(store, REPOSITORY, 0)
        assert (rows(store, REPOSITORY), rows(store, NEIGHBOUR)) == (0, before)
        assert store.scan(repositories.GONE) == []
        assert store.read(lambda reads: repositories.find(reads, NEIGHBOUR)) is not None


def test_no_change_of_a_removal_takes_more_than_a_step(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that other writers get their turn in between; but for the tags, all rows go in steps."""
    with store:
        fill(store, REPOSITORY, STEP)
        sizes: list[int] = []
        real = Store.change

        def counting(self: Store, edit: Callable[[Names], object], *, frees: bool = False) -> object:
            before = self.stats().names
            done = real(self, edit, frees=frees)
            sizes.append(before - self.stats().names)
            return done

        monkeypatch.setattr(Store, "change", counting)
        assert removal.remove(store, REPOSITORY, 0)
        assert rows(store, REPOSITORY) == 0
        assert len(sizes) > len(PARTS)
        assert max(sizes) <= 2 * STEP + 1


def test_a_removal_that_was_cut_off_is_invisible_and_finished_by_whoever_comes_next(store: Store) -> None:
    """The disk is full in the middle, or the process dies: the next creation, or the next start, sees to it."""
    with store:
        for finish in ("creation", "start"):
            fill(store, REPOSITORY, 2 * STEP)
            cut_off(store)
            assert store.read(lambda reads: repositories.find(reads, REPOSITORY)) is None
            assert rows(store, REPOSITORY) > 0
            with pytest.raises(BeingRemoved):
                store.change(lambda names: repositories.ensure(names, REPOSITORY, 0, Access.PUBLIC))
            if finish == "creation":
                removal.change(
                    store, REPOSITORY, lambda names: repositories.ensure(names, REPOSITORY, 0, Access.PUBLIC)
                )
                assert store.read(lambda reads: repositories.find(reads, REPOSITORY)) is not None
            else:
                removal.finish_all(store)
            assert rows(store, REPOSITORY) == 0
            assert store.scan(repositories.GONE) == []
            removal.remove(store, REPOSITORY, 0)


def cut_off(store: Store) -> None:
    """Remove the repository, and fail at the third change."""
    real, left = store.change, iter([True, True])

    def failing(edit: Callable[[Names], object], *, frees: bool = False) -> object:
        if next(left, None) is None:
            raise NoSpace("the disk is full")
        return real(edit, frees=frees)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "change", failing)
        with pytest.raises(NoSpace):
            removal.remove(store, REPOSITORY, 0)


def test_a_start_finishes_what_a_dead_process_left(tmp_path: Path) -> None:
    """Before the worker answers anybody."""
    with Store.open(tmp_path / "root", create=True) as store:
        fill(store, REPOSITORY, 2 * STEP)
        cut_off(store)
    with running(tmp_path / "root") as registry:
        assert registry.ask("GET", "/v1/_ping").status == 200
        assert rows(registry.store, REPOSITORY) == 0


def test_a_repository_made_anew_while_the_old_one_goes_inherits_nothing(registry: Registry) -> None:
    """Deletes and pushes of one name at the same time: each list is of ids that were listed since."""
    path = "/v1/repositories/race/it"
    generations: list[list[str]] = [[new_id() for _ in range(STEP + 7)] for _ in range(6)]
    stop = threading.Event()

    def delete() -> None:
        while not stop.is_set():
            assert registry.ask("DELETE", path).status in {200, 404}

    deleter = threading.Thread(target=delete)
    deleter.start()
    try:
        for ids in generations:
            body = json.dumps([{"id": image_id} for image_id in ids]).encode()
            assert registry.ask("PUT", path, body).status == 200
    finally:
        stop.set()
        deleter.join()
    registry.ask("DELETE", path)
    assert registry.ask("PUT", path, b"[]").status == 200
    assert registry.ask("GET", f"{path}/images").value == []


def test_of_what_either_protocol_brought_only_the_images_stay(empty_registry: Registry) -> None:
    """Counted over all names of the store, so that no kind of row is forgotten."""
    ask, store = empty_registry.ask, empty_registry.store
    before = store.stats().names
    images = chain([b"one", b"two"], seed="either")
    empty_registry.client().push("some/repo", images, ["latest", "1"])
    config = b"{}"
    digest = "sha256:" + hashlib.sha256(config).hexdigest()
    assert ask("POST", f"/v2/some/repo/blobs/uploads/?digest={digest}", config).status == 201
    media_type = "application/vnd.oci.image.manifest.v1+json"
    described = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest, "size": len(config)}
    for subject in (None, {"mediaType": media_type, "digest": digest, "size": 2}):
        content: dict[str, object] = {"schemaVersion": 2, "mediaType": media_type, "config": described, "layers": []}
        body = json.dumps(content | ({"subject": subject} if subject else {})).encode()
        answer = ask(
            "PUT", f"/v2/some/repo/manifests/{'about' if subject else 'v2'}", body, {"Content-Type": media_type}
        )
        assert answer.status == 201, answer.body
    assert ask("GET", "/v1/repositories/some/repo/tags").value == dict.fromkeys(("1", "latest"), images[-1].id)
    for tag in ("v2", "about"):
        assert ask("GET", f"/v1/repositories/some/repo/tags/{tag}").status == 404
        assert ask("DELETE", f"/v1/repositories/some/repo/tags/{tag}").status == 404
    assert ask("DELETE", "/v1/repositories/some/repo/").status == 200
    trashed = sum(len(store.scan(kind)) for kind in (trash.TRASH, trash.OF, "trash.last"))
    assert store.stats().names - trashed == before + len(images)
    assert ask("GET", "/v2/some/repo/tags/list").status == 404
    assert ask("GET", f"/v2/some/repo/blobs/{digest}").status == 404
