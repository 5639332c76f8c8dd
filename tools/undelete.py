"""`cas undelete`: what was deleted comes back, and which deletions can be undone.

Layer: tools. Works beside a live server, which serves what came back from the next request on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import click

from api.access import grants
from api.content import trash
from api.content import undelete as content
from api.content.trash import Deletion
from api.content.undelete import Target
from cas import Store
from tools.settings import Settings, SettingsCommand, with_settings
from tools.units import human_duration

_AT_ONCE = 1000


@click.command(cls=SettingsCommand)
@with_settings()
@click.argument("what", metavar="[REPO[:TAG]|REPO@DIGEST]", required=False)
@click.option("--list", "listing", is_flag=True, help="List what can be brought back, below WHAT if that is given.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def undelete(settings: Settings, what: str | None, *, listing: bool, as_json: bool) -> None:
    """Bring back a deleted tag, manifest or repository.

    The last deletion of just that is undone, as long as undelete_s has not passed and no cas gc --grace 0 was
    run since. What stands in its place by now is never touched: then this says what to do, and changes nothing.

    \b
    Examples:
      cas undelete --list
      cas undelete acme/app:1.0
      cas undelete acme/app --json
    """
    if what is None and not listing:
        raise click.UsageError("say what to bring back, or --list")
    target = None if what is None else _target(what)
    with Store.open(settings.root, settings.engine, reading=listing) as store:
        if listing:
            _list(_deletions(store, target), settings.keeping.undelete_s, as_json=as_json)
            return
        assert target is not None, "refused above"
        restored = content.undelete(store, target)
    left = [f"{name.kind} {name.path}" for name in restored.left]
    if as_json:
        click.echo(json.dumps({"what": target.what, "deleted": restored.deletion.at, "left": left}))
        return
    click.echo(f"{target.what} is back")
    for each in left:
        click.echo(f"left out: {each}: something stands there by now, or its blob was lost")


def _target(what: str) -> Target:
    target = Target.of(what)
    grants.parse_repository(str(target.repository))
    return target


def _deletions(store: Store, target: Target | None) -> Iterator[Deletion]:
    """Yield every deletion, or those of a target and of what is in it."""
    after = ""
    while found := trash.deletions(store, "" if target is None else target.what, after=after, limit=_AT_ONCE):
        yield from (each for each in found if target is None or _is_within(each.what, target))
        after = found[-1].name.path


def _is_within(what: str, target: Target) -> bool:
    return what == target.what or (target.kind == "repo" and what.removeprefix(target.what)[0] in ":@")


def _list(deletions: Iterator[Deletion], window_s: float, *, as_json: bool) -> None:
    rows = sorted(deletions, key=lambda each: (each.at, each.what))
    if as_json:
        told = [{"what": each.what, "deleted": each.at, "until": int(each.at + window_s)} for each in rows]
        click.echo(json.dumps(told, indent=2))
        return
    if not rows:
        click.echo("nothing that was deleted can be brought back")
    for each in rows:
        left = each.at + window_s - time.time()
        until = f"{human_duration(left)} left" if left > 0 else "until the next collection"
        click.echo(f"{datetime.fromtimestamp(each.at, UTC):%Y-%m-%d %H:%M}  {until:<25}  {each.what}")
