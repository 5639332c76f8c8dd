"""What tests over sockets share."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.threads import Threads
from cas import Store
from tests.wire.blobs import self_signed


@pytest.fixture
def threads() -> Iterator[Threads]:
    pool = Threads(4)
    yield pool
    pool.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "root", create=True) as opened:
        yield opened


@pytest.fixture
def tls(tmp_path: Path) -> ssl.SSLContext:
    return self_signed(tmp_path)
