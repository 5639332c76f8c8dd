"""`cas undelete`: what was deleted comes back, and which deletions can be undone.

Layer: tools. Works beside a live server, which serves what came back from the next request on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import click

from api.access import grants
from api.content import trash
from api.content import undelete as content
from api.content.trash import Deletion
from api.content.undelete import Target
from cas import Reads, Store
from tools.settings import Settings, SettingsCommand, with_settings
from tools.units import human_duration

_AT_ONCE = 1000
_NAMED = 10


@click.command(cls=SettingsCommand)
@with_settings()
@click.argument("what", metavar="[REPO[:TAG]|REPO@DIGEST]", required=False)
@click.option("--list", "listing", is_flag=True, help="List what can be brought back, below WHAT if that is given.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def undelete(settings: Settings, what: str | None, *, listing: bool, as_json: bool) -> None:
    """Bring back a deleted tag, manifest or repository.

    The last deletion of just that is undone, as long as undelete_s has not passed and no cas gc --grace 0 was
    run since; for a tag, that may be the deletion of its manifest, which comes back with it. What stands in its
    place by now is never touched: then this says what to do, and changes nothing.

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
            _list(_deletions(store, target), settings.keeping.undelete_s, target, as_json=as_json)
            return
        assert target is not None, "refused above"
        restored = content.undelete(store, target)
    left = [f"{name.kind} {name.path}" for name in restored.left]
    along = [name.path for name in restored.back if name.path != target.what]
    if as_json:
        click.echo(json.dumps({"what": target.what, "deleted": restored.deletion.at, "with": along, "left": left}))
        return
    click.echo(f"{target.what} is back" + (f", and with it {_named(along)}" if along else ""))
    for each in left:
        click.echo(f"left out: {each}: something stands there by now, or its blob is gone")


def _target(what: str) -> Target:
    target = Target.of(what)
    grants.parse_repository(str(target.repository))
    return target


def _deletions(store: Store, target: Target | None) -> Iterator[tuple[Deletion, list[str]]]:
    """Yield every deletion, or those of a target and of what is in it, with the tags that each took along."""
    prefix, after = "" if target is None else str(target.repository), ""
    while found := store.read(lambda reads, after=after: _page(reads, prefix, after)):  # type: ignore[misc]
        yield from ((each, along) for each, along in found if target is None or _is_within(each.what, along, target))
        after = found[-1][0].name.path


def _page(reads: Reads, prefix: str, after: str) -> list[tuple[Deletion, list[str]]]:
    found = trash.deletions(reads, prefix, after=after, limit=_AT_ONCE)
    return [(each, trash.tags_with(reads, each)) for each in found]


def _is_within(what: str, along: Sequence[str], target: Target) -> bool:
    if target.is_whole:
        return what == target.what or what.removeprefix(target.what)[0] in ":@"
    return target.what in (what, *along)


def _list(
    deletions: Iterator[tuple[Deletion, list[str]]], window_s: float, target: Target | None, *, as_json: bool
) -> None:
    rows = sorted(deletions, key=lambda row: (row[0].at, row[0].what))
    if as_json:
        told = [
            {"what": each.what, "deleted": each.at, "until": int(each.at + window_s), "tags": along}
            for each, along in rows
        ]
        click.echo(json.dumps(told, indent=2))
        return
    if not rows:
        where = "" if target is None else f" in {target.what}"
        click.echo(f"nothing that was deleted can be brought back{where}")
    for each, along in rows:
        left = each.at + window_s - time.time()
        until = f"{human_duration(left)} left" if left > 0 else "until the next collection"
        took = f"  with {_named(along)}" if along else ""
        click.echo(f"{datetime.fromtimestamp(each.at, UTC):%Y-%m-%d %H:%M}  {until:<25}  {each.what}{took}")


def _named(names: Sequence[str]) -> str:
    """Name what went or came along, in a line to be read: an image may have thousands of tags; --json has all."""
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
