"""What tests of what repositories consist of share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.wire.v2.pushing import Pushed, pushing


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Pushed]:
    with pushing(tmp_path / "root") as registry:
        yield registry
