"""Who did what at a registry with accounts, as its access log tells it; and that no answer goes past the log."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from api.access.settings import AccessSettings
from api.access_log import AccessLog
from api.config import HttpSettings
from api.zerocopy import sent
from tests.support.access_lines import lines
from tests.wire.harness import Clock
from tests.wire.v2.members import ANN, AUTH, BOB, Members, basic, limited, members
from tests.wire.v2.pushing import new_data, pushing

ONE = "ann/one"


@contextmanager
def logged(tmp_path: Path, access: AccessSettings = AUTH) -> Iterator[Members]:
    """Run a registry with two accounts and a log."""
    with (
        closing(AccessLog(str(tmp_path / "log"), HttpSettings(), Clock())) as log,
        members(tmp_path / "root", access, log=log) as registry,
    ):
        yield registry


def told(tmp_path: Path) -> list[tuple[str, str, int]]:
    """Who asked what and got which status, of a server that has ended."""
    return [line.short for line in lines(tmp_path / "log")]


def test_pushes_pulls_and_deletes_name_their_account(tmp_path: Path) -> None:
    """By password and by token; what is public is pulled by nobody in particular."""
    with logged(tmp_path) as registry:
        manifest, blob = registry.push(ONE, ANN)
        token = registry.token(f"repository:{ONE}:pull,delete", who=ANN)
        assert registry.ask("GET", f"/v2/{ONE}/blobs/{blob}", token).status_code == 200
        registry.publish(ONE)
        assert registry.ask("GET", f"/v2/{ONE}/blobs/{blob}", headers={"Range": "bytes=2-5"}).status_code == 206
        assert registry.ask("DELETE", f"/v2/{ONE}/manifests/{manifest}", token).status_code == 202
    assert told(tmp_path) == [
        ("ann", f"POST /v2/{ONE}/blobs/uploads/?digest={blob}", 201),
        ("ann", f"PUT /v2/{ONE}/manifests/latest", 201),
        ("ann", f"GET /v2/token?scope=repository%3A{ONE.replace('/', '%2F')}%3Apull%2Cdelete", 200),
        ("ann", f"GET /v2/{ONE}/blobs/{blob}", 200),
        ("-", f"GET /v2/{ONE}/blobs/{blob}", 206),
        ("ann", f"DELETE /v2/{ONE}/manifests/{manifest}", 202),
    ]
    assert lines(tmp_path / "log")[4].bytes == 4


def test_a_wrong_password_is_told_from_a_challenge(tmp_path: Path) -> None:
    """A client that has shown nothing gets its 401 every day; one that was wrong is marked, whatever it asked."""
    with logged(tmp_path) as registry:
        form = {"grant_type": "password", "service": "cas", "username": "ann", "password": "wrong"}
        for method, path, who, more in (
            ("GET", "/v2/", None, {}),
            ("GET", "/v2/", basic("ann:wrong"), {}),
            ("GET", "/v2/token", basic("bob:wrong"), {}),
            ("POST", "/v2/token", None, {"data": form}),
            ("GET", "/v1/users/", basic("ann:wrong"), {}),
            ("GET", "/v1/users/", None, {}),
            ("GET", "/v2/", "Bearer nonsense", {}),
        ):
            assert registry.ask(method, path, who, **more).status_code == 401
    assert [(user, status) for user, _, status in told(tmp_path)] == [
        ("-", 401),
        ("!ann", 401),
        ("!bob", 401),
        ("!ann", 401),
        ("!ann", 401),
        ("-", 401),
        ("-", 401),
    ]


@pytest.mark.parametrize("name", ["my-secret-passphrase", "Ann's Secret", "ann\n", ""])
def test_a_name_that_is_no_accounts_is_not_written_down(tmp_path: Path, name: str) -> None:
    """It may well be a password in the wrong field."""
    with logged(tmp_path) as registry:
        assert registry.ask("GET", "/v2/", basic(f"{name}:x")).status_code == 401
    assert told(tmp_path) == [("!", "GET /v2/", 401)]
    assert name == "" or name not in (tmp_path / "log").read_text()


def test_who_is_known_and_may_not_is_named(tmp_path: Path) -> None:
    """403 by v2, 404 and 403 by v1."""
    with logged(tmp_path) as registry:
        registry.push(ONE, ANN)
        for method, path in (
            ("GET", f"/v2/{ONE}/tags/list"),
            ("GET", f"/v1/repositories/{ONE}/tags"),
            ("DELETE", f"/v1/repositories/{ONE}/"),
        ):
            registry.ask(method, path, basic(BOB))
    assert told(tmp_path)[2:] == [
        ("bob", f"GET /v2/{ONE}/tags/list", 403),
        ("bob", f"GET /v1/repositories/{ONE}/tags", 404),
        ("bob", f"DELETE /v1/repositories/{ONE}/", 403),
    ]


def test_tokens_of_v1_name_their_account(tmp_path: Path) -> None:
    """And so does a login by v1."""
    with logged(tmp_path) as registry:
        registry.push(ONE, ANN)
        given = registry.ask("GET", f"/v1/repositories/{ONE}/images", basic(ANN), headers={"X-Docker-Token": "true"})
        assert given.status_code == 200
        token = f"Token {given.headers['x-docker-token']}"
        assert registry.ask("GET", f"/v1/repositories/{ONE}/tags", token).status_code == 200
        assert registry.ask("GET", "/v1/users/", basic(BOB)).status_code == 200
    assert [(user, status) for user, _, status in told(tmp_path)[2:]] == [("ann", 200), ("ann", 200), ("bob", 200)]


def test_refresh_tokens_name_their_account_and_are_no_wrong_password_when_they_are_over(tmp_path: Path) -> None:
    """A client whose account got another password did nothing wrong."""
    with logged(tmp_path) as registry:
        asked = {"offline_token": "true", "service": "cas"}
        refresh = registry.ask("GET", "/v2/token", basic(ANN), params=asked).json()["refresh_token"]
        form = {"grant_type": "refresh_token", "service": "cas", "refresh_token": refresh}
        assert registry.ask("POST", "/v2/token", data=form).status_code == 200
        registry.accounts.change("ann", password="another secret")
        assert registry.ask("POST", "/v2/token", data=form).status_code == 401
    assert [(user, status) for user, _, status in told(tmp_path)] == [("ann", 200), ("ann", 200), ("-", 401)]
    assert refresh not in (tmp_path / "log").read_text()


def test_guesses_too_many_are_told_by_their_status(tmp_path: Path) -> None:
    """429, whoever they were about."""
    with logged(tmp_path, limited(user_failures=1)) as registry:
        for _ in range(3):
            registry.ask("GET", "/v2/", basic("ann:wrong"))
    assert [status for _, _, status in told(tmp_path)] == [401, 429, 429]


def test_answers_are_not_given_by_heart_while_there_is_a_log(tmp_path: Path) -> None:
    """The same question of an unchanged store, of a manifest's kind and of a layer's: each time a line."""
    with (
        closing(AccessLog(str(tmp_path / "log"), HttpSettings(), Clock())) as log,
        pushing(tmp_path / "root", log=log) as registry,
        closing(registry.client()) as client,
    ):
        digest = client.push("a/b", data := new_data(300_000))
        repeats = sent.repeats
        for _ in range(3):
            assert client.blob("a/b", digest).content == data
            assert client.ask("GET", "/v2/").status_code == 200
        assert sent.repeats == repeats
    pulls = [line for line in lines(tmp_path / "log") if line.request.startswith("GET ")]
    assert [line.bytes for line in pulls] == [300_000, 2] * 3


def test_the_filter_of_the_handbook_finds_wrong_passwords_and_nothing_else(tmp_path: Path) -> None:
    """As fail2ban reads it: the time is taken out of a line first, and <HOST> is what it wants to know."""
    operations = (Path(__file__).parents[3] / "docs" / "operations.md").read_text(encoding="utf-8")
    found = re.search(r"^    failregex = (.+)$", operations, re.MULTILINE)
    assert found is not None
    wrong = re.compile(found[1].replace("<HOST>", r"(?P<host>[0-9.]+)"))
    with logged(tmp_path, limited(user_failures=2)) as registry:
        registry.push(ONE, ANN)
        for who in (None, basic("ann:1"), basic(BOB), "Bearer nonsense", basic("ann:2"), basic("ann:3")):
            registry.ask("GET", f"/v2/{ONE}/tags/list", who, headers={"User-Agent": '!x [] "GET /" 401 5 "'})
    read = [re.sub(r"\[.*?\]", "[]", line, count=1) for line in (tmp_path / "log").read_text().splitlines()]
    matched = [wrong.match(line) for line in read]
    assert [found and found["host"] for found in matched][2:] == [
        None,
        "127.0.0.1",
        None,
        None,
        "127.0.0.1",
        "127.0.0.1",
    ]
    assert matched[:2] == [None, None]
