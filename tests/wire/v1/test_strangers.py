"""What is private stays so, on every route of the table: a stranger learns nothing, not even that it is there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import pytest

from api.v1.routes import TABLE
from tests.v1client import Answer
from tests.wire.v1.talk import WANT, Guarded, basic, image_json, new_id, payload, token

LAYER = b"layer 0 of alice/secret"
ROUTES = [(path, method) for path, entries in TABLE for method in (*entries, *(["HEAD"] if "GET" in entries else []))]


class Target(NamedTuple):
    """What somebody aims at, who is not allowed to."""

    repository: str
    image_id: str
    user: str


@dataclass
class House:
    """A registry in which Alice keeps something private."""

    guarded: Guarded
    ids: list[str]
    uploading: str

    def ask(self, method: str, path: str, target: Target, headers: Mapping[str, str]) -> Answer:
        filled = path.replace("{repo:path}", target.repository).replace("{id}", target.image_id)
        filled = filled.replace("{tag}", "latest").replace("{name}", target.user)
        body = b"" if method in {"GET", "HEAD", "DELETE"} else self.body(filled, target)
        checksum = {"X-Docker-Checksum-Payload": payload(image_json(target.image_id), LAYER)}
        return self.guarded.registry.ask(method, filled, body or None, {**WANT, **checksum, **headers})

    @staticmethod
    def body(path: str, target: Target) -> bytes:
        last = path.rsplit("/", 1)[1]
        content = {
            "json": image_json(target.image_id),
            "layer": LAYER,
            "latest": json.dumps(target.image_id).encode(),
            "properties": b'{"access": "public"}',
            "checksum": b"",
            target.user: b'{"password": "taken over"}',
            "users": b'{"username": "' + target.user.encode() + b'"}',
        }
        return content.get(last, json.dumps([{"id": target.image_id}]).encode())

    def as_it_was(self) -> object:
        """Everything of Alice's, as she sees it."""
        client = self.guarded.client("alice")
        pulled = client.pull("alice/secret", "latest")
        tags = client.registry("GET", "/v1/repositories/alice/secret/tags").value
        access = client.registry("GET", "/v1/repositories/alice/secret/properties", headers=basic("alice")).value
        return pulled, tags, access


@pytest.fixture
def house(guarded: Guarded) -> House:
    for name in ("alice", "bob"):
        guarded.account(name)
    guarded.account("root", admin=True)
    ids = guarded.push("alice", "alice/secret", layers=2)
    guarded.push("bob", "bob/own")
    guarded.push("alice", "alice/shown")
    guarded.publish("alice/shown")
    uploading = new_id()
    began = guarded.registry.ask("PUT", "/v1/repositories/alice/secret/", b"[]", basic("alice"))
    body = image_json(uploading)
    assert guarded.registry.ask("PUT", f"/v1/images/{uploading}/json", body, token(began)).status == 200
    return House(guarded, ids, uploading)


def outsiders(house: House) -> Iterator[tuple[str, dict[str, str]]]:
    """Everybody who has no business in alice/secret, with every kind of credential."""
    ask = house.guarded.registry.ask
    bob, want = basic("bob"), WANT
    yield "nobody", {}
    yield "nobody, in so many words", {"Authorization": "Basic Og=="}
    yield "nobody, with an empty token", {"Authorization": "Token "}
    yield "nobody, with a token", token(ask("GET", "/v1/repositories/alice/shown/images", None, want))
    yield "bob", bob
    yield "bob, who writes his own", token(ask("PUT", "/v1/repositories/bob/own/", b"[]", bob))
    yield "bob, who reads his own", token(ask("GET", "/v1/repositories/bob/own/images", None, bob | want))
    yield "bob, who deletes his own", token(ask("DELETE", "/v1/repositories/bob/own/images", None, bob | want))
    good = token(ask("PUT", "/v1/repositories/bob/own/", b"[]", bob))["Authorization"]
    yield "bob, with a forged token", {"Authorization": good.replace("bob/own", "alice/secret")}
    yield "bob, with something unreadable", {"Authorization": "Basic alice:secret"}


def test_nobody_gets_at_what_is_private_by_any_route_or_learns_that_it_is_there(house: House) -> None:
    """Each route answers a stranger as it would if there were nothing; and nothing of Alice's is changed."""
    before = house.as_it_was()
    secrets = [b"alice/secret", LAYER, *(image_id.encode() for image_id in house.ids)]
    twins = {known: new_id() for known in (*house.ids, house.uploading)}
    for who, headers in outsiders(house):
        for known, unknown in twins.items():
            there, nowhere = Target("alice/secret", known, "alice"), Target("alice/nothing", unknown, "nobody.else")
            for path, method in ROUTES:
                real = house.ask(method, path, there, headers)
                unreal = house.ask(method, path, nowhere, headers)
                place = (who, method, path)
                assert (real.status, real.body) == (unreal.status, unreal.body), place
                assert real.headers["WWW-Authenticate"] == unreal.headers["WWW-Authenticate"], place
                assert real.headers["X-Docker-Token"] is None, place
                assert real.status < 500, place
                if method in {"GET", "HEAD", "DELETE"} and path != "/v1/search":
                    assert not any(secret in real.body for secret in secrets), place
                assert b"alice/secret" not in real.body, place
    assert house.as_it_was() == before


