"""Tokens as they are used: over a whole push, by every worker, for what their owner may still do."""

from __future__ import annotations

import json
from functools import partial

import pytest

from api.access import grants, keys, users
from tests.support.serving import StartServer
from tests.v1client import AGENT, Client, chain
from tests.wire.harness import NOW
from tests.wire.v1.talk import WANT, Guarded, basic, image_json, new_id, payload, token

REPO = "/v1/repositories/bob/app"
DAY_S = 24 * 3600


@pytest.fixture
def shop(guarded: Guarded) -> Guarded:
    for name in ("bob", "eve"):
        guarded.account(name)
    guarded.push("bob", "bob/app")
    return guarded


def writes(shop: Guarded, repository: str = "bob/app", user: str = "bob") -> dict[str, str]:
    return token(shop.registry.ask("PUT", f"/v1/repositories/{repository}/", b"[]", basic(user)))


def reads(shop: Guarded, user: str | None = "bob") -> dict[str, str]:
    headers = basic(user) if user is not None else {}
    return token(shop.registry.ask("GET", f"{REPO}/images", None, headers | WANT))


def test_a_token_is_good_for_its_repository_and_access_alone(shop: Guarded) -> None:
    """A write token also reads, because a push asks what is there already; a delete token asks the list."""
    ask = shop.registry.ask
    top = ask("GET", f"{REPO}/tags/latest", None, reads(shop)).value
    tag, delete = json.dumps(top).encode(), token(ask("DELETE", f"{REPO}/images", None, basic("bob") | WANT))
    for headers, method, path, body, status in (
        (writes(shop), "GET", f"{REPO}/tags", None, 200),
        (writes(shop), "GET", f"/v1/images/{top}/json", None, 200),
        (writes(shop), "HEAD", f"/v1/images/{top}/layer", None, 200),
        (writes(shop), "PUT", f"{REPO}/tags/2", tag, 200),
        (writes(shop), "DELETE", f"{REPO}/tags/2", None, 401),
        (writes(shop), "GET", f"{REPO}/images", None, 200),
        (writes(shop), "PUT", f"{REPO}/images", b"[]", 204),
        (writes(shop), "PUT", f"{REPO}/auth", None, 200),
        (writes(shop), "PUT", f"{REPO}/properties", b'{"access": "public"}', 401),
        (writes(shop), "GET", "/v1/users/", None, 401),
        (writes(shop), "GET", "/v1/search?q=bob", None, 200),
        (reads(shop), "GET", f"{REPO}/tags", None, 200),
        (reads(shop), "PUT", f"{REPO}/tags/2", tag, 401),
        (reads(shop), "PUT", f"/v1/images/{new_id()}/json", b"{}", 401),
        (reads(shop), "PUT", f"{REPO}/auth", None, 401),
        (writes(shop, "bob/other"), "GET", f"{REPO}/tags", None, 401),
        (writes(shop, "bob/other"), "GET", f"/v1/images/{top}/json", None, 404),
        (writes(shop, "bob/other"), "PUT", f"{REPO}/auth", None, 401),
        (delete, "GET", f"{REPO}/images", None, 200),
        (delete, "PUT", f"{REPO}/auth", None, 200),
        (delete, "PUT", f"{REPO}/tags/2", tag, 401),
        (delete, "DELETE", f"{REPO}/tags/2", None, 200),
        (delete, "DELETE", REPO, None, 200),
        (delete, "DELETE", REPO, None, 200),
    ):
        assert ask(method, path, body, headers).status == status, (headers, method, path)


def test_a_token_ends_with_its_owners_rights(shop: Guarded) -> None:
    """What was taken back is gone at once, whatever somebody still has in hand."""
    shop.grant("eve", "bob/app", "pull", "push")
    mine = writes(shop, user="eve")
    assert shop.registry.ask("GET", f"{REPO}/tags", None, mine).status == 200
    shop.grant("eve", "bob/app", "pull")
    assert shop.registry.ask("GET", f"{REPO}/tags", None, mine).status == 200
    assert shop.registry.ask("PUT", f"{REPO}/images", b"[]", mine).status == 401
    shop.registry.store.change(lambda names: grants.delete(names, "eve", "bob/app"))
    assert shop.registry.ask("GET", f"{REPO}/tags", None, mine).status == 401


def test_a_token_ends_with_the_password_and_the_account_it_was_made_under(shop: Guarded) -> None:
    """A later account of the same name is somebody else, and sees nothing the first one had in hand."""
    ask = shop.registry.ask
    mine, image_id = writes(shop), new_id()
    body = image_json(image_id)
    assert ask("PUT", f"/v1/images/{image_id}/json", body, basic("bob")).status == 200
    assert ask("PUT", f"/v1/images/{image_id}/layer", b"bob's", basic("bob")).status == 200
    proof = {"X-Docker-Checksum-Payload": payload(body, b"bob's")}
    assert ask("PUT", f"/v1/images/{image_id}/checksum", None, basic("bob") | proof).status == 200
    assert ask("GET", f"/v1/images/{image_id}/layer", None, basic("bob")).status == 200
    shop.registry.store.change(lambda names: users.remove(names, "bob"))
    assert ask("GET", f"{REPO}/tags", None, mine).status == 401
    shop.account("bob")
    assert ask("GET", f"{REPO}/tags", None, mine).status == 401
    assert ask("GET", f"/v1/images/{image_id}/layer", None, basic("bob")).status == 404
    fresh = writes(shop)
    assert ask("PUT", "/v1/users/bob/", b'{"password": "another"}', basic("bob")).status == 204
    assert ask("GET", f"{REPO}/tags", None, fresh).status == 401


