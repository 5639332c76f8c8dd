"""Work for the store's good in a process of its own that gives way to those that serve; both ends of it.

Layer: tools. A worker starts it. Its standard input is a pipe from the worker: the order, one JSON line; its end means
to end at once, however the worker went. What is left in the middle is work for the next one.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from cas import Store
from tools import exits
from tools.order import LOG_FORMAT, Order
from tools.priority import give_way
from tools.ticking import ticking

_REAP_S: Final = 0.5  # between two looks whether it has ended, which nobody is in a hurry to know


def run_apart(module: str, order: Order, done: threading.Event) -> int:
    """Run a module of ours that calls `main`, and end it in the middle when the event comes; return how it ended."""
    # -P: a folder named tools/ where the operator stands must not become ours.
    command = [sys.executable, "-P", "-m", "tools.priority", module]
    with subprocess.Popen(command, stdin=subprocess.PIPE, bufsize=0) as process:  # noqa: S603 - our own module
        assert process.stdin is not None, "asked for above"
        with suppress(BrokenPipeError):  # it died already; how was told by itself
            process.stdin.write(order.to_line())
        while process.poll() is None and not done.wait(_REAP_S):
            pass
        # leaving closes its input, which ends it, and waits for it
    return process.returncode


def main(work: Callable[[Store, Order], int]) -> None:
    """Do some work, giving way; it returns the exit code, which tells whether all of it went well."""
    order = Order.from_line(sys.stdin.buffer.readline())
    logging.basicConfig(level=order.log_level.upper(), format=LOG_FORMAT, stream=sys.stderr)
    threading.Thread(target=_end_with_worker, name="worker-watch", daemon=True).start()
    try:
        with Store.open(order.root, order.engine) as store, ticking(store):
            give_way()
            code = work(store, order)
    except Exception as error:  # noqa: BLE001 - the outermost frame: what is caught here becomes an exit code
        sys.exit(exits.report(error))
    sys.exit(code)


def _end_with_worker() -> None:
    # Past the buffered reader, whose lock would be held here while the interpreter shuts down.
    while os.read(0, 4096):
        pass
    os._exit(exits.OK)
