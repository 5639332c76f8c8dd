"""What every test may ask for: hypothesis profiles, and a real `cas serve` process of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.selection import pytest_collection_modifyitems, pytest_configure, pytest_terminal_summary
from tests.support.serving import StartServer, starting

__all__ = ["pytest_collection_modifyitems", "pytest_configure", "pytest_terminal_summary", "server"]

# A shared machine is slow now and then, so no deadline a case: faulthandler_timeout bounds a whole test.
_SLOW = [HealthCheck.too_slow]
settings.register_profile("dev", deadline=None, max_examples=60, suppress_health_check=_SLOW)
settings.register_profile(
    "ci", deadline=None, max_examples=100, derandomize=True, database=None, suppress_health_check=_SLOW
)
settings.register_profile("nightly", deadline=None, max_examples=5000, suppress_health_check=_SLOW)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev"))

# Under nohup, or in a script's background, these are ignored, and every process started from here would be born
# deaf to them. A handler that does nothing leaves us as safe and starts them hearing.
for _signum in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(_signum) is signal.SIG_IGN:
        signal.signal(_signum, lambda *_: None)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StartServer]:
    """Start real servers: `server(root=…, workers=…)` gives one that answers; all are ended afterwards."""
    with starting(tmp_path) as start:
        yield start
