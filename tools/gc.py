"""`cas gc`: what nothing needs any more goes, and its space comes back.

Layer: tools. Works beside a live server. What counts is decided below: names by `api`, bytes by the engine.
"""

from __future__ import annotations

import dataclasses
import json
import time
from datetime import UTC, datetime
from typing import Any

import click

from api import maintenance
from api.content.trash import Undoable
from api.maintenance import Collection
from cas import Store, Unfinished
from tools import exits
from tools.priority import give_way
from tools.settings import Settings, SettingsCommand, with_settings
from tools.units import counted, human_size, parse_duration

_WORTH_TELLING = 1 << 20  # of bytes not free yet: others write meanwhile, and the index grows
_BYTES = ("blobs", "recipes", "chunks", "bytes", "unfinished")


class Duration(click.ParamType[float]):
    """A time, plainly in seconds or with a unit."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return value if isinstance(value, float) else parse_duration(str(value))
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)


@click.command(cls=SettingsCommand)
@with_settings()
@click.option("--dry-run", is_flag=True, help="Change nothing; say what would go, why, and how much that is.")
@click.option("--grace", type=Duration(), metavar="TIME", help="In place of gc_grace_s; 0 also ends all undeleting.")
@click.option("--uploads", type=Duration(), metavar="TIME", help="End uploads that nobody went on with for so long.")
@click.option("--untagged", is_flag=True, help="Remove manifests without a tag, too, unless others need them.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text; sizes in bytes.")
def gc(
    settings: Settings,
    *,
    dry_run: bool,
    grace: float | None,
    uploads: float | None,
    untagged: bool,
    as_json: bool,
) -> None:
    """Remove what nothing needs any more, and give its space back.

    Works beside a live server, one at a time. It can be stopped at any moment; the next one goes on. Removed are
    deletions older than undelete_s, blobs that no manifest of their repository names and v1 images that were never
    finished or stand in no repository, both once older than gc_grace_s, and then all bytes that no name holds.

    --grace takes 90s, 30m, 12h, 7d. With --grace 0 everything deleted is gone for good, pushes under way may have to
    begin anew, and every pack that has anything dead is compacted. Uploads that were cut off can be resumed for
    upload_life_s; --uploads 1h ends those that nobody went on with for an hour.
    Exits 1 when something was left for the next run.

    \b
    Examples:
      cas gc --dry-run
      cas gc --untagged --grace 12h
      cas gc --grace 0 --json
      cas gc --grace 0 --uploads 1h
    """
    with Store.open(settings.root, settings.engine) as store:
        give_way()
        terms = maintenance.terms(settings.keeping, time.time, grace_s=grace, untagged=untagged)
        before = 0.0 if uploads is None else time.time() - uploads if uploads else float("inf")
        done = maintenance.run(store, terms, uploads_before=before, dry_run=dry_run)
        if not dry_run:
            maintenance.note_run(store, time.time())
        kept = maintenance.untagged(store, terms)
    if as_json:
        click.echo(json.dumps(as_dict(done, dry_run=dry_run) | {"untagged": kept}, indent=2))
    else:
        click.echo("\n".join([*_told(done, settings, dry_run=dry_run), *_untagged(kept), *_left(done)]))
    if done.left:
        raise click.exceptions.Exit(exits.FINDINGS)


def as_dict(done: Collection, *, dry_run: bool) -> dict[str, Any]:
    """Every number under its own name; scripts rely on these."""
    return {
        "dry_run": dry_run,
        "names": dict(done.names.removed),
        "bytes": {each: getattr(done.bytes, each) for each in _BYTES},
        "packs": dataclasses.asdict(done.packs),
        "uploads": {"ended": done.ended, "unfinished": dataclasses.asdict(done.unfinished)},
        "deletions": dataclasses.asdict(done.undoable),
        "given_back": done.given_back,
        "left": done.left,
    }


def _told(done: Collection, settings: Settings, *, dry_run: bool) -> list[str]:
    found = done.names.removed or done.ended or done.bytes.blobs or done.bytes.chunks
    if not found and done.given_back <= 0:
        end = "nothing to remove"
    elif dry_run:
        end = f"nothing was removed: this was a dry run; to be given back to the disk: {human_size(done.given_back)}"
    elif done.given_back >= 0:
        end = f"removed; given back to the disk: {human_size(done.given_back)}"
    else:
        end = f"removed; the packs grew by {human_size(-done.given_back)}: what goes is written down, and others push"
    lines = [f"{count:>9,}  {why}" for why, count in sorted(done.names.removed.items())]
    if done.ended:
        lines.append(f"{done.ended:>9,}  uploads that nobody went on with")
    if found:
        lines += [
            f"{done.bytes.blobs:>9,}  blobs that nothing holds",
            f"{done.bytes.chunks:>9,}  chunks of them that nothing else has: {human_size(done.bytes.bytes)}",
        ]
    lines.append(end)
    if done.packs.aside_bytes:
        where = "to be moved" if dry_run else "moved"
        lines.append(f"{where} to quarantine/, which gives nothing back: {human_size(done.packs.aside_bytes)}")
    if done.unfinished.count:
        lines.append(_kept(done.unfinished, settings.engine.upload_life_s))
    if done.undoable.undoable:
        lines.append(_undoable(done.undoable, settings.keeping.undelete_s))
    if not dry_run and done.packs.owed_bytes >= _WORTH_TELLING:
        lines.append(
            f"not free yet: up to {human_size(done.packs.owed_bytes)} of it; servers let go of it within seconds, and "
            "whoever pulls it just now when that is done"
        )
    return lines


def _untagged(count: int) -> list[str]:
    kept = counted(count, "manifest")
    return [f"kept: {kept} without a tag, to be pulled by their digest; --untagged removes them"] if count else []


def _left(done: Collection) -> list[str]:
    return [f"left for the next run: {each}" for each in done.left]


def _kept(held: Unfinished, life_s: float) -> str:
    uploads, until = counted(held.count, "unfinished upload"), _moment(held.touched + life_s)
    return (
        f"kept: {uploads} of {human_size(held.bytes)}, until {until} at the latest unless they go on; "
        "--uploads TIME ends those idle for longer"
    )


def _undoable(held: Undoable, window_s: float) -> str:
    deletions = counted(held.undoable, "deletion")
    return (
        f"kept: what {deletions} took, which can be undone until {_moment(held.latest + window_s)} at the latest; "
        "cas du says how much that is, and --grace 0 ends it"
    )


def _moment(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"
