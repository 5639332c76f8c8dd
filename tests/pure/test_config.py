"""What the engine's settings come to on filesystems of any size."""

from __future__ import annotations

import pytest

from cas.config import GIB, KIB, EngineSettings


@pytest.mark.parametrize("reserve", [1, 15, 100, 64 * KIB])
def test_a_reserve_of_a_few_bytes_leaves_packs_and_runs_that_an_upload_gets_on_with(reserve: int) -> None:
    """A run of no bytes would never take the first one."""
    small = EngineSettings(reserve_bytes=reserve).fitted(100 * GIB)
    assert small.reserve(100 * GIB) == reserve
    assert small.pack_bytes >= 64 * KIB
    assert small.run_bytes >= 4 * KIB
