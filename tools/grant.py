"""`cas grant` and `cas revoke`: which account may do what, beyond its own name space.

Layer: tools. Works beside a live server, which goes by it from the next request on.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import click

from api.access import grants, policy
from api.access.accounts import Account, Accounts
from api.access.errors import InvalidPattern, NoSuchUser
from api.access.principal import Action
from api.content import repositories
from api.content.repositories import Access
from api.content.repository import Repository
from api.content.undelete import Target
from cas import Names, Reads, Store
from tools import exits
from tools.errors import NotOneRepository
from tools.settings import Settings, SettingsCommand, with_settings
from tools.user import SEE_ALL


class Actions(click.ParamType[frozenset[Action]]):
    """Rights, as a list with commas."""

    name = "rights"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> frozenset[Action]:
        try:
            return frozenset(Action(one.strip()) for one in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is no list of rights; those are {','.join(Action)}.", param, ctx)


@click.command(cls=SettingsCommand)
@with_settings()
@click.argument("user")
@click.argument("repo")
@click.argument("rights", type=Actions(), metavar="RIGHTS")
def grant(settings: Settings, user: str, repo: str, rights: frozenset[Action]) -> None:
    """Give an account RIGHTS to a repository.

    They take the place of what it was granted there before. RIGHTS are some of pull,push,delete; whoever
    may push may pull. REPO is a repository, there yet or not
    (foo is library/foo), or NAMESPACE/* for all below a name, or * for all. Of several grants that speak of
    a repository the most specific one counts.

    \b
    Examples:
      cas grant ci acme/app pull,push
      cas grant ci 'acme/*' pull
      cas grant alice busybox push
    """
    pattern = _pattern(repo)
    with Store.open(settings.root, settings.engine) as store:
        accounts = Accounts(store, settings.access, time.time)
        find = partial(_find, accounts, user, _remedy(settings, user))

        def give(names: Names) -> frozenset[Action]:
            find(names)
            return grants.put(names, user, pattern, rights)

        given = store.change(give)
        meant = "/" not in repo and store.read(lambda reads: accounts.find(reads, repo)) is not None
    click.echo(f"{user} may {_listed(given)} {pattern}")
    if meant:
        click.echo(f"that is one repository; for those of the account {repo} say '{repo}/*'", err=True)


@click.command(cls=SettingsCommand)
@with_settings()
@click.argument("user")
@click.argument("repo")
def revoke(settings: Settings, user: str, repo: str) -> None:
    """Take every right to a repository back from an account.

    Whatever gave it: grants to a part of REPO go too, and where a wider one, or the account's own name
    space, would still give something, an empty grant takes that away. Exits 1 when the account is an
    admin's, who may do everything all the same.

    \b
    Examples:
      cas revoke ci acme/app
      cas revoke ci '*'
    """
    pattern = _pattern(repo)
    with Store.open(settings.root, settings.engine) as store:
        find = partial(_find, Accounts(store, settings.access, time.time), user, SEE_ALL)

        def take(names: Names) -> tuple[Account, bool]:
            account = find(names)
            policy.revoke(names, user, pattern)
            return account, _is_public(names, pattern)

        account, public = store.change(take)
    click.echo(f"{user} has no right of its own to {pattern}")
    if public:
        click.echo(f"but {pattern} is public, and everybody may pull it: cas repo set {pattern} --private")
    if account.principal.admin:
        click.echo(f"but {user} is an admin, and may do everything")
        raise click.exceptions.Exit(exits.FINDINGS)


def _pattern(text: str) -> str:
    try:
        return grants.parse_pattern(text)
    except InvalidPattern:
        if not (part := Target.of(text)).is_whole:
            whole = grants.parse_pattern(str(part.repository))
            raise NotOneRepository(f"rights are for repositories, not for tags: say {whole}") from None
        raise


def _remedy(settings: Settings, user: str) -> str:
    """Say how there is such an account; one of a password file is not made anew, which would stand before it."""
    make = f"make it first: cas user add {user}"
    return f"; {make}" if settings.access.htpasswd else f"; if a password file has it, say --htpasswd FILE, else {make}"


def _find(accounts: Accounts, user: str, remedy: str, reads: Reads) -> Account:
    account = accounts.find(reads, user)
    if account is None:
        raise NoSuchUser(user, remedy)
    return account


def _is_public(reads: Reads, pattern: str) -> bool:
    if pattern.endswith(grants.EVERYTHING):
        return False
    info = repositories.find(reads, Repository.of(pattern))
    return info is not None and info.access == Access.PUBLIC


def _listed(given: frozenset[Action]) -> str:
    return ", ".join(action for action in Action if action in given)
