"""One scrub on schedule, in a process of its own; see `apart`.

Layer: tools. What it finds is said in the log, by the names that people know it by.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, final

from api.content.settings import KeepingSettings
from api.content.values import content, record
from api.content.whereabouts import Whereabouts
from cas import REPAIR, CasError, Digest, Finding, InUse, Name, Names, Scrubbed, Store
from tools import apart, exits
from tools.order import Order
from tools.pace import Pace

_AHEAD: Final = 0.9  # of the interval: what is due soon is read in the same go
_TOLD: Final = Name("scrub.told", "run")
_SUM_BYTES: Final = 8
_MOST_LINES: Final = 10  # of one pack
_MOST_TOLD: Final = 2000  # sums that one row keeps
logger = logging.getLogger("cas.scrub")


def main() -> None:
    """Read through what a worker ordered."""
    apart.main(_work)


def scrub_if_due(store: Store, settings: KeepingSettings) -> int:
    """Read through what was not for long; return the exit code.

    `exits.OK`; `exits.BUSY` if others kept something from being looked at closely, or from being set aside, which can
    be done after them; `exits.FINDINGS` if it failed.
    """
    before, code, told = time.time() - _AHEAD * settings.scrub_interval_s, exits.OK, _Told(store)
    try:
        for scrubbed in store.scrub(before, mends=settings.scrub_mends, told=Pace(settings.scrub_rate_bytes)):
            _tell(store, scrubbed, told)
            code = exits.BUSY if scrubbed.left else code
    except InUse:  # another process is at it
        return exits.OK
    except CasError as error:
        logger.error("the check of stored bytes failed and will be tried again: %s", error)  # noqa: TRY400 - said in full
        code = exits.FINDINGS
    told.keep(is_done=code == exits.OK)
    return code


@final
class _Told:
    """What was logged and could not be set aside yet: whoever tries again, in whichever process, does not repeat it.

    By short sums of the words, which name pack and byte.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        found = store.get(_TOLD)
        self._before = frozenset[str](() if found is None else content(found)["sums"])
        self._sums = set(self._before)

    def is_new(self, finding: Finding) -> bool:
        """Note a finding; say whether it was not logged before."""
        text = f"{finding.where}: {finding.what}"
        key = hashlib.blake2b(text.encode(), digest_size=_SUM_BYTES).hexdigest()
        is_new = key not in self._sums
        self._sums.add(key)
        return is_new

    def keep(self, *, is_done: bool) -> None:
        """Keep it for whoever tries again, unless nobody has to."""
        wanted = frozenset(() if is_done else sorted(self._sums)[:_MOST_TOLD])
        if wanted == self._before:
            return

        def edit(names: Names) -> None:
            if wanted:
                names.put(_TOLD, record({"sums": sorted(wanted)}))
            else:
                names.delete(_TOLD)

        with suppress(CasError):  # then it is logged again
            self._store.change(edit, frees=True)


def _tell(store: Store, scrubbed: Scrubbed, told: _Told) -> None:
    """Log what was found and what became of it, loudly."""
    places, mended = Whereabouts(store), bool(scrubbed.lost or scrubbed.aside) and not scrubbed.kept
    by_place: dict[str, list[Finding]] = {}
    for finding in filter(told.is_new, scrubbed.found):
        by_place.setdefault(finding.where.partition(",")[0], []).append(finding)
    for place, found in by_place.items():
        for finding in found if len(found) <= _MOST_LINES else (*found[: _MOST_LINES - 1], _others(place, found)):
            whose = ", ".join(places.of(finding.blobs, finding.names)) or "nothing that has a name"
            remedy = "" if mended and finding.remedy == REPAIR else f"; {finding.remedy}"
            logger.error("DAMAGE: %s: %s; it concerns %s%s", finding.where, finding.what, whose, remedy)
    if scrubbed.lost or scrubbed.aside:
        logger.error("%s; %s", _where(scrubbed), _missing(scrubbed.lost))
    if scrubbed.left:
        logger.error("what looks damaged could not be looked at closely, and will be: %s", scrubbed.left)


def _missing(lost: Sequence[Digest]) -> str:
    """Say what has to come back, and from where."""
    if not lost:
        return "nothing is missing because of it"
    digests = ", ".join(map(str, lost))
    return f"until they are pushed again, these answer 404: {digests}; from a backup: cas fsck --repair --from BACKUP"


def _where(scrubbed: Scrubbed) -> str:
    """Say what became of the files of damaged packs."""
    if scrubbed.kept:
        return f"{_packs(scrubbed.kept)} could not be set aside yet and will be"
    return "the damaged packs are in quarantine/" if scrubbed.aside else "the damaged packs are gone"


def _packs(packs: Sequence[int]) -> str:
    return ", ".join(f"pack {pack:016x}" for pack in packs)


def _others(place: str, found: Sequence[Finding]) -> Finding:
    """Return as one finding those of a pack that get no line of their own."""
    others = found[_MOST_LINES - 1 :]
    blobs = sorted({digest for each in others for digest in each.blobs})
    names = sorted({name for each in others for name in each.names}, key=Name.key)
    what = f"there are {len(others)} more findings like the last one"
    return Finding(others[0].check, what, place, others[0].remedy, tuple(blobs), tuple(names))


def _work(store: Store, order: Order) -> int:
    return scrub_if_due(store, order.keeping)
