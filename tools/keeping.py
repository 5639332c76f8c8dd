"""What a worker does for the store's good beside serving: collections on a schedule.

Layer: tools. Every worker looks now and then whether it is time; the store's lock lets one of them do it, and a note in
the store says when that was, so that restarts begin nothing anew. Whatever fails is logged and tried again: it never
ends a server. The work is done by a process of its own (see `collector`), since threads of one interpreter wait for
each other.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from api import maintenance
from api.content.settings import KeepingSettings
from cas import CasError, InUse, Store
from tools.order import Order

LOOK_S: Final = 60.0
_REAP_S: Final = 0.5  # between two looks whether a collection has ended, which nobody is in a hurry to know
logger = logging.getLogger("cas.keeping")


@contextmanager
def collecting(
    store: Store,
    settings: KeepingSettings,
    collect: Callable[[threading.Event], object],
    *,
    look_s: float = LOOK_S,
) -> Iterator[None]:
    """Call `collect` on schedule, in a thread of its own, until left; the event it is given says when to end early."""
    if settings.gc_interval_s == 0:
        yield
        return
    done = threading.Event()

    def watch() -> None:
        while not done.wait(look_s):
            try:
                if maintenance.is_due(store, settings, time.time()):
                    collect(done)
            except Exception:  # a full disk or our own bug: serving goes on
                logger.exception("a collection failed and will be tried again")

    thread = threading.Thread(target=watch, name="collect", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def collect_apart(order: Order, done: threading.Event) -> None:
    """Collect in a process of its own, which is ended in the middle when the event comes; the next one goes on."""
    # -P: a folder named tools/ where the operator stands must not become ours.
    command = [sys.executable, "-P", "-m", "tools.collector"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, bufsize=0) as process:  # noqa: S603 - our own module
        assert process.stdin is not None, "asked for above"
        with suppress(BrokenPipeError):  # it died already; how was told by itself
            process.stdin.write(order.to_line())
        while process.poll() is None and not done.wait(_REAP_S):
            pass
        # leaving closes its input, which ends it, and waits for it


def collect_if_due(store: Store, settings: KeepingSettings) -> bool:
    """Collect, if it is time and nobody else is at it; tell whether that was done."""
    try:
        if not maintenance.is_due(store, settings, time.time()):
            return False
        done = maintenance.run(store, maintenance.terms(settings, time.time()))
        maintenance.note_run(store, time.time())
    except InUse:
        return False
    except CasError as error:
        logger.warning("a collection failed and will be tried again: %s", error)
        return False
    for each in done.names.left:
        logger.warning("left for the next collection: %s", each)
    logger.info("collected: %d names, %d blobs", done.names.removed.total(), done.bytes.blobs)
    return True