def test_to_list_an_id_opens_nothing(house: House) -> None:
    """Ids are no secrets: whoever heard of one can write it into a list, name it as a parent, or tag it."""
    bob, ask = basic("bob"), house.guarded.registry.ask
    base, top = house.ids
    listed = json.dumps([{"id": image_id} for image_id in house.ids]).encode()
    writes = token(ask("PUT", "/v1/repositories/bob/own/", listed, bob))
    for headers in (writes, bob, token(ask("GET", "/v1/repositories/bob/own/images", None, bob | WANT))):
        for image_id in house.ids:
            for part in ("json", "layer", "ancestry", "files", "diff"):
                assert ask("GET", f"/v1/images/{image_id}/{part}", None, headers).status == 404
    for headers in (writes, bob):
        assert ask("PUT", "/v1/repositories/bob/own/tags/mine", json.dumps(top).encode(), headers).status == 404
        child = new_id()
        answer = ask("PUT", f"/v1/images/{child}/json", image_json(child, base), headers)
        assert (answer.status, answer.value) == (400, {"error": "Image depends on a non existing parent"})


def test_pretending_to_have_a_parent_opens_nothing(house: House) -> None:
    """Bob begins an image under an id of Alice's and pushes a child of it, which nobody could pull: no tag for that."""
    bob, ask = basic("bob"), house.guarded.registry.ask
    base, child = house.ids[0], new_id()
    for headers in (token(ask("PUT", "/v1/repositories/bob/own/", b"[]", bob)), bob):
        assert ask("PUT", f"/v1/images/{base}/json", image_json(base), headers).status == 200
        body = image_json(child, base)
        assert ask("PUT", f"/v1/images/{child}/json", body, headers).status == 200
        assert ask("PUT", f"/v1/images/{child}/layer", b"a child's", headers).status == 200
        proof = {"X-Docker-Checksum-Payload": payload(body, b"a child's")}
        assert ask("PUT", f"/v1/images/{child}/checksum", None, headers | proof).status == 200
        for repository in ("bob/own", "bob/other"):
            assert (
                ask("PUT", f"/v1/repositories/{repository}/tags/child", json.dumps(child).encode(), bob).status == 404
            )
        for reading in (bob, headers):
            assert ask("GET", f"/v1/images/{base}/json", None, reading).status in {400, 404}
            assert ask("GET", f"/v1/images/{base}/layer", None, reading).status in {400, 404}
            assert ask("GET", f"/v1/images/{child}/ancestry", None, reading).status == 400
        child = new_id()


def test_whoever_proves_to_have_an_image_sees_it_and_one_copy_is_kept(house: House) -> None:
    """The probe says it is not there, the upload is taken again, and the same bytes are the same image."""
    ask, bob = house.guarded.registry.ask, basic("bob")
    house.guarded.account("carol")
    image_id, body = new_id(), b""
    for number, (user, layer) in enumerate((("alice", b"common"), ("bob", b"common"), ("carol", b"other"))):
        writes = token(ask("PUT", f"/v1/repositories/{user}/r{number}/", b"[]", basic(user)))
        body = image_json(image_id)
        assert ask("GET", f"/v1/images/{image_id}/json", None, writes).status == 404
        assert ask("PUT", f"/v1/images/{image_id}/json", body, writes).status == 200
        assert ask("GET", f"/v1/images/{image_id}/json", None, writes).status == 400
        assert ask("PUT", f"/v1/images/{image_id}/layer", layer, writes).status == 200
        proof = {"X-Docker-Checksum-Payload": payload(body, layer)}
        done = ask("PUT", f"/v1/images/{image_id}/checksum", None, writes | proof)
        if layer == b"common":
            assert done.status == 200
            assert ask("GET", f"/v1/images/{image_id}/layer", None, writes).body == layer
            assert ask("PUT", f"/v1/images/{image_id}/json", body, writes).status == 409
        else:
            assert (done.status, done.value) == (409, {"error": "Cannot set this image checksum"})
            assert ask("GET", f"/v1/images/{image_id}/layer", None, writes).status == 400
    assert ask("GET", f"/v1/images/{image_id}/layer", None, bob).body == b"common"


def test_an_image_is_seen_as_long_as_some_repository_shows_it(house: House) -> None:
    """By password: from any repository that the user may pull; public, granted, taken back, deleted."""
    guarded, ask = house.guarded, house.guarded.registry.ask
    top = house.ids[1]

    def seen(*, user: str | None = "bob") -> bool:
        headers = basic(user) if user is not None else {}
        statuses = {ask("GET", f"/v1/images/{each}/json", None, headers).status for each in house.ids}
        assert statuses in ({200}, {404 if user is not None else 401})
        return statuses == {200}

    assert not seen()
    guarded.grant("bob", "alice/secret", "pull")
    assert seen()
    guarded.grant("bob", "alice/secret")
    assert not seen()
    guarded.publish("alice/secret")
    assert seen()
    assert seen(user=None)
    assert ask("PUT", "/v1/repositories/bob/copy/tags/1", json.dumps(top).encode(), basic("bob")).status == 200
    assert ask("DELETE", "/v1/repositories/alice/secret/", None, basic("alice")).status == 200
    assert seen()
    assert not seen(user=None)
    assert not seen(user="alice")
    assert ask("DELETE", "/v1/repositories/bob/copy/", None, basic("bob")).status == 200
    assert not seen()
    assert seen(user="root")
