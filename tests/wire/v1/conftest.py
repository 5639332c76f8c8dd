"""A registry over real sockets for each module, and short ways to speak to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.wire.v1.talk import Guarded, Registry, guarding, running


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """One registry for the tests of a module, each of which uses ids and repositories of its own."""
    with running(tmp_path_factory.mktemp("registry") / "root") as registry:
        yield registry


@pytest.fixture
def empty_registry(tmp_path: Path) -> Iterator[Registry]:
    """A registry that nobody has used."""
    with running(tmp_path / "root") as registry:
        yield registry


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    """A registry with accounts that nobody has used."""
    with guarding(tmp_path / "root") as guarded:
        yield guarded


@pytest.fixture(scope="module")
def registry_with_accounts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """The same for all tests of a module, with one account, Alice's."""
    with guarding(tmp_path_factory.mktemp("accounts") / "root") as guarded:
        guarded.account("alice")
        yield guarded
