"""`cas repo`: who may see a repository, which there are, and one removed.

Layer: tools. Works beside a live server, which goes by it from the next request on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial

import click

from api.access import grants
from api.content import removal, repositories
from api.content.repositories import Access, Info
from api.content.repository import Repository
from api.content.undelete import Target
from cas import Missing, Store
from tools.errors import NotOneRepository
from tools.settings import Settings, SettingsCommand, with_settings
from tools.units import human_duration

_AT_ONCE = 1000


@click.group()
def repo() -> None:
    """Say who may see a repository, list them all, remove one.

    Each of them takes --root DIR and --config FILE like every command, and its own --help.

    \b
    Examples:
      cas repo set acme/app --public --root /srv/cas
      cas repo list --root /srv/cas
    """


@repo.command("set", cls=SettingsCommand)
@with_settings()
@click.argument("repo", metavar="REPO")
@click.option("--public/--private", default=None, help="Whether everybody may pull it.")
def set_(settings: Settings, repo: str, *, public: bool | None) -> None:
    """Make a repository public or private. It is there once somebody pushed to it; foo is library/foo.

    \b
    Examples:
      cas repo set acme/app --public
      cas repo set busybox --private
    """
    one = _one(repo, lambda part: f"who may see it is said of {part.repository}")
    if public is None:
        raise click.UsageError("say --public or --private")
    access = Access.PUBLIC if public else Access.PRIVATE
    with Store.open(settings.root, settings.engine) as store:
        if not store.change(partial(repositories.set_access, repository=one, access=access)):
            raise Missing(f"there is no repository {one}; the first push makes it. `cas repo list` shows all")
    click.echo(f"{one} is {access}")


@repo.command(cls=SettingsCommand)
@with_settings()
@click.argument("repo", metavar="REPO")
def rm(settings: Settings, repo: str) -> None:
    """Remove a repository with everything in it. Asks nothing: cas undelete brings it back for some days.

    \b
    Examples:
      cas repo rm acme/app
    """
    one = _one(repo, _way_to_delete)
    with Store.open(settings.root, settings.engine) as store:
        if not removal.remove(store, one, time.time()):
            raise Missing(f"there is no repository {one}. `cas repo list` shows all")
    window = human_duration(settings.keeping.undelete_s)
    click.echo(f"removed {one}; for {window}, this brings it back: cas undelete {one}")


def _one(text: str, instead: Callable[[Target], str]) -> Repository:
    """Read the name of a repository; of a part of one say what is to be done instead."""
    if text.endswith(grants.EVERYTHING):
        raise NotOneRepository(f"{text} stands for many repositories: name one. `cas repo list` shows all")
    target = Target.of(text)
    repository = grants.parse_repository(str(target.repository))
    if not target.is_whole:
        kind = "an image" if "@" in text else "a tag"
        raise NotOneRepository(f"{target.what} is {kind}, no repository; {instead(target)}")
    return repository


def _way_to_delete(part: Target) -> str:
    reference = part.what.removeprefix(str(part.repository))[1:]
    path = f"/v2/{part.repository}/manifests/{reference}"
    return f"it goes by the server: DELETE {path}, or skopeo delete, which deletes the image and all tags of it"


@repo.command("list", cls=SettingsCommand)
@with_settings()
@click.option("--json", "as_json", is_flag=True, help="One JSON array instead of a table.")
def list_(settings: Settings, *, as_json: bool) -> None:
    """List all repositories, by name.

    \b
    Examples:
      cas repo list
      cas repo list --json
    """
    with Store.open(settings.root, settings.engine, reading=True) as store:
        if as_json:
            rows = [{"name": str(one), "access": info.access, "created": info.created} for one, info in _all(store)]
            click.echo(json.dumps(rows, indent=2))
            return
        for one, info in _all(store):
            click.echo(f"{info.access:<8} {datetime.fromtimestamp(info.created, UTC):%Y-%m-%d}  {one}")


def _all(store: Store) -> Iterator[tuple[Repository, Info]]:
    after = ""
    while found := store.read(partial(repositories.page, after=after, limit=_AT_ONCE)):
        yield from found
        after = str(found[-1][0])
