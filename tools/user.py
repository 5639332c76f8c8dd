"""`cas user`: the accounts of a store.

Layer: tools. Passwords come from a terminal or from stdin, never from the command line, which every user of the
machine can read. Works beside a live server, which sees each change at once.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial

import click

from api.access import policy, users
from api.access.accounts import Accounts
from api.access.errors import InvalidUser, KeptElsewhere, NoSuchUser, UserExists
from api.access.principal import Action
from api.access.settings import Mode
from api.content import repositories
from cas import Names, NotAStore, Reads, Store
from tools.settings import Settings, SettingsCommand, with_settings

_MOST_CHARS = 1 << 20  # of stdin; a password is far shorter, and told so
SEE_ALL = "; `cas user list` shows all"
_FIRST = (
    "accounts are asked for by `cas serve --mode auth`; a server that runs in open mode asks nobody until started anew"
)
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
      cas user set alice --no-admin --root /srv/cas
      cas user rm ci --root /srv/cas
      cas user show ci --root /srv/cas
      cas user list --root /srv/cas
    """


@user.command(cls=SettingsCommand)
@with_settings()
@click.argument("name")
@click.option("--admin", is_flag=True, help="Everything is allowed to this account.")
@click.option("--email", metavar="ADDRESS", help="Where its owner can be reached; never used by the server.")
@_STDIN
def add(settings: Settings, name: str, *, admin: bool, email: str | None, password_stdin: bool) -> None:
    """Make an account.

    It may do everything to repositories below its own name, NAME/..., and pull public ones.

    The first account may be made before the server runs: then this makes the store.

    \b
    Examples:
      cas user add alice --admin
      cas user add ci --password-stdin < secret.txt
    """
    users.check_name(name)  # before anybody types a password in vain
    _check_free(settings, name)
    password = _password(from_stdin=password_stdin)
    with _opened_or_made(settings) as store:
        accounts = Accounts(store, settings.access, time.time)
        accounts.add(name, password, email=email, admin=admin, inherit=True)
        owns = store.read(lambda reads: repositories.any_below(reads, name))
        is_first = len(store.read(lambda reads: reads.paths(users.USER, limit=2))) == 1
    click.echo(f"added {'the admin ' if admin else ''}{name}" + (f", who has the repositories in {name}/" * owns))
    if is_first and settings.access.mode is Mode.OPEN:
        click.echo(_FIRST, err=True)


def _check_free(settings: Settings, name: str) -> None:
    with suppress(NotAStore), Store.open(settings.root, settings.engine) as store:
        if store.read(lambda reads: users.find(reads, name)) is not None:
            raise UserExists(name, f"; `cas user passwd {name}` sets its password, `cas user set {name}` its rank")


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
        _check(accounts, name, _in_file("-B", name, settings))  # before anybody types a password in vain
        accounts.change(name, password=_password(from_stdin=password_stdin))
    click.echo(f"changed the password of {name}")


@user.command("set", cls=SettingsCommand)
@with_settings()
@click.argument("name")
@click.option("--admin/--no-admin", default=None, help="Whether everything is allowed to this account.")
def set_(settings: Settings, name: str, *, admin: bool | None) -> None:
    """Make an account an admin, or no admin any more.

    It keeps its password and its grants.

    \b
    Examples:
      cas user set alice --admin
    """
    if admin is None:
        raise click.UsageError("say --admin or --no-admin")
    with Store.open(settings.root, settings.engine) as store:
        remedy = f"it is never an admin, and this comes near: cas grant {name} '*' pull,push,delete"
        _check(Accounts(store, settings.access, time.time), name, remedy)

        def change(names: Names) -> bool:
            return _without_last_admin(names, name, partial(users.set_admin, names, name, admin=admin))

        nobody = store.change(change)
    click.echo(f"{name} is {'an' if admin else 'no'} admin")
    _warn(nobody=nobody)


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
        _check(Accounts(store, settings.access, time.time), name, _in_file("-D", name, settings))

        def remove(names: Names) -> tuple[bool, bool]:
            nobody = _without_last_admin(names, name, partial(users.remove, names, name))
            return repositories.any_below(names, name), nobody

        left, nobody = store.change(remove)
    click.echo(f"removed {name}" + (f"; the repositories in {name}/ stay, and wait for an admin or a grant" * left))
    _warn(nobody=nobody)


