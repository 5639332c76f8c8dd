"""One collection on schedule, in a process of its own that gives way to those that serve. Started by a worker.

Layer: tools. Its standard input is a pipe from the worker: the order, one JSON line; its end means to end at once,
however the worker went. What is left in the middle is work for the next collection.
"""

from __future__ import annotations

import logging
import os
import sys
import threading

from cas import Store
from tools import exits
from tools.keeping import collect_if_due
from tools.order import LOG_FORMAT, Order
from tools.priority import give_way


def main() -> None:
    """Collect if it is time."""
    order = Order.from_line(sys.stdin.buffer.readline())
    logging.basicConfig(level=order.log_level.upper(), format=LOG_FORMAT, stream=sys.stderr)
    threading.Thread(target=_end_with_worker, name="worker-watch", daemon=True).start()
    try:
        with Store.open(order.root, order.engine) as store:
            give_way()
            collect_if_due(store, order.keeping)
    except Exception as error:  # noqa: BLE001 - the outermost frame: what is caught here becomes an exit code
        sys.exit(exits.report(error))


def _end_with_worker() -> None:
    # Past the buffered reader, whose lock would be held here while the interpreter shuts down.
    while os.read(0, 4096):
        pass
    os._exit(exits.OK)


if __name__ == "__main__":
    main()
