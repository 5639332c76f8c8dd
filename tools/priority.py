"""Maintenance gives way: it is loaded when others want a core little, and runs when nobody else wants one.

Layer: tools. Threads give way, not processes: those of a store hold locks that servers wait for, and go on as before.
Never in a process that serves, whose threads wait for each other. As a program it loads a module of ours, giving way,
and calls its `main`.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import import_module
from typing import Final, TypeVar

T = TypeVar("T")

# A tenth of a core that others could use up. To load takes a third of a second of it, and who waits for that has seen
# nothing yet; idle it could take minutes.
_NICE: Final = 10
# A core that is never idle takes no thread over that waits behind others on the next one, until a tick of the kernel's
# comes, which may be 4 ms. So it becomes idle for a moment before that: a twentieth of the time, and as much to wake.
_NAP_EVERY_S: Final = 0.001
_NAP_S: Final = 0.000_05
_usleep: Final = ctypes.PyDLL(None).usleep  # keeps the interpreter meanwhile


def give_way() -> None:
    """Let everybody else's threads go first from now on; where that cannot be had, change nothing.

    Of the calling thread alone and of those that it starts, so call it once the store is open.
    """
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    _take_naps(lambda: time.sleep(_NAP_S))
    atexit.register(_take_no_naps)  # else one would come when nobody handles signals any more


def giving_way(work: Callable[[], T]) -> T:
    """Do something short before the store is open, mostly giving way meanwhile.

    In a thread of its own: only privileged ones can take it back.
    """
    _take_naps(lambda: _usleep(int(_NAP_S * 1_000_000)))  # so that the thread which loads takes one, too
    try:
        with ThreadPoolExecutor(1, "giving-way", _be_nice) as threads:
            return threads.submit(work).result()
    finally:
        _take_no_naps()


def _be_nice() -> None:
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, max(_NICE, os.getpriority(os.PRIO_PROCESS, 0)))  # 0: of this thread


def _take_naps(nap: Callable[[], object]) -> None:
    if threading.current_thread() is threading.main_thread():  # the one that handles signals
        signal.signal(signal.SIGALRM, lambda *_: nap())
        signal.siginterrupt(signal.SIGALRM, False)  # noqa: FBT003 - it takes no names; calls of libraries go on
        signal.setitimer(signal.ITIMER_REAL, _NAP_EVERY_S, _NAP_EVERY_S)


def _take_no_naps() -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)


if __name__ == "__main__":
    name = sys.argv[1]
    giving_way(lambda: import_module(name)).main()
