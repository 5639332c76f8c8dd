"""Manifests that are asked for again and again: no work but the answer, and never an old or a forbidden one."""

from __future__ import annotations

import json
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest

from api.access import keys
from api.access.settings import AccessSettings
from api.app import build
from api.config import HttpSettings
from api.content import repositories
from api.content.repositories import Access
from api.content.repository import Repository
from api.v2 import sessions
from api.zerocopy import sent
from cas import Store
from tests.support.counting import counted_crossings, counted_index
from tests.support.serving import StartServer
from tests.wire.harness import Clock, serving
from tests.wire.v2.members import ANN, members
from tests.wire.v2.pushing import Client, Pushed, new_data, new_repository, sha256, sha512

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
WORKERS = 2
ANNS = Repository.of("ann/box")


def put(client: Client, repository: str, tag: str, **more: Any) -> str:
    """Push an image whose blobs are pushed before; return its manifest's digest."""
    config = new_data(100)
    client.push(repository, config)
    said = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": sha256(config), "size": 100},
        "layers": [],
        **more,
    }
    body = json.dumps(said).encode()
    answer = client.ask("PUT", f"/v2/{repository}/manifests/{tag}", body, content_type=MANIFEST)
    assert answer.status_code == 201, answer.text
    return sha256(body)


def seen(client: Client, repository: str, reference: str, method: str = "GET", has: str = "") -> httpx2.Response:
    return client.ask(method, f"/v2/{repository}/manifests/{reference}", None, if_none_match=has)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_manifest_asked_for_again_costs_one_write_and_no_look_at_the_index(client: Client, method: str) -> None:
    """By tag and by digest, and where the client has it already."""
    digest = put(client, repository := new_repository(), "v1")
    for reference, has, status in (("v1", "", 200), (digest, "", 200), ("v1", f'"{digest}"', 304)):
        first = seen(client, repository, reference, method, has)
        repeats, writes = sent.repeats, sent.writes
        with counted_index() as index:
            again = seen(client, repository, reference, method, has)
        assert (sent.repeats - repeats, sent.writes - writes) == (1, 1)
        assert (index.reads, index.look_ups) == (0, 0)
        assert first.status_code == again.status_code == status
        assert first.content == again.content
        assert {**first.headers, "date": ""} == {**again.headers, "date": ""}


def test_a_tag_that_moves_is_seen_at_the_next_question(client: Client) -> None:
    """And one that goes is gone."""
    repository = new_repository()
    for number in range(3):
        digest = put(client, repository, "v1", annotations={"number": str(number)})
        for _ in range(2):
            assert seen(client, repository, "v1").headers["docker-content-digest"] == digest
    assert client.ask("DELETE", f"/v2/{repository}/manifests/v1").status_code == 202
    assert seen(client, repository, "v1").status_code == 404


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_push_of_something_else_costs_two_look_ups(client: Client, method: str) -> None:
    """The tag and the manifest are as they were; nothing is parsed or crosses to a thread."""
    put(client, repository := new_repository(), "v1")
    first = seen(client, repository, "v1", method)
    for number in range(3):
        put(client, repository, f"other{number}")
        repeats = sent.repeats
        with counted_index() as index, counted_crossings() as steps:
            again = seen(client, repository, "v1", method)
        assert (sent.repeats - repeats, steps) == (1, [])
        assert (index.reads, index.look_ups) == (1, 2)
        assert first.content == again.content


def test_a_change_by_another_process_is_seen_at_the_next_question(server: StartServer) -> None:
    """Whichever worker took the push, all of them answer with what it pushed."""
    running = server(workers=WORKERS)
    with ExitStack() as stack:
        clients = [stack.enter_context(closing(Client(running.url))) for _ in range(4 * WORKERS)]
        repository = new_repository()
        for number in range(5):
            digest = put(clients[number], repository, "v1", annotations={"number": str(number)})
            for client in clients * 2:
                assert seen(client, repository, "v1").headers["docker-content-digest"] == digest


def opened(client: Client, repository: str, query: str = "") -> httpx2.Response:
    answer = client.ask("POST", f"/v2/{repository}/blobs/uploads/{query}")
    assert answer.status_code == 202, answer.text
    return answer


