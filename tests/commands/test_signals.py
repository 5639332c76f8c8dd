"""A command that is told to end does so, all of it, and says by its exit code that it is not done."""

from __future__ import annotations

import signal

import psutil
import pytest

from tests.support.processes import start_python

WITHIN_S = 60
APART = """
import os, signal
from tools import fsck

def work():
    print(os.getpid(), flush=True)
    signal.pause()

fsck._apart(work)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_check_ends_with_whoever_began_it(number: signal.Signals) -> None:
    """It reads in a process of its own, which would go on reading for hours."""
    with start_python(APART) as process:
        assert process.stdout is not None
        child = psutil.Process(int(process.stdout.readline()))
        process.send_signal(number)
        assert process.wait(WITHIN_S) == -number
        child.wait(WITHIN_S)
