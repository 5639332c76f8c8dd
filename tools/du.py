"""`cas du`: whose bytes are whose, and what deleting them frees.

Layer: tools. Reads beside a live server; changes nothing.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import click

from api.access import grants
from api.content import usage
from api.content.usage import Report
from cas import Store
from tools.settings import Settings, SettingsCommand, with_settings
from tools.units import human_size


@click.command(cls=SettingsCommand)
@with_settings()
@click.argument("what", metavar="[REPO[:TAG]]", required=False)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table; sizes in bytes.")
def du(settings: Settings, what: str | None, *, as_json: bool) -> None:
    """Show what repositories or tags take on disk.

    Works beside a live server. unique is what nobody else uses: deleting it, then cas gc --grace 0 --untagged,
    frees just that. shared is what others use as well. All lines below the table sum up to the disk.

    \b
    Examples:
      cas du --root /srv/cas
      cas du acme/app
      cas du acme/app:1.0 --json
    """
    with Store.open(settings.root, settings.engine, reading=True) as store:
        found = _measure(store, what)
    click.echo(json.dumps(as_dict(found), indent=2) if as_json else _table(found, what))


def _measure(store: Store, what: str | None) -> Report:
    if what is None:
        return usage.of_store(store)
    name, _, tag = what.partition(":")
    return usage.of_repository(store, grants.parse_repository(name), tag or None)


_PARTS = {
    "unique": "used by one line above alone",
    "among": "shared between lines above",
    "beyond": "shared with others",
    "others": "used only by others",
    "uploads": "uploads under way",
    "kept": "deleted, can be brought back",
    "garbage": "used by nobody",
    "records": "records of packs",
    "journal": "names, manifests, small blobs: the journal",
    "index": "index",
    "rest": "other files",
}


def as_dict(found: Report) -> dict[str, Any]:
    """Every number under its own name; scripts rely on these."""
    whole = dataclasses.asdict(found.whole) | {"unique": sum(found.whole.unique)}
    return {
        "items": [dataclasses.asdict(line) for line in found.lines],
        "frees": found.whole.inside,
        "disk": {part: whole[part] for part in _PARTS},
        "disk_bytes": found.whole.disk,
    }


def _table(found: Report, what: str | None) -> str:
    width = max([len(line.name) for line in found.lines] + [len(text) for text in _PARTS.values()])
    rows = [f"{what or 'repository':<{width}}  {'logical':>10}  {'unique':>10}  {'shared':>10}"]
    rows += [
        f"{line.name:<{width}}  " + "  ".join(f"{human_size(size):>10}" for size in _sizes(line))
        for line in found.lines
    ]
    rows += ["", f"{'deleting all of these frees':<{width}}  {human_size(found.whole.inside):>10}", ""]
    said = as_dict(found)
    rows += [f"{text:<{width}}  {human_size(said['disk'][part]):>10}" for part, text in _PARTS.items()]
    rows.append(f"{'on disk':<{width}}  {human_size(found.whole.disk):>10}")
    return "\n".join(rows)


def _sizes(line: usage.Line) -> tuple[int, int, int]:
    return line.logical, line.unique, line.shared
