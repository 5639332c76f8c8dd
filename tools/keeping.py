"""What a worker does for the store's good beside serving: collections on a schedule.

Layer: tools. Every worker looks now and then whether it is time; the store's lock lets one of them do it, and a note in
the store says when that was, so that restarts begin nothing anew. Whatever fails is logged and tried again: it never
ends a server.
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

LOOK_S: Final = 60.0
REST_SHARE: Final = 1.0  # of what a step took: the rest of the machine is for clients
MOST_REST_S: Final = 1.0
logger = logging.getLogger("cas.keeping")


class Stopping(Exception):
    """The server is told to stop; a collection is left where it is, and the next one goes on."""


@contextmanager
def collecting(store: Store, settings: KeepingSettings, *, look_s: float = LOOK_S) -> Iterator[None]:
    """Collect on schedule, in a thread of its own, until left."""
    if settings.gc_interval_s == 0:
        yield
        return
    done = threading.Event()

    def watch() -> None:
        while not done.wait(look_s):
            try:
                collect_if_due(store, settings, _resting(done))
            except Stopping:
                return
            except Exception:  # our own bug: serving goes on
                logger.exception("a collection failed and will be tried again")

    thread = threading.Thread(target=watch, name="collect", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def collect_if_due(store: Store, settings: KeepingSettings, progress: Callable[[], object] = bool) -> bool:
    """Collect, if it is time and nobody else is at it; tell whether that was done."""
    try:
        if not maintenance.is_due(store, settings, time.time()):
            return False
        done = maintenance.run(store, maintenance.terms(settings, time.time()), progress=progress)
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


def _resting(done: threading.Event) -> Callable[[], None]:
    """Return what to call between steps: rests as long as a step took, and ends it all when the server stops."""
    last = time.monotonic()

    def rest() -> None:
        nonlocal last
        if done.wait(min(MOST_REST_S, (time.monotonic() - last) * REST_SHARE)):
            raise Stopping
        last = time.monotonic()

    return rest
