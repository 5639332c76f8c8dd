"""What `cas fsck` says: a line or a JSON object for each finding, how far it is, and a summary.

Layer: tools. Findings go to stdout, the progress bar to a terminal on stderr and nowhere else.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, final

import click

from api.content.whereabouts import Whereabouts
from cas import LOST, Depth, Finding, RepairReport, Scope, Store
from tools import exits
from tools.pace import Pace
from tools.units import counted, human_size

if TYPE_CHECKING:
    from pathlib import Path

    from click._termui_impl import ProgressBar

MENDED: Final = "mended"
COPY: Final = "this is a backup, and the next cas backup to this folder mends it"
_STEPS = 1000  # of a progress bar


@final
class Report:
    """One check, or one repair, as it is told."""

    def __init__(self, root: Path, depth: Depth, *, as_json: bool, bytes_per_s: float | None = None) -> None:
        self._root, self._depth, self._json = root, depth, as_json
        self._pace = None if bytes_per_s is None else Pace(bytes_per_s)
        self._bar: ProgressBar[int] | None = None
        self._read, self._began = 0, time.monotonic()
        self._mended: list[Finding] = []

    def read(self, count: int) -> None:
        """Take notice of bytes that were read; wait where a rate was asked for."""
        self._read += count
        if self._bar is not None:
            self._bar.update(count)
        if self._pace is not None:
            self._pace(count)

    def look(self, store: Store, scope: Scope) -> int:
        """Check, tell, and return the exit code."""
        with self._progress(store, scope):
            found = list(store.check(scope))
        places, is_backup = Whereabouts(store), store.is_backup()
        for finding in found:
            self._say(_of_backup(finding) if is_backup else finding, places)
        code = exits.UNMENDED if found else exits.OK
        part = {} if scope.parts == 1 else {"subset": f"{scope.part}/{scope.parts}"}
        blobs = len({digest for finding in found for digest in finding.blobs})
        said = f"{counted(len(found), 'finding')}, {counted(blobs, 'blob')} concerned; {human_size(self._read)} read"
        doubted = store.stats().doubted if self._depth is Depth.QUICK else 0  # who reads all of them knows more
        if doubted:
            said += f"; {counted(doubted, 'pack')} seen damaged before, or missing: cas fsck --data says what of"
        what = f"{self._depth.name.lower()} check" + "".join(f" of {each}" for each in part.values())
        self._sum_up(found, {**part, "blobs": blobs, "exit": code}, f"{what}: {said}")
        return code

    def mend(self, store: Store, *, dry_run: bool, other: Store | None = None) -> int:
        """Repair, tell, and return the exit code.

        Args:
            store: what is mended.
            dry_run: whether it is only said what would be done.
            other: where lost blobs may be had.
        """
        places = Whereabouts(store)
        scope = Scope(self._depth, told=self.read)
        report = store.repair(scope, dry_run=dry_run, other=None if other is None else other.reader)
        left = () if dry_run else report.left
        stays, told = set(left), set(report.found)
        for finding in report.found:
            self._say(finding if dry_run or finding in stays else _done(finding, report), places)
        found = (*self._mended, *report.found)
        code = exits.OK if not found else exits.UNMENDED if left or dry_run else exits.MENDED
        more = {
            "packs": [f"{pack:016x}" for pack in report.packs],
            "lost": [str(digest) for digest in report.lost],
            "recovered": [str(digest) for digest in report.recovered],
            "left": len(left),
            "dry_run": dry_run,
            "exit": code,
        }
        self._sum_up(found, more, _mended(report, len(found), len(left), dry_run=dry_run))
        for finding in () if self._json else left:
            if finding not in told:
                click.echo(f"not mended: {finding.where}: {finding.what}; {located(finding.remedy, self._root)}")
        return code

    def mended(self, finding: Finding) -> None:
        """Tell what had to be mended before a store could be opened; what is told of the rest comes later."""
        self._say(replace(finding, remedy=MENDED), None)
        self._mended.append(finding)

    def stop(self, finding: Finding) -> int:
        """Tell the finding that ends a check early, and return the exit code."""
        self._say(finding, None)
        self._sum_up([finding], {"blobs": 0, "exit": exits.UNMENDED}, f"{self._depth.name.lower()} check: ended early")
        return exits.UNMENDED

    @contextmanager
    def _progress(self, store: Store, scope: Scope) -> Iterator[None]:
        if self._json or not sys.stderr.isatty() or scope.depth is Depth.QUICK:
            yield
            return
        length = max(store.check_size(scope), 1)
        with click.progressbar(
            length=length, label="checking", file=sys.stderr, update_min_steps=max(length // _STEPS, 1)
        ) as self._bar:
            yield
        self._bar = None

    def _say(self, finding: Finding, places: Whereabouts | None) -> None:
        said = {
            "check": finding.check,
            "invariant": finding.invariant,
            "what": finding.what,
            "where": finding.where,
            "blobs": [str(digest) for digest in finding.blobs],
            "names": [] if places is None else places.of(finding.blobs, finding.names),
            "remedy": located(finding.remedy, self._root),
        }
        click.echo(json.dumps(said) if self._json else _line(said))

    def _sum_up(self, found: Sequence[Finding], more: dict[str, Any], text: str) -> None:
        summary = {
            "depth": self._depth.name.lower(),
            "findings": len(found),
            "checks": dict(Counter(finding.check for finding in found)),
            "bytes_read": self._read,
            "seconds": round(time.monotonic() - self._began, 2),
        }
        click.echo(json.dumps({"summary": summary | more}) if self._json else text)


def _of_backup(finding: Finding) -> Finding:
    """Return what was found in a backup with what mends it there: a repair might make a store of its own of it."""
    return replace(finding, remedy=COPY) if finding.check in {"packs", "chunks", "journal"} else finding


def located(remedy: str, root: Path) -> str:
    """Return a remedy as it can be typed for this store, wherever that is."""
    return remedy.replace("cas fsck", f"cas fsck --root {root}")


def _done(finding: Finding, report: RepairReport) -> Finding:
    """Return what was found as it is after a repair that mended it: what is lost has to come from elsewhere."""
    return replace(finding, remedy=MENDED if set(report.lost).isdisjoint(finding.blobs) else LOST)


def _line(said: dict[str, Any]) -> str:
    blobs = [digest for digest in said["blobs"] if said["where"] != f"blob {digest}"]
    whose = "".join(f"\n    {text}" for text in (*blobs, *said["names"]))
    return f"{said['check']} ({said['invariant']}): {said['where']}: {said['what']}; {said['remedy']}{whose}"


def _mended(report: RepairReport, found: int, left: int, *, dry_run: bool) -> str:
    would = "would be " if dry_run else ""
    came = f"{counted(len(report.recovered), 'blob')} brought back, " if report.recovered else ""
    packs, lost = counted(len(report.packs), "pack"), counted(len(report.lost), "blob")
    return (
        f"repair: {counted(found, 'finding')}; {packs} {would}set aside in quarantine/, {came}"
        f"{lost} {would}answered as missing until they are pushed again, {left:,} not mended"
    )
