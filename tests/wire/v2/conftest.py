"""A registry for each module, and a client of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.wire.v2.pushing import Client, Pushed, pushing


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pushed]:
    """One registry for the tests of a module, each of which uses repositories of its own."""
    with pushing(tmp_path_factory.mktemp("registry") / "root") as registry:
        yield registry


@pytest.fixture
def client(registry: Pushed) -> Iterator[Client]:
    with closing(registry.client()) as client:
        yield client
