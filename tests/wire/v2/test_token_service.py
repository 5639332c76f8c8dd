"""The token service: what it grants, to whom, and in which words."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2
import jwt
import pytest

from api.access import refresh, users
from api.access.principal import Action
from api.v2 import token_scopes
from api.v2.token_service import MAX_FORM_BYTES
from tests.wire.harness import NOW
from tests.wire.v2.members import ANN, BOB, Members, basic, challenge, limited, members
from tests.wire.v2.pushing import code

PATH = "/v2/token"
BOX = "repository:ann/box:pull,push"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Members]:
    with members(tmp_path_factory.mktemp("tokens") / "root") as registry:
        registry.push("ann/box", ANN)
        registry.push("ann/public", ANN)
        registry.publish("ann/public")
        yield registry


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Members]:
    """A registry whose accounts a test changes."""
    with members(tmp_path / "root") as registry:
        yield registry


def claims(answer: httpx2.Response) -> dict[str, Any]:
    """Read what a token says, as its bearer can."""
    assert answer.status_code == 200, answer.text
    content = answer.json()
    return jwt.decode(content["access_token"], options={"verify_signature": False})


def granted(answer: httpx2.Response) -> list[tuple[str, str, list[str]]]:
    return [(one["type"], one["name"], one["actions"]) for one in claims(answer)["access"]]


def login(registry: Members, who: str = ANN) -> str:
    """Get a refresh token as `docker login` does."""
    answer = registry.ask("GET", PATH, basic(who), params={"offline_token": "true", "account": who.partition(":")[0]})
    assert answer.status_code == 200
    return str(answer.json()["refresh_token"])


def renew(registry: Members, token: str, **more: str) -> httpx2.Response:
    return registry.ask("POST", PATH, data={"grant_type": "refresh_token", "refresh_token": token, **more})


class TestAnswers:
    """The form of what is answered."""

    def test_an_answer_has_every_field_that_some_client_reads(self, registry: Members) -> None:
        """The token under both its names, its life, its beginning; nothing of it may be kept by a proxy."""
        answer = registry.ask("GET", PATH, basic(ANN), params={"service": "cas", "scope": BOX})
        content = answer.json()
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["cache-control"] == "no-store"
        assert content["token"] == content["access_token"]
        assert content["expires_in"] == 600
        assert datetime.fromisoformat(content["issued_at"]).timestamp() == int(NOW)
        assert content["scope"] == BOX
        assert "refresh_token" not in content

    def test_a_token_has_the_claims_that_are_demanded(self, registry: Members) -> None:
        """Standard ones, so that other programs can read them; no two tokens are the same."""
        one, other = (registry.ask("GET", PATH, basic(ANN), params={"scope": BOX}) for _ in range(2))
        head = jwt.get_unverified_header(one.json()["token"])
        assert (head["typ"], head["alg"]) == ("JWT", "HS256")
        assert head["kid"]
        content = claims(one)
        assert (content["iss"], content["aud"], content["sub"]) == ("cas", "cas", "ann")
        assert content["iat"] == content["nbf"] == int(NOW)
        assert content["exp"] == int(NOW) + 600
        assert content["access"] == [{"type": "repository", "name": "ann/box", "actions": ["pull", "push"]}]
        assert content["jti"] != claims(other)["jti"]
        assert claims(registry.ask("GET", PATH))["sub"] == ""

    def test_the_life_of_a_token_is_a_setting(self, tmp_path: Path) -> None:
        """The operator says how long, and clients are told."""
        with members(tmp_path / "root", limited(token_s=120)) as registry:
            answer = registry.ask("GET", PATH)
            assert answer.json()["expires_in"] == 120
            assert claims(answer)["exp"] == int(NOW) + 120

    def test_the_largest_token_still_travels(self, registry: Members) -> None:
        """As much as one can ask for is far below what clients read, and comes back in a header."""
        scopes = [f"repository:ann/{number:03}{'x' * 240}:*" for number in range(token_scopes.MOST + 20)]
        form = {"grant_type": "password", "username": "ann", "password": ANN[4:], "scope": " ".join(scopes)}
        answer = registry.ask("POST", PATH, data=form)
        assert len(claims(answer)["access"]) == token_scopes.MOST
        assert len(answer.content) < 1 << 20
        assert registry.ask("GET", "/v2/", f"Bearer {answer.json()['token']}").status_code == 200


class TestGrants:
    """What is granted to whom."""

    @pytest.mark.parametrize(
        ("who", "scope", "expected"),
        [
            (ANN, "repository:ann/box:pull,push", ["pull", "push"]),
            (ANN, "repository:ann/box:*", ["delete", "pull", "push"]),
            (ANN, "repository(plugin):ann/box:pull", ["pull"]),
            (ANN, "repository:ann/new:pull,push", ["pull", "push"]),
            (BOB, "repository:ann/box:pull,push", None),
            (BOB, "repository:ann/public:pull,push", ["pull"]),
            (None, "repository:ann/box:pull", None),
            (None, "repository:ann/public:*", ["pull"]),
            (None, "repository:nobody/none:pull", None),
        ],
    )
    def test_more_than_one_may_have_is_not_granted(
        self, registry: Members, who: str | None, scope: str, expected: list[str] | None
    ) -> None:
        """The intersection with what the account may do, perhaps nothing; never a refusal."""
        answer = registry.ask("GET", PATH, who and basic(who), params={"scope": scope})
        assert [actions for _, _, actions in granted(answer)] == ([] if expected is None else [expected])

    def test_two_passwords_are_none(self, registry: Members) -> None:
        """401, whichever of them is right: nobody can tell which was meant."""
        for both in ((ANN, "ann:wrong"), ("ann:wrong", ANN)):
            lines = "\n".join(f"Authorization: {basic(who)}" for who in both)
            answer = registry.raw(f"GET {PATH} HTTP/1.1\nHost: x\n{lines}\n\n")
            assert answer.status == 401

    def test_several_scopes_come_in_either_form(self, registry: Members) -> None:
        """As several parameters, or joined in one."""
        scopes = ["repository:ann/box:pull", "repository:ann/public:pull"]
        several = registry.ask("GET", PATH, basic(ANN), params={"scope": scopes})
        joined = registry.ask("GET", PATH, basic(ANN), params={"scope": " ".join(scopes)})
        assert [name for _, name, _ in granted(several)] == ["ann/box", "ann/public"]
        assert granted(several) == granted(joined)
        assert joined.json()["scope"] == " ".join(scopes)

    @pytest.mark.parametrize("action", ["*", "search"])
    @pytest.mark.parametrize("who", [None, ANN])
    def test_lists_are_for_everybody(self, registry: Members, who: str | None, action: str) -> None:
        """For the catalogue and for `docker search`; what they show is decided when they are read."""
        answer = registry.ask("GET", PATH, who and basic(who), params={"scope": f"registry:catalog:{action}"})
        assert granted(answer) == [("registry", "catalog", [action])]
        assert registry.ask("GET", "/v2/_catalog", f"Bearer {answer.json()['token']}").status_code == 200

    @pytest.mark.parametrize(
        "scope", ["", "x", "::", "repository:A:pull", "repository:a b:pull", "\x00", "registry:x:*"]
    )
    def test_a_scope_without_sense_is_passed_over(self, registry: Members, scope: str) -> None:
        """Clients do not recover from a refusal here."""
        assert granted(registry.ask("GET", PATH, basic(ANN), params={"scope": scope})) == []

    def test_a_login_needs_no_scope(self, registry: Members) -> None:
        """200 says that the password is right."""
        assert granted(registry.ask("GET", PATH, basic(ANN))) == []

    def test_service_and_account_are_not_held_against_anybody(self, registry: Members) -> None:
        """The credentials say who it is."""
        answer = registry.ask("GET", PATH, basic(ANN), params={"service": "other", "account": "bob", "client_id": "x"})
        assert claims(answer)["sub"] == "ann"


class TestRefusals:
    """401 for wrong credentials, 400 or 413 for what cannot be read, and nothing else."""

    @pytest.mark.parametrize("header", ["ann:wrong", "nobody:x", "Basic !", "Bearer x", "Token x"])
    def test_wrong_credentials_are_refused(self, registry: Members, header: str) -> None:
        """Also if nothing is asked for; here it is Basic that is asked for."""
        answer = registry.ask("GET", PATH, basic(header) if header[0] in "an" else header)
        assert (answer.status_code, code(answer)) == (401, "UNAUTHORIZED")
        assert challenge(answer) == {"scheme": "Basic", "realm": "cas"}

    @pytest.mark.parametrize(
        "form",
        [
            {"grant_type": "password", "username": "ann", "password": "wrong"},
            {"grant_type": "password", "username": "ann"},
            {"grant_type": "password"},
            {"grant_type": "password", "username": "", "password": ""},
            {"grant_type": "refresh_token"},
            {"grant_type": "refresh_token", "refresh_token": "ann.x"},
            {"grant_type": "refresh_token", "refresh_token": "x" * 50_000},
        ],
    )
    def test_a_wrong_form_of_credentials_is_refused(self, registry: Members, form: dict[str, str]) -> None:
        """Clients take 401 for an answer and ask their user."""
        answer = registry.ask("POST", PATH, data=form)
        assert (answer.status_code, code(answer)) == (401, "UNAUTHORIZED")

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{}",
            b"grant_type=authorization_code&code=x",
            b"grant_type=",
            b"\xff\xfe=\x00",
            b"&" * 5000,
            b"grant_type=%zz",
        ],
    )
    def test_a_form_that_is_none_is_refused(self, registry: Members, body: bytes) -> None:
        """400, at which clients come again by GET."""
        answer = registry.ask("POST", PATH, content=body)
        assert (answer.status_code, code(answer)) == (400, "UNSUPPORTED")

    @pytest.mark.parametrize("announced", [True, False])
    def test_a_giant_form_is_refused(self, registry: Members, announced: bool) -> None:
        """A megabyte of password is not kept in memory to be compared."""
        body = b"grant_type=password&username=ann&password=" + b"x" * MAX_FORM_BYTES
        answer = registry.ask("POST", PATH, content=body if announced else iter([body]))
        assert answer.status_code == 413

    def test_a_password_of_any_bytes_is_compared(self, fresh: Members) -> None:
        """Letters of every alphabet come the same by both ways."""
        fresh.accounts.add("eve", "пароль & päss+wörd=")
        form = {"grant_type": "password", "username": "eve", "password": "пароль & päss+wörd="}
        assert fresh.ask("POST", PATH, data=form).status_code == 200
        assert fresh.ask("GET", PATH, basic("eve:пароль & päss+wörd=")).status_code == 200

    def test_only_reading_and_forms_are_offered(self, registry: Members) -> None:
        """Another method is told which ones there are."""
        answer = registry.ask("PUT", PATH)
        assert answer.status_code == 405
        assert answer.headers["allow"] == "GET, HEAD, POST"


class TestRefreshTokens:
    """What a client keeps instead of a password."""

    def test_a_refresh_token_gets_tokens_like_the_password_did(self, registry: Members) -> None:
        """For what its account may do now, and is handed back as it is."""
        token = login(registry)
        answer = renew(registry, token, service="cas", scope=f"{BOX} repository:bob/box:pull")
        assert granted(answer) == [("repository", "ann/box", ["pull", "push"])]
        assert claims(answer)["sub"] == "ann"
        assert answer.json()["refresh_token"] == token
        assert answer.json()["scope"] == BOX

    def test_a_form_with_a_password_gets_one_if_it_wants(self, registry: Members) -> None:
        """`access_type=offline` in the form is what `offline_token=true` is in the query."""
        form = {"grant_type": "password", "username": "ann", "password": ANN[4:]}
        assert "refresh_token" not in registry.ask("POST", PATH, data=form).json()
        answer = registry.ask("POST", PATH, data=form | {"access_type": "offline"})
        assert renew(registry, answer.json()["refresh_token"]).status_code == 200

    def test_nobody_in_particular_gets_none(self, registry: Members) -> None:
        """There is nothing to come back as."""
        answer = registry.ask("GET", PATH, params={"offline_token": "true"})
        assert answer.status_code == 200
        assert "refresh_token" not in answer.json()

    def test_a_refresh_token_does_not_end_by_itself(self, fresh: Members) -> None:
        """Clients keep it for years."""
        token = login(fresh)
        fresh.clock.now += 3 * 365 * 24 * 3600
        assert renew(fresh, token).status_code == 200

    def test_a_refresh_token_ends_with_the_password_and_the_account(self, fresh: Members) -> None:
        """Whoever found it on a disk is out as soon as its owner acts."""
        ann, bob = login(fresh, ANN), login(fresh, BOB)
        fresh.accounts.change("ann", password="another")
        fresh.pushed.store.change(lambda names: users.remove(names, "bob"))
        fresh.accounts.add("bob", BOB[4:])
        for token in (ann, bob):
            answer = renew(fresh, token)
            assert (answer.status_code, code(answer)) == (401, "UNAUTHORIZED")
        assert fresh.pushed.store.scan(refresh.REFRESH) == []

    def test_a_refresh_token_grants_what_is_allowed_now(self, fresh: Members) -> None:
        """A right that was given or taken since counts."""
        token = login(fresh, BOB)
        fresh.grant("bob", "ann/*", Action.PULL)
        assert granted(renew(fresh, token, scope=BOX)) == [("repository", "ann/box", ["pull"])]
        fresh.grant("bob", "ann/*")
        assert granted(renew(fresh, token, scope=BOX)) == []

    def test_a_refresh_token_is_no_password_and_no_token(self, registry: Members) -> None:
        """It opens the token service and nothing else."""
        token = login(registry)
        assert registry.ask("GET", "/v2/", f"Bearer {token}").status_code == 401
        assert registry.ask("GET", "/v2/", basic(f"ann:{token}")).status_code == 401

    def test_a_token_of_another_server_is_worth_nothing_here(self, registry: Members, fresh: Members) -> None:
        """Neither kind: each store has keys and accounts of its own."""
        assert renew(fresh, login(registry)).status_code == 401
        assert fresh.ask("GET", "/v2/", registry.token(who=ANN)).status_code == 401
