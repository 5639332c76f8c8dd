"""`cas stats`: what was pushed, and what that takes on disk.

Layer: tools. Reads beside a live server; changes nothing.
"""

from __future__ import annotations

import dataclasses
import json
import time
from typing import Any

import click

from cas import Stats, Store
from tools.settings import Settings, SettingsCommand, with_settings
from tools.units import human_duration, human_size


@click.command(cls=SettingsCommand)
@with_settings()
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table; sizes in bytes.")
def stats(settings: Settings, *, as_json: bool) -> None:
    """Show what was pushed, and what that takes on disk.

    Works beside a live server. logical_bytes is what clients pushed; stored_bytes is what it takes on disk,
    packs and index together; dedup_ratio is the one divided by the other.

    \b
    Examples:
      cas stats --root /srv/cas
      cas stats --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["dedup_ratio"])'
    """
    with Store.open(settings.root, settings.engine, reading=True) as store:
        found = store.stats()
    click.echo(json.dumps(as_dict(found), indent=2) if as_json else _table(found))


def as_dict(found: Stats) -> dict[str, Any]:
    """Every number under its own name; scripts rely on these."""
    derived = {"stored_bytes": found.stored_bytes, "dedup_ratio": round(found.dedup_ratio, 4)}
    return dataclasses.asdict(found) | derived


def _age(found: Stats) -> str:
    """Tell how long it is that some stored bytes were not looked at; the clock may have been set back."""
    return human_duration(max(time.time() - found.checked, 0)) if found.checked else ""


def _table(found: Stats) -> str:
    rows = [
        ("pushed", human_size(found.logical_bytes), "what clients sent"),
        ("stored", human_size(found.stored_bytes), "packs and index on disk"),
        ("dedup ratio", f"{found.dedup_ratio:.2f}", "pushed / stored"),
        ("packs", f"{found.packs:,}", human_size(found.pack_bytes)),
        ("index", "", human_size(found.index_bytes)),
        ("blobs", f"{found.blobs:,}", ""),
        ("chunks", f"{found.chunks:,}", ""),
        ("names", f"{found.names:,}", "repositories, tags, images"),
        ("unchecked", _age(found), "at most, since a pack was written or read through"),
        ("doubted", f"{found.doubted:,}", "packs seen damaged, or missing, until looked into and mended"),
        ("lost", f"{found.lost:,}", "blobs found damaged, until they are pushed again"),
    ]
    return "\n".join(f"{label:<12}{value:>12}  {remark}".rstrip() for label, value, remark in rows)
