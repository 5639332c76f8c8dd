"""Who gets what: anonymous, a stranger, somebody with a grant, the owner, an admin."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest

from api.access import grants
from api.access.settings import AccessSettings, Mode
from api.content.repositories import Access
from api.v1.image import EMPTY_LAYER
from api.v1.settings import V1Settings
from tests.v1client import Layer, Refused, chain
from tests.wire.v1.talk import WANT, Guarded, basic, image_json, new_id, payload, refusal, running, token

LOGIN = 'Basic realm="auth required",Token'
REPO = "/v1/repositories/alice/app"
ROUTES = {
    "begin push": ("PUT", REPO, b"[]", 200),
    "end push": ("PUT", f"{REPO}/images", b"[]", 204),
    "begin pull": ("GET", f"{REPO}/images", None, 200),
    "delete token": ("DELETE", f"{REPO}/images", None, 204),
    "tags": ("GET", f"{REPO}/tags", None, 200),
    "tag": ("GET", f"{REPO}/tags/latest", None, 200),
    "put tag": ("PUT", f"{REPO}/tags/other", b"ID", 200),
    "delete tag": ("DELETE", f"{REPO}/tags/latest", None, 200),
    "read access": ("GET", f"{REPO}/properties", None, 200),
    "set access": ("PUT", f"{REPO}/properties", b'{"access": "private"}', 200),
    "delete": ("DELETE", REPO, None, 200),
}
WRITES = {"begin push", "end push", "put tag"}
DELETES = {"delete token", "delete tag", "delete"}
READS = set(ROUTES) - WRITES - DELETES - {"set access"}
ALLOWED = {
    "alice": set(ROUTES),
    "root": set(ROUTES),
    "puller": READS,
    "pusher": READS | WRITES,
    "cleaner": READS | DELETES,
    "mallory": set(),
    "anonymous": set(),
}
INDEX_ROUTES = {"begin push", "end push", "begin pull", "delete token"}


@pytest.fixture
def shop(guarded: Guarded) -> Guarded:
    """A registry in which Alice has something private, and others have rights to it."""
    for name in ("alice", "puller", "pusher", "cleaner", "mallory"):
        guarded.account(name)
    guarded.account("root", admin=True)
    guarded.grant("puller", "alice/app", "pull")
    guarded.grant("pusher", "alice/*", "pull", "push")
    guarded.grant("cleaner", "*", "pull", "delete")
    guarded.push("alice", "alice/app")
    return guarded


@pytest.mark.parametrize("who", sorted(ALLOWED))
def test_everybody_gets_what_the_policy_gives_and_nothing_else(shop: Guarded, who: str) -> None:
    """Nobody in particular is asked to log in; whoever is known is told no, or that there is nothing."""
    top = shop.registry.ask("GET", f"{REPO}/tags/latest", None, basic("alice")).value
    headers = {} if who == "anonymous" else basic(who)
    for route, (method, path, body, good) in ROUTES.items():
        sent = json.dumps(top).encode() if body == b"ID" else body
        answer = shop.registry.ask(method, path, sent, headers)
        if route in ALLOWED[who]:
            assert answer.status == good, (who, route, answer.body)
        elif who == "anonymous":
            index = route in INDEX_ROUTES or route == "delete"
            assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, LOGIN if index else "Token"), route
        else:
            assert answer.status == (404 if route in READS - INDEX_ROUTES else 403), (who, route)


def test_what_is_public_is_there_for_everybody_to_pull_and_for_nobody_to_change(shop: Guarded) -> None:
    """No credentials are needed; but wrong ones are 401, so that a typing error is seen."""
    shop.publish("alice/app")
    shop.client().pull("alice/app", "latest")
    shop.client("mallory").pull("alice/app", "latest")
    assert shop.registry.ask("PUT", REPO, b"[]", {}).status == 401
    assert shop.registry.ask("PUT", REPO, b"[]", basic("mallory")).status == 403
    wrong = shop.registry.ask("GET", f"{REPO}/images", None, basic("alice", "wrong"))
    assert (wrong.status, wrong.headers["WWW-Authenticate"]) == (401, LOGIN)
    assert wrong.body == refusal("wrong user name or password")
    shop.publish("alice/app", Access.PRIVATE)
    with pytest.raises(Refused):
        shop.client().pull("alice/app", "latest")


def test_a_first_push_makes_a_repository_where_the_name_space_is_the_pushers(shop: Guarded) -> None:
    """Their own or a granted one; private, because nobody said otherwise; the library belongs to admins."""
    ask = shop.registry.ask
    shop.push("mallory", "mallory/deep/er")
    shop.push("pusher", "alice/new")
    shop.push("root", "tool")
    for user, repository in (("mallory", "alice/mine"), ("mallory", "tool2"), ("alice", "mallory/x")):
        answer = ask("PUT", f"/v1/repositories/{repository}/", b"[]", basic(user))
        assert (answer.status, b"Access denied" in answer.body) == (403, True)
    shop.grant("mallory", "library/tool2", "pull", "push")
    shop.push("mallory", "tool2")
    for repository in ("mallory/deep/er", "alice/new", "library/tool2"):
        assert ask("GET", f"/v1/repositories/{repository}/properties", None, basic("root")).value == {
            "access": "private"
        }


def test_a_server_can_say_that_new_repositories_are_public(tmp_path_factory: pytest.TempPathFactory) -> None:
    """For a team that shares everything but the right to change it."""
    settings = AccessSettings(mode=Mode.AUTH, default_access="public")
    with running(tmp_path_factory.mktemp("public") / "root", access=settings) as registry:
        guarded = Guarded(registry, settings)
        guarded.account("alice")
        guarded.push("alice", "alice/app")
        guarded.client().pull("alice/app", "latest")


def test_passwords_alone_push_and_pull_too(shop: Guarded) -> None:
    """As scripts do: Basic on every route; the chain is seen where it is tagged, and from nowhere else before."""
    ask, alice = shop.registry.ask, basic("alice")
    parent: str | None = None
    for _ in range(3):
        image_id = new_id()
        body = image_json(image_id, parent)
        proof = {"X-Docker-Checksum-Payload": payload(body, EMPTY_LAYER)}
        assert ask("PUT", f"/v1/images/{image_id}/json", body, alice).status == 200
        assert ask("GET", f"/v1/images/{image_id}/json", None, alice).status == 400
        assert ask("PUT", f"/v1/images/{image_id}/layer", EMPTY_LAYER, alice).status == 200
        assert ask("PUT", f"/v1/images/{image_id}/checksum", None, alice | proof).status == 200
        assert ask("GET", f"/v1/images/{image_id}/json", None, alice).status == 200
        assert ask("GET", f"/v1/images/{image_id}/json", None, basic("puller")).status == 404
        parent = image_id
    assert ask("PUT", f"{REPO}/tags/script", json.dumps(parent).encode(), alice).status == 200
    ancestry = ask("GET", f"/v1/images/{parent}/ancestry", None, basic("puller"))
    assert (ancestry.status, len(ancestry.value)) == (200, 3)
    assert len(shop.client("puller").pull("alice/app", "script")) == 3
    assert ask("PUT", f"/v1/images/{new_id()}/json", b"{}", {}).status == 401


def test_passwords_alone_build_on_what_their_owner_may_pull(shop: Guarded) -> None:
    """A base that the probe said is there is a parent, too; and goes along to where the child is tagged."""
    ask, puller = shop.registry.ask, basic("puller")
    base, child = ask("GET", f"{REPO}/tags/latest", None, puller).value, new_id()
    assert ask("GET", f"/v1/images/{base}/json", None, puller).status == 200
    body = image_json(child, base)
    proof = {"X-Docker-Checksum-Payload": payload(body, EMPTY_LAYER)}
    assert ask("PUT", f"/v1/images/{child}/json", body, basic("mallory")).status == 400
    assert ask("PUT", f"/v1/images/{child}/json", body, puller).status == 200
    assert ask("PUT", f"/v1/images/{child}/layer", EMPTY_LAYER, puller).status == 200
    assert ask("PUT", f"/v1/images/{child}/checksum", None, puller | proof).status == 200
    assert ask("PUT", "/v1/repositories/puller/own/tags/1", json.dumps(child).encode(), puller).status == 200
    assert [pulled.id for pulled in shop.client("puller").pull("puller/own", "1")] == [base, child]


def test_what_an_engine_pulled_is_pushed_elsewhere_though_it_packs_it_anew(shop: Guarded) -> None:
    """An engine keeps files and no archives: what it pushes of a base is the same image in other bytes."""
    base = chain([b"a layer, packed"], seed=new_id())
    shop.client("alice").push("alice/base", base, ["1"])
    anew = replace(base[0], layer=b"a layer, packed anew")
    child = replace(*chain([b"more"], seed=new_id()), json=image_json(new_id(), anew.id))
    child = replace(child, id=json.loads(child.json)["id"])
    for user in ("mallory", "puller"):
        with pytest.raises(Refused, match="put checksum: 409"):
            shop.client(user).push(f"{user}/own", [anew, child], ["1"])
    for user, repository in (("alice", "alice/own"), ("pusher", "pusher/own"), ("root", "root/own")):
        uploaded = shop.client(user).push(repository, [anew, child], ["1"])
        assert anew.id not in uploaded
        pulled = shop.client(user).pull(repository, "1")
        assert [each.sha256 for each in pulled] == [
            hashlib.sha256(each).hexdigest() for each in (b"a layer, packed", b"more")
        ]


def test_a_token_that_expired_borrows_nothing(shop: Guarded) -> None:
    """It is good for what began before, and an image of another repository did not begin in this one."""
    ask, alice = shop.registry.ask, basic("alice")
    (base,) = shop.push("alice", "alice/base")
    body = ask("GET", f"/v1/images/{base}/json", None, alice).body
    writes = token(ask("PUT", "/v1/repositories/alice/own/", b"[]", alice))
    shop.registry.clock.now += V1Settings().token_s + 1
    for _ in range(2):
        assert ask("PUT", f"/v1/images/{base}/json", body, writes).status == 401
    writes = token(ask("PUT", "/v1/repositories/alice/own/", b"[]", alice))
    assert ask("GET", f"/v1/images/{base}/json", None, writes).status == 404
    assert ask("PUT", f"/v1/images/{base}/json", body, writes).status == 409


def test_to_know_an_image_is_to_know_its_json(shop: Guarded) -> None:
    """Who has only heard of an id pushes an image of his own, and is told that the id is taken."""
    base, *_ = shop.push("alice", "alice/base")
    own = Layer(base, image_json(base, comment="another"), b"a layer of another")
    with pytest.raises(Refused, match="put checksum: 409"):
        shop.client("alice").push("alice/own", [own], ["1"])


def test_a_parent_that_was_only_named_is_seen_as_long_as_its_repository_may_be_pulled(shop: Guarded) -> None:
    """Named by password while it could be pulled, it stays no longer than the right; what needs it gets no tag."""
    ask, guest = shop.registry.ask, basic("guest")
    shop.account("guest")
    shop.grant("guest", "alice/app", "pull")
    base, child = ask("GET", f"{REPO}/tags/latest", None, guest).value, new_id()
    body = image_json(child, base)
    proof = {"X-Docker-Checksum-Payload": payload(body, EMPTY_LAYER)}
    assert ask("PUT", f"/v1/images/{child}/json", body, guest).status == 200
    assert ask("PUT", f"/v1/images/{child}/layer", EMPTY_LAYER, guest).status == 200
    assert ask("PUT", f"/v1/images/{child}/checksum", None, guest | proof).status == 200
    assert ask("GET", f"/v1/images/{base}/layer", None, guest).status == 200
    assert shop.registry.store.change(lambda names: grants.delete(names, "guest", "alice/app"))
    assert ask("GET", f"/v1/images/{base}/layer", None, guest).status == 404
    other = new_id()
    refused = ask("PUT", f"/v1/images/{other}/json", image_json(other, base), guest)
    assert (refused.status, refused.value) == (400, {"error": "Image depends on a non existing parent"})
    for target in (child, base):
        assert ask("PUT", "/v1/repositories/guest/own/tags/1", json.dumps(target).encode(), guest).status == 404
    assert ask("GET", f"/v1/images/{base}/layer", None, guest).status == 404


def test_a_tag_shows_all_ancestors_also_those_that_came_behind_an_images_back(shop: Guarded) -> None:
    """A base that was begun anew may have got ancestors of its own; whoever pulls needs them too."""
    ask, alice = shop.registry.ask, basic("alice")
    deep, base, top = (new_id() for _ in range(3))
    bodies = [(base, image_json(base)), (top, image_json(top, base)), (deep, image_json(deep))]
    for image_id, body in [*bodies, (base, image_json(base, deep))]:
        assert ask("PUT", f"/v1/images/{image_id}/json", body, alice).status == 200
    for image_id, body in (*bodies[1:], (base, image_json(base, deep))):
        proof = {"X-Docker-Checksum-Payload": payload(body, EMPTY_LAYER)}
        assert ask("PUT", f"/v1/images/{image_id}/layer", EMPTY_LAYER, alice).status == 200
        assert ask("PUT", f"/v1/images/{image_id}/checksum", None, alice | proof).status == 200
    assert ask("PUT", "/v1/repositories/alice/grown/tags/1", json.dumps(top).encode(), alice).status == 200
    assert [pulled.id for pulled in shop.client("alice").pull("alice/grown", "1")] == [deep, base, top]


def test_what_is_private_is_kept_by_private_caches_only(shop: Guarded) -> None:
    """A cache that everybody shares must not answer for us."""
    top = shop.registry.ask("GET", f"{REPO}/tags/latest", None, basic("alice")).value
    answer = shop.registry.ask("GET", f"/v1/images/{top}/json", None, basic("alice"))
    assert answer.headers["Cache-Control"] == "private, max-age=31536000"
    since = {"If-Modified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"}
    assert shop.registry.ask("GET", f"/v1/images/{top}/json", None, basic("alice") | since).status == 304
    assert shop.registry.ask("GET", f"/v1/images/{top}/json", None, basic("mallory") | since).status == 404


@pytest.mark.parametrize(
    "header",
    [
        "Basic",
        "Basic ",
        "Basic !!!",
        "Basic Ym9i",
        "Basic Og",
        "Basic /////w==",
        "Basic Ym9iOnNlY3JldA== extra",
        "Digest username=bob",
        "Bearer x.y.z",
        "nonsense",
        "\xff\xfe",
        "Token x",
        "Token signature=,repository=,access=",
        ",",
    ],
)
@pytest.mark.parametrize(
    "path", [f"{REPO}/images", f"{REPO}/tags", f"/v1/images/{'a' * 64}/json", "/v1/users/", "/v1/search"]
)
def test_a_header_that_says_nothing_is_401_everywhere(registry_with_accounts: Guarded, header: str, path: str) -> None:
    """With the challenge of that route, and in JSON."""
    answer = registry_with_accounts.registry.ask("GET", path, None, {"Authorization": header})
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"] in {LOGIN, "Token"}
    assert list(answer.value) == ["error"]


def test_two_headers_are_no_credentials(registry_with_accounts: Guarded) -> None:
    """Whoever is behind the first is not asked about the second."""
    head = f"GET {REPO}/images HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    twice = "".join(f"Authorization: {basic('alice')['Authorization']}\r\n" for _ in range(2))
    assert b" 401 " in registry_with_accounts.registry.raw(f"{head}{twice}\r\n".encode()).partition(b"\r\n")[0]


def test_a_stranger_is_answered_before_a_byte_of_his_body_is_read(shop: Guarded) -> None:
    """Nobody uploads a gigabyte to be told no, and nothing of it is stored."""
    for path in (f"/v1/images/{new_id()}/layer", REPO, f"{REPO}/tags/x", f"{REPO}/images"):
        head = f"PUT {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 1000000000\r\n\r\n"
        answer = shop.registry.raw(head.encode(), end=False)
        assert b" 401 " in answer.partition(b"\r\n")[0]


def test_too_many_wrong_passwords_are_429_and_the_right_one_goes_through(shop: Guarded) -> None:
    """A few are let through as 401; the answer says when to come back; nobody is locked out."""
    statuses = [shop.registry.ask("GET", "/v1/users/", None, basic("alice", f"{n}")).status for n in range(12)]
    assert statuses[:3] == [401] * 3
    assert statuses[-1] == 429
    late = shop.registry.ask("GET", f"{REPO}/tags", None, basic("alice", "wrong"))
    assert (late.status, int(late.headers["Retry-After"]) > 0) == (429, True)
    assert shop.registry.ask("GET", "/v1/users/", None, basic("alice")).status == 200


def test_asking_for_a_token_is_answered_with_one_that_is_good_for_what_was_allowed(shop: Guarded) -> None:
    """Also where only the word of it is asked for; and never on a registry's route, where it would replace another."""
    ask = shop.registry.ask
    for method, path, body, access in (
        ("PUT", REPO, b"[]", "write"),
        ("PUT", f"{REPO}/images", b"[]", "write"),
        ("GET", f"{REPO}/images", None, "read"),
        ("DELETE", f"{REPO}/images", None, "delete"),
    ):
        answer = ask(method, path, body, basic("alice") | WANT)
        assert f',repository="alice/app",access={access}' in answer.headers["X-Docker-Token"]
        assert answer.headers["WWW-Authenticate"] == f"Token {answer.headers['X-Docker-Token']}"
        assert ask("GET", f"{REPO}/tags", None, token(answer)).status == 200
        assert ask("GET", f"{REPO}/tags", None, token(answer)).headers["X-Docker-Token"] is None
    assert ask("GET", f"{REPO}/images", None, basic("mallory") | WANT).headers["X-Docker-Token"] is None
