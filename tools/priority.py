"""Maintenance gives way: it runs when nobody else wants a core.

Layer: tools. Of the calling thread alone, so call it once the store is open: the store's own threads hold locks that
servers wait for, and go on as before. Never in a process that serves, whose threads wait for each other.
"""

from __future__ import annotations

import os
from contextlib import suppress


def give_way() -> None:
    """Let everybody else's threads go first from now on; where that cannot be had, change nothing."""
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