@pytest.mark.parametrize("query", ["", "?digest-algorithm=sha512"])
def test_uploads_opened_by_the_same_words_cost_one_write_and_are_different_ones(client: Client, query: str) -> None:
    """Each takes its own bytes to its own end."""
    repository = new_repository()
    first, digest = opened(client, repository, query), sha512 if query else sha256
    repeats, writes = sent.repeats, sent.writes
    with counted_index() as index:
        later = [opened(client, repository, query) for _ in range(3)]
    assert (sent.repeats - repeats, sent.writes - writes) == (3, 3)
    assert (index.reads, index.look_ups) == (0, 0)
    places = [answer.headers["location"] for answer in (first, *later)]
    assert len({*places}) == 1 + len(later)
    for answer in later:
        session = answer.headers["docker-upload-uuid"]
        assert answer.headers["location"] == f"/v2/{repository}/blobs/uploads/{session}"
        assert {**answer.headers, "date": "", "location": "", "docker-upload-uuid": ""} == {
            **first.headers,
            "date": "",
            "location": "",
            "docker-upload-uuid": "",
        }
    for place in places:
        data = new_data(100)
        assert client.put(place, digest(data), data).status_code == 201
        assert client.blob(repository, digest(data)).content == data


def test_what_could_not_be_mounted_is_looked_for_again_each_time(client: Client) -> None:
    """It may have been pushed since, there or through the very upload that was opened instead."""
    source, target, data = new_repository(), new_repository(), new_data(100)
    query = f"?mount={sha256(data)}&from={source}"
    repeats = sent.repeats
    for _ in range(2):
        opened(client, target, query)
    client.push(source, data)
    answer = client.ask("POST", f"/v2/{target}/blobs/uploads/{query}")
    assert (answer.status_code, answer.headers["location"]) == (201, f"/v2/{target}/blobs/{sha256(data)}")
    assert sent.repeats == repeats


def test_an_upload_opened_by_heart_is_signed_by_the_newest_key_and_as_old_as_it_is(registry: Pushed) -> None:
    """A rotation that leaves no older keys makes what was signed by them void, and nothing after it."""
    with closing(registry.client()) as client:
        repository = new_repository()
        before = [opened(client, repository).headers["location"] for _ in range(2)]
        registry.store.change(lambda names: keys.rotate(names, registry.clock.now, 0))
        repeats = sent.repeats
        after = [opened(client, repository).headers["location"] for _ in range(3)]
        assert sent.repeats - repeats == 2
        assert [client.ask("GET", place).status_code for place in before] == [404, 404]
        assert [client.ask("GET", place).status_code for place in after] == [204, 204, 204]
        registry.clock.now += sessions.LIFE_S - 10
        after += [opened(client, repository).headers["location"] for _ in range(2)]
        registry.clock.now += 11
        assert [client.ask("GET", place).status_code for place in after] == [404, 404, 404, 204, 204]


def test_who_may_not_push_is_not_told_where_to_by_heart(tmp_path: Path) -> None:
    """Where people are told apart each POST is one more question who asks."""
    with members(tmp_path / "root") as registry:
        token = registry.token("repository:ann/box:pull,push", who=ANN)
        path, repeats = "/v2/ann/box/blobs/uploads/", sent.repeats
        for _ in range(2):
            assert registry.ask("POST", path, token).status_code == 202
            assert registry.ask("POST", path).status_code == 401
        registry.clock.now += 3600
        assert registry.ask("POST", path, token).status_code == 401
        assert sent.repeats == repeats


def test_what_is_forbidden_from_now_on_is_not_given_again(tmp_path: Path) -> None:
    """Where people are told apart, nothing is given again at all: rights are looked at each time."""
    with members(tmp_path / "root") as registry:
        registry.push("ann/box", ANN)
        token = registry.token("repository:ann/box:pull", who=ANN)
        path, repeats = "/v2/ann/box/manifests/latest", sent.repeats
        for access, status in ((Access.PUBLIC, 200), (Access.PRIVATE, 401), (Access.PUBLIC, 200)):
            registry.pushed.store.change(partial(repositories.set_access, repository=ANNS, access=access))
            for _ in range(2):
                assert registry.ask("GET", path).status_code == status
                assert registry.ask("GET", path, token).status_code == 200
        registry.clock.now += 3600
        assert registry.ask("GET", path, token).status_code == 401
        assert sent.repeats == repeats


def test_a_server_that_is_not_told_the_moment_looks_each_time(tmp_path: Path) -> None:
    """What does not wait for that is right in any case."""
    with Store.open(tmp_path / "root", create=True) as store:
        app = build(store, HttpSettings(), access=AccessSettings(), clock=Clock())
        with serving(app) as server, closing(Client("http://{}:{}".format(*server.address))) as client:
            repeats = sent.repeats
            for number in range(3):
                digest = put(client, "a", "v1", annotations={"number": str(number)})
                for _ in range(3):
                    assert seen(client, "a", "v1").headers["docker-content-digest"] == digest
            assert sent.repeats - repeats == 6 + 2  # manifests, and where to push what they name
