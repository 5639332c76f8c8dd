"""A registry over real sockets for each module, and short ways to speak to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.wire.v1.talk import Registry, running


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
