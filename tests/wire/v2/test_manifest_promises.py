"""What a push of a manifest promises: one commit, no half of it, and a tag that is never gone while it moves."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from api.content import removal
from api.content.repository import Repository
from api.v2 import links
from cas import Digest, Name, Names, Store
from tests.wire.v2.content import Document, Home, index
from tests.wire.v2.pushing import Client, Pushed, code, pushing, sha256

CLIENTS = 8


@pytest.fixture
def home(client: Client) -> Home:
    return Home(client)


def commits(registry: Pushed) -> int:
    """How many durable commits the index has seen."""
    return int(registry.store._parts.index._env._env.info()["last_txnid"])  # noqa: SLF001 - counted, not timed


@pytest.mark.parametrize("size", [10, 60_000])
def test_a_push_with_tags_and_a_subject_is_one_commit(registry: Pushed, home: Home, size: int) -> None:
    """So nobody ever sees a tag without its manifest, or a manifest that its subject does not list."""
    image = home.image(subject=home.numbered(1).descriptor, annotations={"x": "y" * size})
    before = commits(registry)
    assert home.put(image, f"{image.digest}?tag=a&tag=b").status_code == 201
    assert commits(registry) == before + 1
    assert (home.tags(), len(home.referrers(home.numbered(1).digest))) == (["a", "b"], 1)


def test_a_refused_push_or_delete_waits_for_no_commit(registry: Pushed, home: Home) -> None:
    """Neither a missing layer nor a missing manifest costs the disk anything."""
    before = commits(registry)
    missing = {"mediaType": "application/x", "digest": sha256(b"missing"), "size": 7}
    assert home.put(home.image(layers=[missing]), "t").status_code == 400
    assert home.delete("t") == home.delete(home.image().digest) == 404
    assert home.client.blob(home.name, sha256(b"missing"), "DELETE").status_code == 404
    assert commits(registry) == before


def test_a_pull_by_digest_is_one_look_up(registry: Pushed, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """By tag it is two, in one read."""
    image = home.push(home.image(), "t")
    looked: list[Name] = []
    reads = 0
    get, read = Name.key, Store.read

    def key(name: Name) -> bytes:
        looked.append(name)
        return get(name)

    def counted(store: Store, look: object) -> object:
        nonlocal reads
        reads += 1
        return read(store, look)  # type: ignore[arg-type]

    monkeypatch.setattr(Name, "key", key)
    monkeypatch.setattr(Store, "read", counted)
    assert home.get(image.digest).status_code == 200
    assert (len(looked), reads) == (1, 1)
    assert home.get("t").status_code == 200
    assert (len(looked), reads) == (3, 2)


def together(registry: Pushed, work: list[str], act: Callable[[Client, str], int]) -> list[int]:
    """Let each piece of work be done by a client of its own, all at once; return the statuses."""
    barrier = threading.Barrier(len(work))

    def one(what: str) -> int:
        with closing(registry.client()) as client:
            barrier.wait()
            return act(client, what)

    with ThreadPoolExecutor(len(work)) as pool:
        return list(pool.map(one, work))


def test_a_tag_that_many_push_at_once_has_one_winner(registry: Pushed, home: Home) -> None:
    """And is there at every moment, as one of what was pushed; `If-None-Match` lets exactly one of them through."""
    images = {str(number): home.numbered(number) for number in range(CLIENTS)}
    home.push(images["0"], "moving")
    valid = {each.body for each in images.values()}

    def act(client: Client, number: str) -> int:
        path = home.path("moving")
        status = client.ask("PUT", path, images[number].body, content_type=images[number].type).status_code
        for _ in range(5):
            assert client.ask("GET", path).content in valid
        return status

    assert together(registry, list(images), act) == [201] * CLIENTS

    def once(client: Client, number: str) -> int:
        headers = {"content_type": images[number].type, "if_none_match": "*"}
        return client.ask("PUT", home.path("once"), images[number].body, **headers).status_code

    assert sorted(together(registry, list(images), once)) == [201] + [412] * (CLIENTS - 1)


def push_or_delete(home: Home, image: Document, reference: str, gone: str, client: Client, what: str) -> int:
    """Push an image, or delete what is at a path."""
    if what == "delete":
        return client.ask("DELETE", gone).status_code
    return client.ask("PUT", home.path(reference), image.body, content_type=image.type).status_code


def test_no_manifest_is_taken_whose_layer_a_racing_delete_took(
    registry: Pushed, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However late the delete comes: here, after the push looked and before its change is made."""
    gone, change = [home.layers[0]], Store.change

    def late(store: Store, edit: Callable[[Names], object], *, frees: bool = False) -> object:
        if gone:
            digest = Digest.of(gone.pop())
            change(store, lambda names: links.delete(names, Repository.of(home.name), digest))
        return change(store, edit, frees=frees)

    monkeypatch.setattr(Store, "change", late)
    answer = home.put(home.image(), "t")
    assert (answer.status_code, code(answer)) == (400, "MANIFEST_BLOB_UNKNOWN")
    assert not gone
    assert home.tags() == []
    assert home.get(home.image().digest).status_code == 404


