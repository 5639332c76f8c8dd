"""A store to import into."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cas import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A new one, at `tmp_path / "root"`."""
    with Store.open(tmp_path / "root", create=True) as opened:
        yield opened
