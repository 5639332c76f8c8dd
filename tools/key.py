"""`cas key`: the keys that sign tokens.

Layer: tools. Works beside a live server, whose workers all sign with the new key from the next token on.
"""

from __future__ import annotations

import time

import click

from api.access import keys
from cas import Store
from tools.settings import Settings, SettingsCommand, with_settings


@click.group()
def key() -> None:
    """Change the keys that sign tokens.

    It takes --root DIR and --config FILE like every command, and its own --help.

    \b
    Examples:
      cas key rotate --root /srv/cas
    """


@key.command(cls=SettingsCommand)
@with_settings()
@click.option("--keep", type=click.IntRange(0, 10), default=1, show_default=True, help="Older keys that stay good.")
def rotate(settings: Settings, *, keep: int) -> None:
    """Sign tokens with a new key from now on.

    Tokens signed with one of the --keep keys before it stay good until they expire, so nobody notices. With
    --keep 0 every token ends at once, and clients fetch new ones; refresh tokens and passwords are not keys.

    \b
    Examples:
      cas key rotate
      cas key rotate --keep 0   # the store was seen by somebody who should not have
    """
    with Store.open(settings.root, settings.engine) as store:
        ring = store.change(lambda names: keys.rotate(names, time.time(), keep))
    older = len(ring.keys) - 1
    click.echo(f"key {ring.newest.id} signs; {older} older {'key stays' if older == 1 else 'keys stay'} good")
