"""A registry for each module, and both ways to speak to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.wire.generations.both import Both, both


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """One registry for the tests of a module, each of which uses repositories of its own."""
    with both(tmp_path_factory.mktemp("registry") / "root") as registry:
        yield registry


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Both]:
    """A registry that nobody has used."""
    with both(tmp_path / "root") as registry:
        yield registry
