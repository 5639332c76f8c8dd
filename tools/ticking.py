"""Housekeeping of whoever has a store open for long: removed packs are let go of, and a server ticks now and then.

Layer: tools. A thread beside the work. A removed pack's space is free once everybody closed it, and a collection on a
full disk waits for that, ten seconds at most: so a check of a whole night looks every second, as a server does.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from typing import Final

from cas import CasError, Store

LET_GO_S: Final = 1.0
logger = logging.getLogger("cas.ticking")


@contextlib.contextmanager
def ticking(store: Store, every_s: float = float("inf")) -> Iterator[None]:
    """Close what others removed, until left; and keep the engine's house so often, since any server may be the last."""
    done = threading.Event()

    def tick() -> None:
        due = time.monotonic() + every_s
        while not done.wait(LET_GO_S):
            try:
                store.let_go()
                if time.monotonic() >= due:
                    due = time.monotonic() + every_s
                    store.tick()
            except CasError as error:
                logger.warning("housekeeping failed and will be tried again: %s", error)

    thread = threading.Thread(target=tick, name="tick", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
