"""`cas backup`: a copy of the store that can be opened, checked, served and restored as it is.

Layer: tools. Works beside a live server.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Final

import click

from api.content.whereabouts import Whereabouts
from cas import PUSH, CopyReport, Digest, Store
from tools import exits
from tools.priority import give_way
from tools.settings import PLACE, Settings, SettingsCommand, with_settings
from tools.units import counted, human_size

_SUFFER: Final = ("lost", "kept", "spoilt", "spared")  # fields of a report that list blobs


@click.command(cls=SettingsCommand)
@with_settings()
@click.argument("dest", type=PLACE)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of prose; sizes in bytes.")
def backup(settings: Settings, dest: Path, *, as_json: bool) -> None:
    """Copy the store to a folder, or bring the copy there up to date.

    Works beside a live server. Only what is not in DEST yet is copied. Ended at any point, DEST holds a whole
    backup, the old or the new one; call it again to go on. What is damaged in the store or lost by that, and whole in
    DEST, stays there; exits 1 as long as anything is lost or damaged, and names it.

    \b
    Examples:
      cas backup /mnt/backup/cas --root /srv/cas
      cas fsck --root /mnt/backup/cas                  # a backup is a store
    """
    with Store.open(settings.root, settings.engine, reading=True) as store, progress_bar("copying") as progress:
        give_way()
        report = store.backup(dest, progress)
        places = Whereabouts(store)
        names = {digest: places.of_blob(digest) for _, _, blobs in _sufferers(report, dest) for digest in blobs}
    show(report, f"backup of {settings.root} in {dest}", as_json=as_json, names=names, dest=dest)


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """Show on a terminal's stderr how far a copy is; elsewhere show nothing."""
    with click.progressbar(length=1, label=label, file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:

        def progress(done: int, total: int) -> None:
            bar.length = max(total, 1)
            bar.update(done - bar.pos)

        yield progress


def show(
    report: CopyReport,
    what: str,
    *,
    as_json: bool,
    names: Mapping[Digest, list[str]] = MappingProxyType({}),
    dest: Path | None = None,
) -> None:
    """Tell what was copied; exit 1 if something of it is damaged, or the store has lost something.

    Args:
        report: of the copy.
        what: in words.
        as_json: whether programs read it.
        names: who needs what the store has lost.
        dest: where that may be had still.
    """
    concerned = _sufferers(report, dest)
    if as_json:
        told = {
            key: [{"blob": str(digest), "names": names[digest]} for digest in getattr(report, key)] for key in _SUFFER
        }
        click.echo(json.dumps(dataclasses.asdict(report) | told, indent=2))
    else:
        click.echo(
            f"{what}: {counted(report.packs, 'pack')} of {human_size(report.pack_bytes)} "
            f"({human_size(report.copied_bytes)} copied, {report.removed:,} removed), "
            f"index of {human_size(report.index_bytes)}"
        )
        for line in report.damaged:
            click.echo(f"damaged: {line}")
        for word, remedy, blobs in concerned:
            for digest in blobs:
                whose = ", ".join(names[digest]) or "nothing that has a name"
                click.echo(f"{word}: blob {digest}, of {whose}; {remedy}")
    if report.damaged or any(blobs for _, _, blobs in concerned):
        raise click.exceptions.Exit(exits.FINDINGS)


def _sufferers(report: CopyReport, dest: Path | None) -> list[tuple[str, str, list[Digest]]]:
    """Return in what plight blobs are, what to do about it, and which those are."""
    back = f"the backup has it: cas fsck --repair --from {dest}"
    return [
        ("lost", PUSH, report.lost),
        ("lost", back, report.kept),
        ("damaged", f"run cas fsck --repair, then {PUSH}", report.spoilt),
        ("damaged", back, report.spared),
    ]
