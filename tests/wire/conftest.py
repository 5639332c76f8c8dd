"""What tests over sockets share."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from api import page_cache
from api.threads import Threads
from cas import Store
from tests.wire.blobs import self_signed
from tests.wire.hourglass import Hourglass


@pytest.fixture
def threads() -> Iterator[Threads]:
    pool = Threads(4)
    yield pool
    pool.close()


@pytest.fixture
def hourglass(monkeypatch: pytest.MonkeyPatch) -> Hourglass:
    return Hourglass(monkeypatch)


@pytest.fixture
def all_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no page of a file be away: a kernel may take any that nobody touched for a moment."""
    monkeypatch.setattr(page_cache, "is_resident", lambda *_: True)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "root", create=True) as opened:
        yield opened


@pytest.fixture
def tls(tmp_path: Path) -> ssl.SSLContext:
    return self_signed(tmp_path)


@pytest.fixture
def fd(data: bytes, tmp_path: Path) -> Iterator[int]:
    """Give a file of what a test says is its data."""
    path = tmp_path / "file"
    path.write_bytes(data)
    descriptor = os.open(path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)
