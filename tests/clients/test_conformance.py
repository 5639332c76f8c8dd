"""The upstream conformance program passes whole: nothing fails, nothing is skipped."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients.conformance import PUBLIC, ROUNDS, run
from tests.support import registry
from tests.support.certificates import loopback_authority


@pytest.mark.needs("conformance")
@pytest.mark.parametrize(("version", "transport", "mode"), ROUNDS)
def test_the_conformance_program_passes(version: str, transport: str, mode: str, tmp_path: Path) -> None:
    """On an empty server, of the released specification and of the next."""
    authority = loopback_authority(tmp_path / "authority")
    with registry.running(tmp_path, authority, transport, mode, *PUBLIC) as at:
        outcome = run(at, version, tmp_path / "results")
    assert outcome.clean, "\n".join((str(outcome), *outcome.bad))