def _without_last_admin(names: Names, name: str, change: Callable[[], None]) -> bool:
    """Make a change of an account; tell whether it took away the last admin."""
    before = users.find(names, name)
    change()
    return before is not None and before.admin and not users.any_admin(names)


def _warn(*, nobody: bool) -> None:
    if nobody:
        click.echo("there is no admin now; make one: cas user set NAME --admin", err=True)


@user.command(cls=SettingsCommand)
@with_settings()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
def show(settings: Settings, name: str, *, as_json: bool) -> None:
    """Show an account and what it may do.

    Of all lines that speak of a repository the most specific one counts.

    \b
    Examples:
      cas user show ci
    """
    row = next((each for each in _rows(settings) if each.name == name), None)
    if row is None:
        raise NoSuchUser(name, SEE_ALL)
    if as_json:
        click.echo(json.dumps(asdict(row), indent=2))
        return
    click.echo(str(row))
    if row.admin:
        click.echo(f"{name} is an admin, and may do everything")
        return
    for pattern, rights in row.rights.items():
        click.echo(f"{pattern:<31} {', '.join(rights) or 'nothing'}")


@user.command("list", cls=SettingsCommand)
@with_settings()
@click.option("--json", "as_json", is_flag=True, help="One JSON array instead of a table.")
def list_(settings: Settings, *, as_json: bool) -> None:
    """List all accounts, those of the password file included. `cas user show NAME` says what one may do.

    \b
    Examples:
      cas user list
      cas user list --json
    """
    rows = _rows(settings)
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=2))
        return
    for row in rows:
        click.echo(str(row))


@dataclass(frozen=True, slots=True)
class _Row:
    """One account as it is listed; `kept` says where its password is, `rights` what was granted, by pattern."""

    name: str
    admin: bool
    email: str | None
    created: int | None
    kept: str
    rights: dict[str, list[str]]

    def __str__(self) -> str:
        since = "" if self.created is None else f"{datetime.fromtimestamp(self.created, UTC):%Y-%m-%d}"
        role = "admin" if self.admin else ""
        return f"{self.name:<24} {role:<6} {self.kept:<9} {since:<11} {self.email or ''}".rstrip()


def _rows(settings: Settings) -> list[_Row]:
    with Store.open(settings.root, settings.engine, reading=True) as store:
        in_file = Accounts(store, settings.access, time.time).in_file()

        def look(reads: Reads) -> list[_Row]:
            def rights(name: str) -> dict[str, list[str]]:
                said = sorted(policy.said_of(reads, name).items())
                return {pattern: [each.value for each in Action if each in given] for pattern, given in said}

            kept = users.list_all(reads)
            own = {one.name for one in kept}
            return [
                *(_Row(one.name, one.admin, one.email, one.created, "store", rights(one.name)) for one in kept),
                *(
                    _Row(name, admin=False, email=None, created=None, kept="htpasswd", rights=rights(name))
                    for name in in_file
                    if name not in own
                ),
            ]

        return sorted(store.read(look), key=lambda row: row.name)


def _in_file(flag: str, name: str, settings: Settings) -> str:
    return f"this does it there: `htpasswd {flag} {settings.access.htpasswd} {name}`"


def _check(accounts: Accounts, name: str, remedy: str) -> None:
    """See that an account can be changed here; the remedy is for one of a password file."""
    try:
        accounts.check_kept_here(name)
    except NoSuchUser:
        raise NoSuchUser(name, SEE_ALL) from None
    except KeptElsewhere:
        raise KeptElsewhere(name, remedy) from None


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
