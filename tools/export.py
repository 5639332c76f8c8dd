"""`cas export`: repositories as folders that other tools read.

Layer: tools. Reads beside a live server; changes nothing in the store, but that it doubts where it saw damage.
"""

from __future__ import annotations

from pathlib import Path

import click

from api.porting import outgoing
from cas import Store
from tools import moving
from tools.import_ import one_repository
from tools.settings import PLACE, Settings, SettingsCommand, with_settings
from tools.ticking import ticking


@click.group()
def export() -> None:
    """Write repositories into folders.

    Each of them takes --root DIR and --config FILE like every command, and its own --help.

    \b
    Examples:
      cas export oci acme/app ./layout --root /srv/cas
    """


@export.command("oci", cls=SettingsCommand)
@with_settings()
@click.argument("what", metavar="REPO[:TAG]")
@click.argument("folder", metavar="DIR", type=PLACE)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
def oci_(settings: Settings, what: str, folder: Path, *, as_json: bool) -> None:
    """Write a repository or a tag as an OCI image layout.

    What is about it (signatures, SBOMs) goes with it. DIR is made, or added to if it is such a layout. Can be stopped
    at any moment and begun anew: what is there already, and right, is not written again, and a tag is listed only once
    all of it is there. What cannot be read or has rotted is named and left out, and the exit code is 1 then.

    \b
    Examples:
      cas export oci acme/app ./layout
      cas export oci acme/app:1.0 ./layout && skopeo copy --all oci:layout:1.0 docker://elsewhere/app:1.0
    """
    name, _, tag = what.partition(":")
    one = one_repository(name)
    most = settings.v2.max_manifest_bytes
    with Store.open(settings.root, settings.engine, reading=True) as store, ticking(store):
        moving.show(lambda report: outgoing.write(store, one, tag or None, folder, most, report), as_json=as_json)