def test_a_token_to_what_was_public_ends_when_it_is_not(shop: Guarded) -> None:
    """Nobody in particular may hold one, and may do no more with it than without."""
    shop.publish("bob/app")
    mine = reads(shop, user=None)
    assert shop.registry.ask("GET", f"{REPO}/tags", None, mine).status == 200
    assert shop.registry.ask("PUT", f"{REPO}/properties", b'{"access": "private"}', basic("bob")).status == 200
    assert shop.registry.ask("GET", f"{REPO}/tags", None, mine).status == 401


def test_an_expired_token_is_none(shop: Guarded) -> None:
    """To the second; for reading and for beginning something new."""
    ask, mine = shop.registry.ask, writes(shop)
    image_id = new_id()
    shop.registry.clock.now = NOW + DAY_S
    assert ask("GET", f"{REPO}/tags", None, mine).status == 200
    shop.registry.clock.now += 1
    assert ask("GET", f"{REPO}/tags", None, mine).status == 401
    assert ask("PUT", f"{REPO}/images", b"[]", mine).status == 401
    assert ask("PUT", f"/v1/images/{image_id}/json", image_json(image_id), mine).status == 401
    assert ask("PUT", f"{REPO}/auth", None, mine).status == 401


def test_an_upload_that_outlasts_its_token_is_finished_with_it(shop: Guarded) -> None:
    """Layer, checksum, the images that follow and the tag; but nothing else, and nothing for long."""
    ask, mine = shop.registry.ask, writes(shop)
    first, second = new_id(), new_id()
    assert ask("PUT", f"/v1/images/{first}/json", image_json(first), mine).status == 200
    shop.registry.clock.now = NOW + DAY_S + 60
    parent: str | None = None
    for image_id in (first, second):
        body = image_json(image_id, parent)
        proof = {"X-Docker-Checksum-Payload": payload(body, b"slow")}
        assert ask("PUT", f"/v1/images/{image_id}/json", body, mine).status == 200
        assert ask("PUT", f"/v1/images/{image_id}/layer", b"slow", mine).status == 200
        assert ask("PUT", f"/v1/images/{image_id}/checksum", None, mine | proof).status == 200
        parent = image_id
    tag = json.dumps(second).encode()
    assert ask("PUT", f"{REPO}/tags/slow", tag, mine).status == 200
    old = ask("GET", f"{REPO}/tags/latest", None, basic("bob")).value
    shop.registry.clock.now += 3601
    for target in (second, old):
        refused = ask("PUT", f"{REPO}/tags/slow", json.dumps(target).encode(), mine)
        assert (refused.status, refused.headers["WWW-Authenticate"]) == (401, "Token")
    other = new_id()
    assert ask("PUT", f"/v1/images/{other}/json", image_json(other, second), mine).status == 401


def test_a_rotated_key_leaves_the_tokens_of_the_older_one_good_until_it_is_dropped(shop: Guarded) -> None:
    """Seen at once: the keyring is in the store."""
    ask, mine = shop.registry.ask, writes(shop)
    for keep, status in ((1, 200), (0, 401)):
        shop.registry.store.change(partial(keys.rotate, now=NOW, keep=keep))
        assert ask("GET", f"{REPO}/tags", None, mine).status == status
        assert ask("GET", f"{REPO}/tags", None, writes(shop)).status == 200


def test_tokens_survive_kill_9_and_are_good_for_every_worker(server: StartServer) -> None:
    """Real processes: a push begins before and ends after, its requests answered by whoever is free."""
    running = server(workers=2, flags=["--mode", "auth"])
    account = b'{"username": "bob", "password": "secret"}'
    connection = running.connection()
    connection.request("POST", "/v1/users/", account, {"Connection": "close"})
    assert connection.getresponse().status == 201
    connection.close()
    client = Client(running.host, running.port, basic=basic("bob")["Authorization"], agent=AGENT)
    images = chain([b"one", b"two"], seed="survives")
    client.push("bob/app", images, ["latest"])
    assert client.token is not None
    running.kill()
    again = server(root=running.root, workers=2, flags=["--mode", "auth"])
    for _ in range(20):
        status, _ = again.get("/v1/repositories/bob/app/tags", {"Authorization": f"Token {client.token}"})
        assert status == 200
    assert again.get("/v1/repositories/bob/app/tags")[0] == 401
