"""The quick part of the campaign of flipped bits; `make rot` is the long one (I3, I9)."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash import rot

PROJECT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("group", ["data", "journal", "index"])
def test_a_flipped_bit_is_named_and_mended_or_changed_nothing(group: str) -> None:
    """One bit of every class of bytes: no process ends by a signal, nothing wrong passes for whole, all comes back."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.crash.rot", "1", "0", group],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    *told, last = ended.stdout.splitlines()
    assert re.fullmatch(r"\d+ flips as promised, 0 not", last)
    assert any(": named and " in line for line in told)
    assert not any("signal" in line for line in told)


def test_the_campaign_catches_a_check_that_does_not_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no ornament: where nothing is ever found, some flip is not named."""
    campaign = rot.Campaign(tmp_path)
    monkeypatch.setattr(rot, "apart", lambda work: work())
    monkeypatch.setattr("cas.check.Audit.findings", lambda _: iter(()))
    monkeypatch.setattr("cas.check._untrue", lambda *_: None)
    with pytest.raises(AssertionError, match="and nothing is named"):  # noqa: PT012 - which of them, the seeds decide
        for seed in range(20):
            campaign.flip("data sealed zstd", random.Random(seed))
