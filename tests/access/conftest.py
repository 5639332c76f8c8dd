"""What tests of accounts and access share: a real store, a clock that is told the time, and an authenticator."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from api.access.authenticate import Authenticator
from api.access.settings import AccessSettings, Mode
from api.threads import Threads
from cas import Store
from tests.support.engine import SMALL

AUTH = AccessSettings(mode=Mode.AUTH)
NOON = 1_700_000_000.0


class Clock:
    """Seconds since 1970, as the test says."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store in a folder."""
    with Store.open(tmp_path / "root", SMALL, create=True) as opened:
        yield opened


@pytest.fixture
def clock() -> Clock:
    """A clock that stands until it is moved."""
    return Clock()


MakeAuthenticator = Callable[..., Authenticator]


@pytest.fixture
def authenticator(store: Store, clock: Clock) -> Iterator[MakeAuthenticator]:
    """Make authenticators with settings of one's own; each is another worker."""
    opened: list[Authenticator] = []
    threads = Threads(4)

    def make(settings: AccessSettings = AUTH) -> Authenticator:
        opened.append(Authenticator(store, settings, clock, threads.run))
        return opened[-1]

    yield make
    for one in opened:
        one.close()
    threads.close()


def basic(user: str, password: str) -> str:
    """Spell an Authorization header."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
