"""What a worker does for the store's good beside serving: collections and scrubs, each on a schedule.

Layer: tools. Every worker looks now and then whether it is time; the store's locks let one of them do it, and a note in
the store says when that was, so that restarts begin nothing anew. Whatever fails is logged and tried again: it never
ends a server. The work is done by processes of their own (see `apart`), since threads of one interpreter wait for each
other; a thread for each kind, since a scrub takes days.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from api import maintenance
from api.content.settings import KeepingSettings
from cas import CasError, InUse, Store
from tools import exits
from tools.apart import run_apart
from tools.order import Order

LOOK_S: Final = 60.0
AFTER_FAILURE_S: Final = 3600.0  # a scrub that failed reads the same bytes again
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

    def look(done: threading.Event) -> float:
        if maintenance.is_due(store, settings, time.time()):
            collect(done)
        return look_s

    wanted, soon = settings.gc_interval_s > 0, threading.Event()
    with _watching("collect", "a collection", look, look_s, wanted=wanted, soon=soon):
        yield


@contextmanager
def scrubbing(
    store: Store,
    settings: KeepingSettings,
    scrub: Callable[[threading.Event], int],
    *,
    look_s: float = LOOK_S,
) -> Iterator[None]:
    """Call `scrub` on schedule in the same way, and once a reader here saw damage; it returns how its process ended.

    Where somebody else was busy it is called again soon, and then after twice as long each time: so it comes once they
    are done, after about as long as they kept it waiting at most.
    """
    busy_s = 0.0

    def look(done: threading.Event) -> float:
        nonlocal busy_s
        code = exits.OK
        if store.is_scrub_due(time.time() - settings.scrub_interval_s, mends=settings.scrub_mends):
            code = scrub(done)
        if code < 0:
            logger.error("a check of stored bytes was killed by signal %d; if nobody did it, run cas fsck", -code)
        busy_s = longer(busy_s, look_s) if code == exits.BUSY else 0.0
        return busy_s or (AFTER_FAILURE_S if code else look_s)

    soon = threading.Event()
    store.when_doubted(soon.set)
    with _watching("scrub", "a check of stored bytes", look, look_s, wanted=settings.scrub_rate_bytes > 0, soon=soon):
        yield


def longer(busy_s: float, look_s: float) -> float:
    """Return how long to wait for whoever is busy after a wait of `busy_s`; 0 is none."""
    return min(2 * busy_s or look_s, AFTER_FAILURE_S)


@contextmanager
def _watching(
    name: str,
    what: str,
    look: Callable[[threading.Event], float],
    look_s: float,
    *,
    wanted: bool,
    soon: threading.Event,
) -> Iterator[None]:
    """Call `look` until left; it returns after how many seconds to call it again, unless that is to be `soon`."""
    if not wanted:
        yield
        return
    done = threading.Event()

    def watch() -> None:
        wait_s = look_s
        while True:
            soon.wait(wait_s)
            soon.clear()
            if done.is_set():
                return
            try:
                wait_s = look(done)
            except Exception:  # a full disk or our own bug: serving goes on
                logger.exception("%s failed and will be tried again", what)

    thread = threading.Thread(target=watch, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        soon.set()
        thread.join()


def collect_apart(order: Order, done: threading.Event) -> int:
    """Collect in a process of its own, which is ended in the middle when the event comes; the next one goes on."""
    return run_apart("tools.collector", order, done)


def scrub_apart(order: Order, done: threading.Event) -> int:
    """Read stored bytes through in a process of its own, in the same way."""
    return run_apart("tools.scrubber", order, done)


def collect_if_due(store: Store, settings: KeepingSettings) -> bool:
    """Collect, if it is time and nobody else is at it; tell whether that was done."""
    try:
        if not maintenance.is_due(store, settings, time.time()):
            return False
        done = maintenance.run(store, maintenance.terms(settings, time.time))
        maintenance.note_run(store, time.time())
    except InUse:
        return False
    except CasError as error:
        logger.warning("a collection failed and will be tried again: %s", error)
        return False
    for each in done.left:
        logger.warning("left for the next collection: %s", each)
    logger.info("collected: %d names, %d blobs", done.names.removed.total(), done.bytes.blobs)
    return True
