"""`cas fsck`: mend a store that cannot mend itself while serving.

Layer: tools. The engine does the work; this says what it found.
"""

from __future__ import annotations

import click

from cas import RebuildReport, rebuild_index
from tools import exits
from tools.settings import Settings, SettingsCommand, with_settings


@click.command(cls=SettingsCommand)
@with_settings()
@click.option("--rebuild-index", "rebuild", is_flag=True, required=True, help="Make index/ anew from packs/.")
@click.option("--force", is_flag=True, help="Even if index/ exists: it is moved aside to index.old-N first.")
def fsck(settings: Settings, *, rebuild: bool, force: bool) -> None:  # noqa: ARG001 - one job so far, and required
    """Make the index anew from the packs.

    Needs the store for itself: stop the server first. Everything that was ever acknowledged comes back:
    blobs, images, tags, repositories. Exits 1 when something in the packs is damaged, and names it.

    \b
    Examples:
      cas fsck --rebuild-index --root /srv/cas
      cas fsck --rebuild-index --force --root /srv/cas   # the index is there, but not to be trusted
    """
    report = rebuild_index(settings.root, settings.engine, force=force)
    click.echo(_summary(report))
    for line in report.damaged:
        click.echo(f"damaged: {line}")
    if report.damaged:
        raise click.exceptions.Exit(exits.FINDINGS)


def _summary(report: RebuildReport) -> str:
    return (
        f"index rebuilt from {report.packs:,} packs: "
        f"{report.chunks:,} chunks, {report.blobs:,} blobs, {report.names:,} names"
    )
