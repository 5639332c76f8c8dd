"""What every test may ask for: hypothesis profiles, and a real `cas serve` process of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.serving import StartServer, starting

# A shared machine is slow now and then, so no deadline a case: faulthandler_timeout bounds a whole test.
_SLOW = [HealthCheck.too_slow]
settings.register_profile("dev", deadline=None, max_examples=60, suppress_health_check=_SLOW)
settings.register_profile(
    "ci", deadline=None, max_examples=100, derandomize=True, database=None, suppress_health_check=_SLOW
)
settings.register_profile("nightly", deadline=None, max_examples=5000, suppress_health_check=_SLOW)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev"))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StartServer]:
    """Start real servers: `server(root=…, workers=…)` gives one that answers; all are ended afterwards."""
    with starting(tmp_path) as start:
        yield start
