"""One scrub on schedule, in a process of its own; see `apart`.

Layer: tools. What it finds is said in the log, by the names that people know it by.
"""

from __future__ import annotations

import logging
import time
from typing import Final

from api.content.settings import KeepingSettings
from api.content.whereabouts import Whereabouts
from cas import CasError, InUse, Scrubbed, Store
from tools import apart, exits
from tools.order import Order
from tools.pace import Pace

_AHEAD: Final = 0.9  # of the interval: what is due soon is read in the same go
logger = logging.getLogger("cas.scrub")


def main() -> None:
    """Read through what a worker ordered."""
    apart.main(_work)


def scrub_if_due(store: Store, settings: KeepingSettings) -> int:
    """Read through what was not for long; return the exit code.

    `exits.OK`; `exits.BUSY` if others kept something from being looked at closely, or from being set aside, which can
    be done after them; `exits.FINDINGS` if it failed.
    """
    before, code = time.time() - _AHEAD * settings.scrub_interval_s, exits.OK
    try:
        for scrubbed in store.scrub(before, mends=settings.scrub_mends, told=Pace(settings.scrub_rate_bytes)):
            tell(store, scrubbed)
            code = exits.BUSY if scrubbed.left else code
    except InUse:  # another process is at it
        return exits.OK
    except CasError as error:
        logger.error("the check of stored bytes failed and will be tried again: %s", error)  # noqa: TRY400 - said in full
        return exits.FINDINGS
    return code


def tell(store: Store, scrubbed: Scrubbed) -> None:
    """Log what was found and what became of it, loudly."""
    places = Whereabouts(store)
    for finding in scrubbed.found:
        whose = ", ".join(places.of(finding.blobs, finding.names)) or "nothing that has a name"
        logger.error("DAMAGE: %s: %s; it concerns %s; %s", finding.where, finding.what, whose, finding.remedy)
    if scrubbed.lost:
        lost = ", ".join(map(str, scrubbed.lost))
        logger.error("the damaged packs are in quarantine/; until they are pushed again, these answer 404: %s", lost)
    if scrubbed.left:
        logger.error("what looks damaged could not be looked at closely, and will be: %s", scrubbed.left)


def _work(store: Store, order: Order) -> int:
    return scrub_if_due(store, order.keeping)
