"""The command `cas`: the list of its sub-commands, and the one place where an error becomes an exit code.

Layer: tools.
"""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper
from typing import Any

import click

from tools import exits
from tools.backup import backup
from tools.du import du
from tools.export import export
from tools.fsck import fsck
from tools.gc import gc
from tools.grant import grant, revoke
from tools.import_ import import_
from tools.key import key
from tools.repo import repo
from tools.restore import restore
from tools.serve import serve
from tools.stats import stats
from tools.undelete import undelete
from tools.user import user
from tools.version import VERSION


class Commands(click.Group):
    """A group whose commands may raise: the table in tools/exits.py answers."""

    def main(self, *args: Any, **extra: Any) -> Any:
        _prepare_output()
        try:
            try:
                return super().main(*args, **extra)
            finally:
                exits.flush()
        except BrokenPipeError:  # the reader has enough, as `head` has: no reason to say anything
            exits.hush()
            sys.exit(exits.FINDINGS)
        except OSError as error:  # of a --help that cannot be written, say
            sys.exit(exits.report(error))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            exits.heed_interrupts()
            return super().invoke(ctx)
        except (KeyboardInterrupt, click.Abort):  # the latter where something was asked for
            exits.end_interrupted()
        except (click.ClickException, click.exceptions.Exit, BrokenPipeError):
            raise  # click's own: it prints the usage, or ends quietly when a pipe's reader is gone
        except Exception as error:  # noqa: BLE001 - the outermost frame: it becomes an exit code
            ctx.exit(exits.report(error))


def _prepare_output() -> None:
    """See to it that no file of ours gets the number of a standard one, and that every file's name can be printed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Every command takes its own --help. Settings: flags, then CAS_... in the environment, then the "
    "file named by --config, then defaults.",
)
@click.version_option(VERSION, prog_name="cas", message="%(prog)s %(version)s")
def main() -> None:
    """A self-hosted container registry on an embedded content-addressed store.

    \b
    Examples:
      cas serve                                        # ./data at http://127.0.0.1:5000
      cas serve --root /srv/cas --bind 0.0.0.0:5000 --mode auth
      cas stats --root /srv/cas
    """


_COMMANDS = (serve, user, grant, revoke, repo, key, stats, du, gc, undelete, fsck, backup, restore, import_, export)
for command in _COMMANDS:
    main.add_command(command)
