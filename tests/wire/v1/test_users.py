"""Accounts over the wire, as engines log in, sign up and change their password."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from api.access.passwords import Passwords
from api.access.settings import AccessSettings, Mode
from tests.v1client import Answer
from tests.wire.v1.talk import Guarded, Registry, basic, guarding

TAKEN = b'"Username or email already exists"'


def sign_up(guarded: Guarded, **account: object) -> Answer:
    headers = {"Content-Type": "application/json; charset=utf-8"}
    return guarded.registry.ask("POST", "/v1/users/", json.dumps(account).encode(), headers)


def test_login_as_engines_up_to_1_10_do_it(guarded: Guarded) -> None:
    """They sign up first; only the one magic body sends them on to the login proper."""
    account = {"username": "foobar", "password": "toto42", "auth": "", "email": "sam@example.com"}
    made = sign_up(guarded, **account)
    assert (made.status, made.body) == (201, b'"User Created"')
    assert made.headers["Content-Type"] == "application/json"
    for password in ("toto42", "another"):
        again = sign_up(guarded, **account | {"password": password})
        assert (again.status, again.body, len(again.body)) == (400, TAKEN, 34)
    for path in ("/v1/users/", "/v1/users"):
        good = guarded.registry.ask("GET", path, None, basic("foobar", "toto42"))
        assert (good.status, good.body) == (200, b'"OK"')
        for headers in ({}, basic("", ""), basic("foobar", "toto43"), basic("nobody", "toto42")):
            wrong = guarded.registry.ask("GET", path, None, headers)
            assert wrong.status == 401
            assert wrong.headers["WWW-Authenticate"] == 'Basic realm="auth required",Token'


def test_a_wrong_password_and_an_unknown_user_cost_the_same_and_are_told_the_same(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same words, and one comparison each, so that neither text nor time tells who has an account."""
    guarded.account("bob")
    hashed: list[str | None] = []
    verify = Passwords.verify

    def counting(self: Passwords, kept: str | None, password: bytes, **more: Any) -> bool:
        hashed.append(kept)
        return verify(self, kept, password, **more)

    monkeypatch.setattr(Passwords, "verify", counting)
    answers = [
        guarded.registry.ask("GET", "/v1/users/", None, basic(name, "wrong")) for name in ("bob", "eve", "Ün", "-")
    ]
    assert len({(answer.status, answer.body) for answer in answers}) == 1
    assert len(hashed) == len(answers)


@pytest.mark.parametrize(
    "account",
    [
        {"username": "a", "password": "long enough"},
        {"username": "ab", "password": "x"},
        {"username": "ab"},
        {"password": "xyz"},
        {},
        {"username": "", "password": ""},
        {"username": "library", "password": "secret"},
        {"username": "v2", "password": "secret"},
        {"username": "Bob", "password": "secret"},
        {"username": "bоb", "password": "secret"},  # noqa: RUF001  its second letter is Cyrillic
        {"username": "ｂｏｂ", "password": "secret"},  # noqa: RUF001  full width
        {"username": "bob/x", "password": "secret"},
        {"username": "bob:x", "password": "secret"},
        {"username": "bob~x", "password": "secret"},
        {"username": "bob\u0000", "password": "secret"},
        {"username": "b" * 65, "password": "secret"},
        {"username": "bob", "password": "p" * 1_000_000},
        {"username": "bob", "password": "\ud800\ud800"},
        {"username": "bob", "password": ["secret"]},
        {"username": {"bob": 1}, "password": "secret"},
        {"username": "bob", "password": "secret", "email": "nowhere"},
        {"username": "bob", "password": "secret", "email": 7},
    ],
)
def test_who_cannot_have_an_account_is_told_why(registry_with_accounts: Guarded, account: dict[str, object]) -> None:
    """400, in the one form of our errors, which is not the magic body."""
    answer = sign_up(registry_with_accounts, **account)
    assert answer.status == 400
    assert list(answer.value) == ["error"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"bob"', b"null", b"7", b"\xff", b"[" * 100_000, b'{"a": NaN}'])
def test_a_body_of_another_shape_is_400(registry_with_accounts: Guarded, body: bytes) -> None:
    """At sign-up and at a change."""
    ask = registry_with_accounts.registry.ask
    assert ask("POST", "/v1/users/", body).status == 400
    assert ask("PUT", "/v1/users/alice/", body, basic("alice")).status == 400


@pytest.mark.parametrize(("size", "status"), [(1025, 401), (30_000, 401), (1_000_000, 431)])
def test_a_giant_password_is_a_wrong_one(registry_with_accounts: Guarded, size: int, status: int) -> None:
    """Or does not even fit into a request."""
    answer = registry_with_accounts.registry.ask("GET", "/v1/users/", None, basic("alice", "p" * size))
    assert answer.status == status


def test_sign_up_can_be_switched_off(tmp_path: Path) -> None:
    """401, for taken names too: then old engines go on to the login, and new names learn nothing."""
    with guarding(tmp_path / "root", signup=False) as guarded:
        guarded.account("bob")
        for name in ("bob", "eve"):
            assert sign_up(guarded, username=name, password="secret").status == 401
        assert guarded.registry.ask("GET", "/v1/users/", None, basic("bob")).status == 200
        assert guarded.registry.ask("GET", "/v1/users/", None, basic("eve")).status == 401


def test_a_password_is_changed_by_its_owner_or_an_admin(guarded: Guarded) -> None:
    """204 and the old one is over at once; for everybody else it is 403, whether there is such an account or not."""
    ask = guarded.registry.ask
    for name in ("bob", "eve"):
        guarded.account(name)
    guarded.account("root", admin=True)
    change = b'{"password": "newpass", "email": "sam@example.com"}'
    assert ask("PUT", "/v1/users/bob/", change, {}).status == 401
    for name in ("bob", "nobody"):
        assert ask("PUT", f"/v1/users/{name}/", change, basic("eve")).status == 403
    done = ask("PUT", "/v1/users/bob/", change, basic("bob"))
    assert (done.status, done.body) == (204, b"")
    assert ask("GET", "/v1/users/", None, basic("bob")).status == 401
    assert ask("GET", "/v1/users/", None, basic("bob", "newpass")).status == 200
    assert ask("PUT", "/v1/users/bob", b'{"password": "secret"}', basic("root")).status == 204
    assert ask("GET", "/v1/users/", None, basic("bob")).status == 200
    assert ask("PUT", "/v1/users/nobody/", change, basic("root")).status == 404
    assert ask("PUT", "/v1/users/Nobody%20at%20all/", change, basic("root")).status == 404
    assert ask("PUT", "/v1/users/bob/", b'{"password": "x"}', basic("bob")).status == 400
    assert ask("PUT", "/v1/users/bob/", b"{}", basic("bob")).status == 204


def test_without_accounts_everybody_is_told_that_all_is_well(registry: Registry) -> None:
    """As the reference does; and no account is made in a stranger's name."""
    account = b'{"username": "admin", "password": "secret"}'
    assert (registry.ask("GET", "/v1/users/").status, registry.ask("POST", "/v1/users/", account).status) == (200, 201)
    assert registry.ask("PUT", "/v1/users/admin/", b'{"password": "other"}').status == 204
    assert registry.store.scan("user") == []
    assert AccessSettings().mode is Mode.OPEN
