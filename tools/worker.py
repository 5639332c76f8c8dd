"""One serving process: a store, the application and a listener. Started by the supervisor, never by hand.

Layer: tools. Its standard input is a pipe from the supervisor: first the order, one JSON line, and then
a byte whenever files should be looked at again; end of file is the signal to stop: the supervisor is gone,
however it went. Its standard
output is a pipe back, which gets one line when the worker can answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from typing import Final

from api.access_log import AccessLog
from api.app import build
from api.counts import Counts
from api.evenly import Balance, Burden
from api.server import serve
from api.tls import Certificate
from cas import Store
from tools import exits
from tools.keeping import collect_apart, collecting, scrub_apart, scrubbing
from tools.order import LOG_FORMAT, READY, Order
from tools.ticking import ticking
from tools.version import VERSION

TICK_S: Final = 60.0
RENEWAL_S: Final = 2.0  # a look at two files is cheap, and an expired certificate is dear
MONITORS: Final = 16  # connections at once that each worker takes from them
SPARE_DESCRIPTORS: Final = 256  # the index, packs being written, pipes, the listening sockets
logger = logging.getLogger("cas.worker")


def main() -> None:
    """Serve until SIGTERM or until the supervisor is gone."""
    order = Order.from_line(sys.stdin.buffer.readline())
    logging.basicConfig(level=order.log_level.upper(), format=LOG_FORMAT, stream=sys.stderr)
    _allow_descriptors(3 * order.http.max_connections + order.engine.open_packs + SPARE_DESCRIPTORS)
    try:
        with (
            Store.open(order.root, order.engine) as store,
            ticking(store, TICK_S),
            collecting(store, order.keeping, partial(collect_apart, order)),
            scrubbing(store, order.keeping, partial(scrub_apart, order)),
        ):
            asyncio.run(_serve(order, store))
    except Exception as error:  # noqa: BLE001 - the outermost frame: what is caught here becomes an exit code
        sys.exit(exits.report(error))


def _allow_descriptors(wanted: int) -> None:
    """Take what the system grants: a connection needs its socket and, while it pulls, a copy of it and a pack."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


async def _serve(order: Order, store: Store) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    renewal = threading.Event()
    _watch_supervisor(heard=renewal.set, gone=lambda: loop.call_soon_threadsafe(stop.set))
    certificate = Certificate(order.tls) if order.tls is not None else None
    if certificate is not None:
        _keep_fresh(certificate, renewal)
    sockets = [socket.socket(fileno=fd) for fd in order.sockets]
    app = build(store, order.http, order.v1, order.access, order.v2, clock=time.time)
    newest = (lambda: certificate.context) if certificate is not None else None
    counts = None if order.counts is None else Counts(order.counts, order.place)
    async with contextlib.AsyncExitStack() as opened:
        await opened.enter_async_context(_monitored(order, store, counts, stop))
        access = None
        if order.access_log is not None:
            access = opened.enter_context(contextlib.closing(AccessLog(order.access_log, order.http, time.time)))
        await serve(
            app,
            sockets,
            order.http,
            stop=stop,
            on_ready=_tell_ready,
            tls=newest,
            moment=store.moment,
            access=access,
            counts=counts,
            burden=_burden(order),
        )
    logger.info("worker stopped")


def _burden(order: Order) -> Burden | None:
    return None if order.balance is None else Balance(order.balance).join(order.place)


@contextlib.asynccontextmanager
async def _monitored(order: Order, store: Store, counts: Counts | None, stop: asyncio.Event) -> AsyncIterator[None]:
    """Serve monitors until told to stop, if they have an address; any worker can tell them of all."""
    if counts is None:
        yield
        return
    from api import metrics  # noqa: PLC0415 - the library takes a while to load, and few have a monitor

    page, few = metrics.build(store, counts, VERSION), replace(order.http, max_connections=MONITORS)
    sockets = [socket.socket(fileno=fd) for fd in order.monitors]
    telling = asyncio.create_task(serve(page, sockets, few, stop=stop, on_ready=_nothing))
    try:
        yield
    finally:
        stop.set()
        await telling


def _nothing() -> None:
    """Tell nobody: a connection that comes early waits."""


def _tell_ready() -> None:
    logger.info("worker ready")
    with contextlib.suppress(BrokenPipeError):  # the supervisor died just now; its watcher stops us
        sys.stdout.buffer.write(READY)
        sys.stdout.buffer.flush()


def _keep_fresh(certificate: Certificate, renewal: threading.Event) -> None:
    """Look at the certificate's files when told to, and now and then, since nobody may tell."""

    def look() -> None:
        while True:
            renewal.wait(RENEWAL_S)
            renewal.clear()
            certificate.refresh()

    threading.Thread(target=look, name="certificate-watch", daemon=True).start()


def _watch_supervisor(*, heard: Callable[[], object], gone: Callable[[], object]) -> None:
    """Call back at each word of the supervisor, and at the end: the kernel tells even when it got `kill -9`."""

    def watch() -> None:
        # Past the buffered reader, whose lock would be held here while the interpreter shuts down.
        while os.read(0, 4096):
            heard()
        with contextlib.suppress(RuntimeError):  # the loop is closed already: we are stopping anyway
            gone()

    threading.Thread(target=watch, name="supervisor-watch", daemon=True).start()


if __name__ == "__main__":
    main()
