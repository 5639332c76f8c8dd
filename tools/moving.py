"""What importing and exporting show while they go on, and in the end.

Layer: tools. What is left out is named on stderr at once; a bar only for eyes.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable

import click

from api.porting.report import Report, Skipped
from tools import exits
from tools.units import human_size

_LABEL_CHARS = 40


def show(work: Callable[[Report], object], *, as_json: bool) -> None:
    """Do some work and tell of it; ends with 1 if something was left out."""
    left: list[Skipped] = []

    def left_out(skipped: Skipped) -> None:
        left.append(skipped)
        line = printable(f"left out: {skipped.what}: {skipped.why}")
        click.echo(f"\r{line}" if sys.stderr.isatty() else line, err=True)

    report = Report(left_out)
    if sys.stderr.isatty():
        _with_bar(work, report)
    else:
        work(report)
    click.echo(_as_json(report, left) if as_json else _told(report))
    if left:
        raise click.exceptions.Exit(exits.FINDINGS)


def printable(text: str) -> str:
    """Spell out what a terminal would take for a command: names in a folder may be anything."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def _with_bar(work: Callable[[Report], object], report: Report) -> None:
    def item(_: object) -> str:
        return f"{human_size(report.counts.bytes):>9}  {printable(report.now[-_LABEL_CHARS:])}"

    with click.progressbar(length=1, file=sys.stderr, item_show_func=item, show_pos=True) as bar:

        def moved(told: Report) -> None:
            bar.length = max(told.total, 1)
            bar.update(min(told.done, bar.length) - bar.pos, told)

        report.moved = moved
        work(report)


def _as_json(report: Report, left: list[Skipped]) -> str:
    """Every number under its own name; scripts rely on these."""
    told = dataclasses.asdict(report.counts) | {"left_out": [dataclasses.asdict(each) for each in left]}
    return json.dumps(told, indent=2)


def _told(report: Report) -> str:
    counts = dataclasses.asdict(report.counts)
    moved = human_size(counts.pop("bytes"))
    words = {"skipped": "left out", "unchanged": "there already", "blobs": f"blobs, {moved} moved"}
    return "\n".join(f"{count:>9,}  {words.get(name, name)}" for name, count in counts.items())
