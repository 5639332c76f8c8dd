"""What a store's index says, as a value to compare; and what nobody should have left behind."""

from __future__ import annotations

from pathlib import Path

from cas import Store
from cas.layout import Layout
from cas.lease import survey
from cas.view import View

Dump = dict[str, dict[str, object]]


def dump(store: Store) -> Dump:
    """Every name and what it holds, and every blob that is held: what a rebuild has to bring back."""

    def look(view: View) -> Dump:
        blobs = [blob for digest in view.digests() if (blob := view.blob(digest)) is not None]
        held = [blob for blob in blobs if view.holders(blob.digest, limit=1)]
        return {
            "names": {repr(key): record for key, record in view.records(b"", b"", None)},
            "blobs": {str(blob.digest): (blob.size, blob.created, blob.inline) for blob in held},
            "holders": {str(blob.digest): sorted(view.holders(blob.digest)) for blob in held},
        }

    return store._parts.index.read(look)


def differences(before: Dump, after: Dump) -> list[str]:
    """What is not as it was, a line each."""
    return [
        f"{table} {key}: {before[table].get(key)!r:.200} became {after[table].get(key)!r:.200}"
        for table in before
        for key in sorted(before[table].keys() | after[table].keys())
        if before[table].get(key) != after[table].get(key)
    ]


def leftovers(store: Store) -> list[str]:
    """What dead processes left in a store that was just opened by its only process."""
    parts = store._parts
    uploads = parts.index.read(lambda view: view.uploads())
    alive, dead = survey(parts.layout, parts.owner)
    readers = parts.index.check_readers()
    found = [f"{len(uploads)} uploads"] * bool(uploads) + [f"{len(alive | dead)} leases"] * bool(alive | dead)
    return found + [f"{readers} reader slots"] * bool(readers)


def pack_sizes(root: Path) -> dict[str, int]:
    """What each pack takes."""
    return {path.name: path.stat().st_size for folder in Layout(root).pack_folders() for path in folder.glob("*.pack")}


def pack_bytes(root: Path) -> int:
    """What all packs take."""
    return sum(pack_sizes(root).values())
