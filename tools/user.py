"""`cas user`: the accounts of a store.

Layer: tools. Passwords come from a terminal or from stdin, never from the command line, which every user of the
machine can read. Works beside a live server, which sees each change at once.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import click

from api.access import users
from api.access.accounts import Accounts
from api.access.errors import InvalidUser, KeptElsewhere, NoSuchUser
from api.content import repositories
from cas import Names, NotAStore, Store
from tools.settings import Settings, SettingsCommand, with_settings

_MOST_CHARS = 1 << 20  # of stdin; a password is far shorter, and told so
SEE_ALL = "; `cas user list` shows all"
_STDIN = click.option("--password-stdin", is_flag=True, help="Read the password from stdin instead of a terminal.")


@click.group()
def user() -> None:
    """Make, change, remove and list accounts.

    Each of them takes --root DIR and --config FILE like every command, and its own --help.

    \b
    Examples:
      cas user add alice --admin --root /srv/cas
      cas user add ci --password-stdin --root /srv/cas < secret.txt
      cas user passwd alice --root /srv/cas
      cas user rm ci --root /srv/cas
      cas user list --root /srv/cas
    """


@user.command(cls=SettingsCommand)
@with_settings()
@click.argument("name")
@click.option("--admin", is_flag=True, help="Everything is allowed to this account.")
@click.option("--email", metavar="ADDRESS", help="Where its owner can be reached; never used by the server.")
@_STDIN
def add(settings: Settings, name: str, *, admin: bool, email: str | None, password_stdin: bool) -> None:
    """Make an account: it may do everything to repositories below its own name, NAME/..., and pull public ones.

    The first account may be made before the server runs: then this makes the store.

    \b
    Examples:
      cas user add alice --admin
      cas user add ci --password-stdin < secret.txt
    """
    users.check_name(name)  # before anybody types a password in vain
    password = _password(from_stdin=password_stdin)
    with _opened_or_made(settings) as store:
        accounts = Accounts(store, settings.access, time.time)
        accounts.add(name, password, email=email, admin=admin, inherit=True)
        owns = store.read(lambda reads: repositories.any_below(reads, name))
    click.echo(f"added {'the admin ' if admin else ''}{name}" + (f", who has the repositories in {name}/" * owns))


def _opened_or_made(settings: Settings) -> Store:
    try:
        return Store.open(settings.root, settings.engine)
    except NotAStore:
        store = Store.open(settings.root, settings.engine, create=True)  # refuses what is not blank
        click.echo(f"made a new store at {settings.root}", err=True)
        return store


@user.command(cls=SettingsCommand)
@with_settings()
@click.argument("name")
@_STDIN
def passwd(settings: Settings, name: str, *, password_stdin: bool) -> None:
    """Set an account's password. Whoever logged in with the old one has to log in anew.

    \b
    Examples:
      cas user passwd alice
    """
    with Store.open(settings.root, settings.engine) as store:
        accounts = Accounts(store, settings.access, time.time)
        _check(accounts, settings, name, instead="-B")  # before anybody types a password in vain
        accounts.change(name, password=_password(from_stdin=password_stdin))
    click.echo(f"changed the password of {name}")


@user.command(cls=SettingsCommand)
@with_settings()
@click.argument("name")
def rm(settings: Settings, name: str) -> None:
    """Remove an account with what it was granted. Its repositories stay.

    \b
    Examples:
      cas user rm alice
    """
    with Store.open(settings.root, settings.engine) as store:
        _check(Accounts(store, settings.access, time.time), settings, name, instead="-D")

        def remove(names: Names) -> bool:
            users.remove(names, name)
            return repositories.any_below(names, name)

        left = store.change(remove)
    click.echo(f"removed {name}" + (f"; the repositories in {name}/ stay, and wait for an admin or a grant" * left))


@user.command("list", cls=SettingsCommand)
@with_settings()
@click.option("--json", "as_json", is_flag=True, help="One JSON array instead of a table.")
def list_(settings: Settings, *, as_json: bool) -> None:
    """List all accounts, those of the password file included.

    \b
    Examples:
      cas user list
      cas user list --json
    """
    with Store.open(settings.root, settings.engine, reading=True) as store:
        kept = store.read(users.list_all)
        in_file = Accounts(store, settings.access, time.time).in_file()
    rows = [_Row(one.name, one.admin, one.email, one.created, "store") for one in kept]
    own = {one.name for one in kept}
    rows += [_Row(name, admin=False, email=None, created=None, kept="htpasswd") for name in in_file if name not in own]
    rows.sort(key=lambda row: row.name)
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=2))
        return
    for row in rows:
        since = "" if row.created is None else f"{datetime.fromtimestamp(row.created, UTC):%Y-%m-%d}"
        role = "admin" if row.admin else ""
        click.echo(f"{row.name:<24} {role:<6} {row.kept:<9} {since:<11} {row.email or ''}".rstrip())


@dataclass(frozen=True, slots=True)
class _Row:
    """One account as it is listed; `kept` says where its password is."""

    name: str
    admin: bool
    email: str | None
    created: int | None
    kept: str


def _check(accounts: Accounts, settings: Settings, name: str, *, instead: str) -> None:
    """See that an account can be changed here; `instead` is the flag of `htpasswd` that does it in a password file."""
    try:
        accounts.check_kept_here(name)
    except NoSuchUser:
        raise NoSuchUser(name, SEE_ALL) from None
    except KeptElsewhere:
        raise KeptElsewhere(
            name, f"this does it there: `htpasswd {instead} {settings.access.htpasswd} {name}`"
        ) from None


def _password(*, from_stdin: bool) -> str:
    """Read a password: one line of stdin, or twice from a terminal that does not show it."""
    if not from_stdin:
        if not sys.stdin.isatty():
            raise click.UsageError("there is no terminal to ask for a password: pipe it in, with --password-stdin")
        return str(click.prompt("Password", hide_input=True, confirmation_prompt=True))
    try:
        given = sys.stdin.read(_MOST_CHARS)
    except UnicodeDecodeError:
        raise InvalidUser("a password is text in UTF-8") from None
    return given.removesuffix("\n").removesuffix("\r")
