"""What somebody asked for lately is at hand for the next one, whatever words they use: not for who may not."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx2
import pytest

from api.access.principal import Action
from tests.support.counting import counted_crossings, counted_index
from tests.support.engine import SMALL
from tests.wire.harness import PATIENCE_S
from tests.wire.v2.members import ANN, BOB, basic, members
from tests.wire.v2.pushing import MIB, Client, Pushed, new_data, new_repository, pushing
from tests.wire.v2.test_repeats import put
from tests.wire.v2.test_repeats_layers import pulled_while_they_move, removed

SIZE = 3 * MIB + 123
_words = itertools.count()


def ask(client: Client, path: str, method: str = "GET", **headers: str) -> httpx2.Response:
    """Ask as nobody did before: else the answer would be known by heart."""
    return client.ask(method, path, None, other=str(next(_words)), **headers)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Pushed]:
    """A registry of one's own, whose blobs lie in many small packs."""
    with pushing(tmp_path / "root", engine=SMALL) as registry:
        yield registry


def pushed(client: Client) -> dict[str, str]:
    """Push what can be asked for; return the paths."""
    repository = new_repository()
    digest = put(client, repository, "v1")
    small, layer = (client.push(repository, new_data(size)) for size in (5000, SIZE))
    places = {"tag": "manifests/v1", "manifest": f"manifests/{digest}", "small": f"blobs/{small}"}
    return {name: f"/v2/{repository}/{place}" for name, place in {**places, "layer": f"blobs/{layer}"}.items()}


@pytest.mark.usefixtures("all_in_memory")
@pytest.mark.parametrize(
    ("what", "method"), [*itertools.product(["tag", "manifest"], ["GET", "HEAD"]), ("small", "GET"), ("layer", "GET")]
)
def test_what_was_asked_for_is_not_looked_up_for_the_next_one(client: Client, what: str, method: str) -> None:
    """No look at the index and no thread; once something else was pushed, one look, and no thread."""
    path = pushed(client)[what]
    first = ask(client, path, method)
    for looks in (0, 1, 0):
        if looks:
            client.push(new_repository(), new_data(100))
        with counted_index() as index, counted_crossings() as steps:
            again = ask(client, path, method)
        assert (index.reads, steps) == (looks, [])
        assert (again.status_code, again.content) == (200, first.content)
        assert {**again.headers, "date": ""} == {**first.headers, "date": ""}


def test_what_nobody_asked_for_within_a_minute_is_looked_up_by_a_thread(registry: Pushed, client: Client) -> None:
    """It may have to come from the disk by now."""
    for path, wait_s, expected in itertools.product(pushed(client).values(), (59, 61), (True, False)):
        ask(client, path)
        registry.clock.now += wait_s if expected else 0
        client.push(new_repository(), new_data(100))
        with counted_crossings() as steps:
            assert ask(client, path).status_code == 200
        assert steps == (["_open"] if expected and wait_s > 60 else [])


def test_parts_of_what_is_at_hand_are_the_right_ones(client: Client) -> None:
    """Of a layer, and of a blob that lies in the index."""
    repository = new_repository()
    for data in (new_data(5000), new_data(SIZE)):
        path = f"/v2/{repository}/blobs/{client.push(repository, data)}"
        for _ in range(2):
            assert ask(client, path).content == data
            part = ask(client, path, range="bytes=5-1004")
            assert (part.status_code, part.content) == (206, data[5:1005])
            assert data[100:110] in ask(client, path, range="bytes=0-9,100-109").content
            assert ask(client, path, range=f"bytes={SIZE}-").status_code == 416
            assert ask(client, path, "HEAD").headers["content-length"] == str(len(data))
            assert ask(client, path, if_none_match=f'"{path.rpartition("/")[2]}"').status_code == 304


def test_a_tag_that_moves_is_seen_by_the_next_one(client: Client) -> None:
    """And one that goes is gone."""
    repository = new_repository()
    for number in range(3):
        digest = put(client, repository, "v1", annotations={"number": str(number)})
        for _ in range(2):
            assert ask(client, f"/v2/{repository}/manifests/v1").headers["docker-content-digest"] == digest
    assert client.ask("DELETE", f"/v2/{repository}/manifests/v1").status_code == 202
    assert ask(client, f"/v2/{repository}/manifests/v1").status_code == 404


@pytest.mark.parametrize("what", ["tag", "manifest", "small", "layer"])
def test_what_is_deleted_is_gone_for_the_next_one(client: Client, what: str) -> None:
    """Though its bytes are still there; pushed again, it is there again."""
    path = pushed(client)[what]
    assert [ask(client, path).status_code for _ in range(2)] == [200, 200]
    assert client.ask("DELETE", path).status_code == 202
    assert [ask(client, path).status_code for _ in range(2)] == [404, 404]


def test_who_may_not_pull_gets_nothing_of_what_others_pulled(tmp_path: Path) -> None:
    """Rights are looked at for each, and a right that was taken is gone at once."""
    with members(tmp_path / "root") as registry:
        manifest, blob = registry.push("ann/box", ANN)
        paths = [f"/v2/ann/box/{place}" for place in ("manifests/latest", f"manifests/{manifest}", f"blobs/{blob}")]
        for rights, bob in (((), 403), ((Action.PULL,), 200), ((), 403)):
            registry.grant("bob", "ann/box", *rights)
            for path, (who, status) in itertools.product(paths, [(ANN, 200), (BOB, bob), (None, 401)] * 2):
                assert registry.ask("GET", path, who and basic(who)).status_code == status


def test_layers_move_from_pack_to_pack_and_stay_what_they_are_to_everybody(own: Pushed) -> None:
    """Pulled by several clients, each time in other words, while collections take what lies beside them."""
    pulled_while_they_move(
        own, lambda client, repository, digest: ask(client, f"/v2/{repository}/blobs/{digest}").content
    )


def test_a_layer_at_hand_whose_pack_ends_early_is_looked_into(tmp_path: Path) -> None:
    """Nobody would notice else: its places are looked up, and no byte of it."""
    data, marked = new_data(SIZE), threading.Event()
    with pushing(tmp_path / "root") as registry, closing(registry.client()) as client:
        path = f"/v2/a/b/blobs/{client.push('a/b', data)}"
        registry.store.when_doubted(marked.set)
        assert [ask(client, path).content == data for _ in range(2)] == [True] * 2
        pack = max((tmp_path / "root" / "packs").rglob("*.pack"), key=lambda path: path.stat().st_size)
        pack.chmod(0o640)
        os.truncate(pack, SIZE // 2)
        with pytest.raises(httpx2.TransportError):
            ask(client, path)
        assert marked.wait(PATIENCE_S)
        assert registry.store.stats().doubted == 1


def test_what_is_at_hand_keeps_no_space(own: Pushed) -> None:
    """After a collection no file of it is in use."""
    with closing(own.client()) as client:
        digest = client.push("a/b", data := new_data(SIZE))
        for _ in range(3):
            assert ask(client, f"/v2/a/b/blobs/{digest}").content == data
        removed(own.store, client, "a/b", digest)
        assert not any(entry.users for entry in own.store._parts.files._open.values())  # noqa: SLF001
        assert ask(client, f"/v2/a/b/blobs/{digest}").status_code == 404
