"""The command `cas`: the list of its sub-commands, and the one place where an error becomes an exit code.

Layer: tools.
"""

from __future__ import annotations

import os
import sys
from difflib import get_close_matches
from io import TextIOWrapper
from pkgutil import resolve_name
from typing import Any, Final

import click

from tools import exits
from tools.version import VERSION

# Where each command is; it is loaded when it is called, since that takes longer than most of them.
COMMANDS: Final = {
    "backup": "tools.backup:backup",
    "du": "tools.du:du",
    "export": "tools.export:export",
    "fsck": "tools.fsck:fsck",
    "gc": "tools.gc:gc",
    "grant": "tools.grant:grant",
    "import": "tools.import_:import_",
    "key": "tools.key:key",
    "repo": "tools.repo:repo",
    "restore": "tools.restore:restore",
    "revoke": "tools.grant:revoke",
    "serve": "tools.serve:serve",
    "stats": "tools.stats:stats",
    "undelete": "tools.undelete:undelete",
    "user": "tools.user:user",
}


class Commands(click.Group):
    """A group whose commands may raise: the table in tools/exits.py answers."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        return load(cmd_name) if cmd_name in COMMANDS else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and (near := get_close_matches(args[0], COMMANDS)):  # click knows none of them
            ctx.fail(f"No such command '{args[0]}'. Did you mean '{near[0]}'?")
        return super().resolve_command(ctx, args)

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


def load(name: str) -> click.Command:
    """Give a command of ours."""
    command = resolve_name(COMMANDS[name])
    assert isinstance(command, click.Command)
    return command


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
      cas serve --bind 0.0.0.0:5000 --mode auth --signup false --tls-cert cert.pem --tls-key key.pem
      cas stats --root /srv/cas
    """
