"""Tests of clients that are not on this machine: left out aloud, or failing where everything must be there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import peers

ROOT = Path(__file__).parents[2]


def collected(**environment: str) -> str:
    """Collect the tests of clients on a machine without any package of theirs."""
    ours = {name: value for name, value in os.environ.items() if name != "CI" and not name.startswith("PYTEST_")}
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "tests/clients"],
        cwd=ROOT,
        env={**ours, "PATH": "/nowhere", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode in (0, 5), ended.stdout + ended.stderr  # 5: none can run, where Go built no client either
    return ended.stdout


def test_what_cannot_run_is_left_out_and_named() -> None:
    """One line a program, with what to do."""
    told = collected()
    assert "[skopeo-plain-open]" not in told
    assert "\nNOT RUN: the tests of skopeo. To run them: apt-get install skopeo, then" in told
    assert " deselected)" in told


def test_in_ci_nothing_is_left_out() -> None:
    """A client that is missing there is a failure, never a shorter run."""
    told = collected(CI="true")
    assert "[skopeo-plain-open]" in told
    assert "NOT RUN" not in told
    assert "deselected" not in told


def test_a_missing_program_fails_its_test_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not with a traceback of something else."""
    monkeypatch.setattr(peers, "found", lambda program: None)
    with pytest.raises(AssertionError, match="no skopeo: apt-get install skopeo"):
        peers.path_of("skopeo")


@pytest.mark.parametrize("already", [False, True])
def test_installing_a_daemon_starts_none(already: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian asks a policy before it starts a service; ours says no, and one of the machine's stays as it is."""
    policy = tmp_path / "policy-rc.d"
    if already:
        policy.write_text("theirs", encoding="utf-8")
    monkeypatch.setattr(peers, "POLICY", policy)
    with peers.services_stay_off():
        assert policy.exists()
        if not already:
            assert subprocess.run([str(policy)], check=False).returncode == 101
    assert policy.exists() == already
