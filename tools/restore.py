"""`cas restore`: a store made of a backup.

Layer: tools. Needs a root of its own.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from api.content.whereabouts import Whereabouts
from cas import Depth, Finding, Store
from cas import restore as restore_store
from tools.backup import progress_bar, show
from tools.settings import PLACE, Settings, SettingsCommand, with_settings


@click.command(cls=SettingsCommand)
@with_settings()
@click.argument("src", type=PLACE)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of prose; sizes in bytes.")
def restore(settings: Settings, src: Path, *, as_json: bool) -> None:
    """Make a store at --root of the backup in the folder SRC.

    The root has to be empty or new. Every row of the index and every chunk's checksum is looked at on the way, and at
    the end the whole as `cas fsck --quick` does; exits 1 when something is damaged.
    A restore that was ended goes on when it is called again; until it is done, the root is no store.

    \b
    Examples:
      cas restore /mnt/backup/cas --root /srv/cas
    """
    found: list[str] = []

    def look() -> None:
        with Store.open(settings.root, settings.engine) as store:  # puts in order what processes of then left behind
            places = Whereabouts(store)
            found.extend(_said(each, places.of(each.blobs, each.names)) for each in store.check(Depth.QUICK))

    with progress_bar("copying") as progress:
        report = restore_store(src, settings.root, settings.engine, progress=progress, at_last=look)
    report = replace(report, damaged=[*report.damaged, *found])
    show(report, f"{settings.root} restored from {src}", as_json=as_json)


def _said(finding: Finding, names: list[str]) -> str:
    whose = f"; it concerns {', '.join(names)}" if names else ""
    return f"{finding.where}: {finding.what}{whose}; {finding.remedy}"
