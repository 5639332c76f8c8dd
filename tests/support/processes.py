"""Real processes for engine tests: scripts run by this interpreter, where wanted in mount namespaces of their own."""

from __future__ import annotations

import functools
import signal
import subprocess
import sys
from pathlib import Path

_PROJECT = Path(__file__).resolve().parents[2]
_WITHIN_S = 100


def in_namespace(command: list[str]) -> list[str]:
    """Give what runs a command with a private view of mounts; `-r` makes anybody root inside."""
    return ["unshare", "-rm", "--propagation", "private", *command]


@functools.cache
def can_mount() -> bool:
    """Whether the kernel lets us mount a small tmpfs in a namespace of our own."""
    try:
        probe = subprocess.run(
            in_namespace(["mount", "-t", "tmpfs", "-o", "size=64k", "none", "/mnt"]), capture_output=True, check=False
        )
    except FileNotFoundError:
        return False
    return probe.returncode == 0


def run_python(script: str, *arguments: str | Path | bool, mounts: bool = False) -> subprocess.CompletedProcess[str]:
    """Run a script to its end; its errors fail the test with their text."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = _run(in_namespace(command) if mounts else command)
    assert done.returncode == 0, done.stderr
    return done


def run_to_its_death(script: str, *arguments: str | Path) -> None:
    """Run a script that ends by `kill -9`, and by nothing else."""
    done = _run([sys.executable, "-c", script, *map(str, arguments)])
    assert done.returncode == -signal.SIGKILL, done.stderr


def start_python(script: str, *arguments: str | Path) -> subprocess.Popen[str]:
    """Start a script whose stdin and stdout are pipes; its errors go where the test's go."""
    return subprocess.Popen(
        [sys.executable, "-u", "-c", script, *map(str, arguments)],
        cwd=_PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def run_module(module: str, *arguments: str | Path | int) -> subprocess.CompletedProcess[str]:
    """Run one of the modules beside this one to its end, good or bad."""
    return _run([sys.executable, "-u", "-m", f"tests.support.{module}", *map(str, arguments)])


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=_PROJECT, capture_output=True, text=True, timeout=_WITHIN_S, check=False)