def test_a_tag_never_points_to_a_manifest_that_a_racing_delete_took(registry: Pushed, home: Home) -> None:
    """After both, either the tag is there and can be pulled, or neither is."""
    for number in range(10):
        image = home.push(home.numbered(number))
        act = partial(push_or_delete, home, image, "raced", home.path(image.digest))
        assert together(registry, ["push", "delete"], act) == [201, 202]
        there = home.get("raced").status_code
        assert there == home.get(image.digest).status_code
        assert home.tags() == (["raced"] if there == 200 else [])
        home.delete(image.digest)


def test_a_repository_made_anew_inherits_nothing(registry: Pushed, home: Home) -> None:
    """Also where a process died in the middle of removing the old one: the push sees to the rest of that first."""
    repository = Repository.of(home.name)
    old = home.push(home.image(subject=home.numbered(1).descriptor), "old")
    assert registry.store.change(lambda names: removal._begin(names, repository, 0))  # noqa: SLF001 - and then it died
    assert home.client.ask("GET", f"/v2/{home.name}/tags/list").status_code == 404
    assert code(home.put(home.numbered(2), "new")) == "MANIFEST_BLOB_UNKNOWN"
    home.push(index([]), "new")
    assert home.tags() == ["new"]
    assert home.get(old.digest).status_code == 404
    assert home.referrers(home.numbered(1).digest) == []
    assert home.client.blob(home.name, sha256(home.config)).status_code == 404


def test_what_was_acknowledged_is_there_after_a_restart(tmp_path: Path) -> None:
    """Manifests of either size, tags and referrers; and what was deleted is not."""
    with pushing(tmp_path / "root") as registry, closing(registry.client()) as client:
        home = Home(client)
        small, large = (
            home.push(home.image(), "small"),
            home.push(home.image(annotations={"x": "y" * 200_000}), "large"),
        )
        about = home.push(home.image(subject=small.descriptor, artifactType="application/x"))
        gone = home.push(home.numbered(1), "gone")
        home.delete(gone.digest)
    with pushing(tmp_path / "root") as registry, closing(registry.client()) as client:
        home.client = client
        assert home.tags() == ["large", "small"]
        assert (home.get("small").content, home.get("large").content) == (small.body, large.body)
        assert [each["digest"] for each in home.referrers(small.digest)] == [about.digest]
        assert home.get(gone.digest).status_code == 404


@pytest.mark.parametrize(
    "accept",
    [
        [],
        [("accept", "application/vnd.docker.distribution.manifest.v1+prettyjws")],
        [("accept", "text/html;q=0.1")],
        [("accept", "application/vnd.oci.image.manifest.v1+json"), ("accept", "application/json, */*;q=0.5")],
    ],
)
def test_whatever_a_client_accepts_it_gets_what_is_stored(home: Home, accept: list[tuple[str, str]]) -> None:
    """No list, one line, several, types of which none fits; a mirror's `ns` parameter means nothing."""
    child = home.push(home.image())
    outer = home.push(index([child]), "multi")
    for reference in ("multi", outer.digest, "multi?ns=docker.io"):
        request = home.client.speech.build_request("GET", home.path(reference))
        del request.headers["accept"]
        for name, value in accept:
            request.headers = type(request.headers)([*request.headers.multi_items(), (name, value)])
        answer = home.client.speech.send(request)
        assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, outer.body, outer.type)
