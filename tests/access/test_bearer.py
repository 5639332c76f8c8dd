"""Bearer tokens: whose they are, how long they hold, and that nobody else can make one."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import jwt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.access import bearer, keys
from api.access.bearer import Resource
from api.access.principal import ANONYMOUS, Action, Caller, Principal
from cas import Reads, Store

NOW = 1_795_437_699.5
LIFE_S = 600
ANN = Principal("ann", stamp="first")
WISH = [Resource("repository", "box", ("pull", "push")), Resource("registry", "catalog", ("*",))]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "root", create=True) as opened:
        keys.ensure(opened, NOW)
        yield opened


def issue(store: Store, who: Principal = ANN, granted: list[Resource] | None = None) -> str:
    wish = WISH if granted is None else granted
    return store.read(lambda reads: bearer.issue(reads, who, wish, now=NOW, life_s=LIFE_S, unique="u"))


def known(_reads: Reads, name: str, stamp: str | None = None, /) -> Principal | None:
    """One account, of the name `ann`."""
    return ANN if (name, stamp) == ("ann", "first") else None


def read(store: Store, token: str, now: float = NOW) -> Caller | None:
    return store.read(lambda reads: bearer.read(reads, token, principal=known, now=now))


def secret(store: Store) -> keys.Key:
    return store.read(keys.read).newest


def signed(store: Store, claims: dict[str, object] | None = None, **head: object) -> str:
    """A token under the right key, but for what is told otherwise."""
    good = jwt.decode(issue(store), options={"verify_signature": False})
    key = secret(store)
    return jwt.encode(good | (claims or {}), key.secret, "HS256", headers={"kid": key.id, **head})


def test_a_token_says_who_asks_and_what_for(store: Store) -> None:
    """Short names and full ones are the same repository; lists are told apart."""
    caller = read(store, issue(store))
    assert caller == Caller(ANN, frozenset({("library/box", Action.PULL), ("library/box", Action.PUSH)}), lists=True)
    assert read(store, issue(store, granted=[])) == Caller(ANN, frozenset(), lists=False)
    assert read(store, issue(store, ANONYMOUS, [])) == Caller(ANONYMOUS, frozenset(), lists=False)


def test_a_token_holds_for_its_time_and_the_difference_of_clocks(store: Store) -> None:
    """A minute of leeway at both ends, and not a second more."""
    token, begin = issue(store), int(NOW)
    for now in (begin - 60, begin, begin + LIFE_S + 60):
        assert read(store, token, now) is not None
    for now in (begin - 61, begin + LIFE_S + 61):
        assert read(store, token, now) is None


def test_a_token_ends_with_its_account_and_its_password(store: Store) -> None:
    """Another stamp is another password, or another person of that name."""
    assert read(store, issue(store, Principal("bob", stamp="first"))) is None
    assert read(store, issue(store, Principal("ann", stamp="second"))) is None


def test_a_token_outlives_a_rotation_and_ends_with_its_key(store: Store) -> None:
    """The keyring is read at each use, so what was taken off it is void at once."""
    token = issue(store)
    store.change(lambda names: keys.rotate(names, NOW, keep=1))
    assert read(store, token) is not None
    assert read(store, issue(store)) is not None
    store.change(lambda names: keys.rotate(names, NOW, keep=1))
    assert read(store, token) is None


def test_what_others_signed_or_nobody_is_no_token(store: Store) -> None:
    """Another key under our key's name, no key, no algorithm, a wrong audience or issuer."""
    assert read(store, signed(store)) is not None
    good, ring = jwt.decode(issue(store), options={"verify_signature": False}), secret(store)
    forged = [
        jwt.encode(good, b"x" * 32, "HS256", headers={"kid": ring.id}),
        jwt.encode(good, ring.secret, "HS256"),
        jwt.encode(good, ring.secret, "HS256", headers={"kid": "other"}),
        jwt.encode(good, "", "none", headers={"kid": ring.id}),
        jwt.encode(good, b"x" * 64, "HS512", headers={"kid": ring.id}),
        signed(store, {"aud": "other"}),
        signed(store, {"iss": "other"}),
    ]
    head, claims, signature = issue(store).split(".")
    forged += [f"{head}.{claims}.", f"{head}.{claims}", f"{head}..{signature}", f"{head}.{claims}.{signature}."]
    for position in range(0, len(claims), 7):
        other = "A" if claims[position] != "A" else "B"
        forged.append(f"{head}.{claims[:position]}{other}{claims[position + 1 :]}.{signature}")
    for token in forged:
        assert read(store, token) is None, token


def _coded(content: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "head",
    [
        {},
        {"alg": None},
        {"alg": "HS256", "kid": 7},
        {"alg": "HS256", "kid": None},
        {"alg": "HS256", "kid": ["a"]},
        {"alg": "HS256", "kid": "a", "b64": False, "crit": ["b64"]},
        {"alg": "HS256", "kid": "a", "jwk": {"kty": "oct", "k": "AAAA"}},
        [],
        "x",
        7,
        None,
    ],
)
def test_a_strange_head_is_no_token(store: Store, head: object) -> None:
    """The head is read before anything vouches for it."""
    assert read(store, f"{_coded(head)}.{_coded({})}.AAAA") is None


@pytest.mark.parametrize("depth", [100, 30_000])
def test_a_deep_or_giant_head_is_no_token(store: Store, depth: int) -> None:
    """A head that nobody signed must not exhaust the parser's stack."""
    deep = base64.urlsafe_b64encode(b"[" * depth).decode().rstrip("=")
    assert read(store, f"{deep}.e30.AAAA") is None
    assert read(store, "A" * 60_000) is None
    assert read(store, f"{issue(store).partition('.')[0]}.{'A' * 60_000}.AAAA") is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(max_codepoint=255)) | st.from_regex(r"[A-Za-z0-9_-]{0,40}(\.[A-Za-z0-9_-]{0,40}){0,4}"))
def test_garbage_is_no_token(store: Store, text: str) -> None:
    """Whatever a header can hold gets an answer."""
    assert read(store, text) is None
