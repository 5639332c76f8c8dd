"""`cas backup`: a copy of the store that can be opened, checked, served and restored as it is.

Layer: tools. Works beside a live server.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from cas import CopyReport, Store
from tools import exits
from tools.priority import give_way
from tools.settings import Settings, SettingsCommand, with_settings
from tools.units import human_size


@click.command(cls=SettingsCommand)
@with_settings()
@click.argument("dest", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of prose; sizes in bytes.")
def backup(settings: Settings, dest: Path, *, as_json: bool) -> None:
    """Copy the store to a folder, or bring the copy there up to date.

    Works beside a live server. Only what is not in DEST yet is copied. Ended at any point, DEST holds a whole
    backup, the old or the new one; call it again to go on.

    \b
    Examples:
      cas backup /mnt/backup/cas --root /srv/cas
      cas fsck --root /mnt/backup/cas                  # a backup is a store
    """
    with Store.open(settings.root, settings.engine, reading=True) as store, progress_bar("copying") as progress:
        give_way()
        report = store.backup(dest, progress)
    show(report, f"backup of {settings.root} in {dest}", as_json=as_json)


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """Show on a terminal's stderr how far a copy is; elsewhere show nothing."""
    with click.progressbar(length=1, label=label, file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:

        def progress(done: int, total: int) -> None:
            bar.length = max(total, 1)
            bar.update(done - bar.pos)

        yield progress


def show(report: CopyReport, what: str, *, as_json: bool) -> None:
    """Tell what was copied; exit 1 if something of it is damaged."""
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(report), indent=2))
    else:
        click.echo(
            f"{what}: {report.packs:,} packs of {human_size(report.pack_bytes)} "
            f"({human_size(report.copied_bytes)} copied, {report.removed:,} removed), "
            f"index of {human_size(report.index_bytes)}"
        )
        for line in report.damaged:
            click.echo(f"damaged: {line}")
    if report.damaged:
        raise click.exceptions.Exit(exits.FINDINGS)
