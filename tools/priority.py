"""Maintenance gives way: it is loaded when others want a core little, and runs when nobody else wants one.

Layer: tools. Threads give way, not processes: those of a store hold locks that servers wait for, and go on as before.
Never in a process that serves, whose threads wait for each other. As a program it loads a module of ours, giving way,
and calls its `main`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import import_module
from typing import Final, TypeVar

T = TypeVar("T")

# A tenth of a core that others could use up. To load takes a third of a second of it, and who waits for that has seen
# nothing yet; idle it could take minutes.
_NICE: Final = 10


def give_way() -> None:
    """Let everybody else's threads go first from now on; where that cannot be had, change nothing.

    Of the calling thread alone and of those that it starts, so call it once the store is open.
    """
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def giving_way(work: Callable[[], T]) -> T:
    """Do something short before the store is open, mostly giving way meanwhile.

    In a thread of its own: only privileged ones can take it back.
    """
    with ThreadPoolExecutor(1, "giving-way", _be_nice) as threads:
        return threads.submit(work).result()


def _be_nice() -> None:
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, max(_NICE, os.getpriority(os.PRIO_PROCESS, 0)))  # 0: of this thread


if __name__ == "__main__":
    name = sys.argv[1]
    giving_way(lambda: import_module(name)).main()
