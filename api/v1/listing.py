"""What a layer's archive holds, as the rows of `GET …/files`.

Pure: unpacked bytes in, JSON out, so that a listing takes no more memory than its text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final

from api.v1.archive import Entry, entries
from api.v1.unpack import TooMuch, Unpacked, unpack

_TYPES: Final = {b"0": "f", b"\0": "f", b"1": "l", b"2": "s", b"3": "c", b"4": "b", b"5": "d", b"6": "i"} | {
    b"7": "t",
    b"S": "S",
}
_WHITEOUT: Final = "/.wh."


def listing(layer: Iterable[bytes], *, limit_bytes: int, limit_listing_bytes: int) -> bytes:
    """List a layer as stored.

    Raises:
        Unreadable: it is no archive.
        TooMuch: it is past a limit.
    """
    rows: list[bytes] = []
    size = 0
    for entry, _ in entries(Unpacked(unpack(layer), limit_bytes)):
        row = _row(entry)
        if row is None:
            continue
        text = json.dumps(row).encode()
        size += len(text) + 2
        if size > limit_listing_bytes:
            raise TooMuch(f"the listing is longer than {limit_listing_bytes} bytes")
        rows.append(text)
    return b"[" + b", ".join(rows) + b"]"


def _row(entry: Entry) -> list[object] | None:
    """Make one row; None for the bookkeeping of the layered file system itself."""
    name = entry.name.decode(errors="replace")
    name = name.rstrip("/") or "/"
    if name == ".":
        name = "/"
    elif name.startswith("./"):
        name = name[1:]
    deleted = name.startswith(_WHITEOUT)
    if deleted:
        name = "/" + name.removeprefix(_WHITEOUT)
    if name.startswith(_WHITEOUT):
        return None
    kind = _TYPES.get(entry.type, "u")
    return [name, kind, deleted, entry.size, entry.mtime, entry.mode, entry.uid, entry.gid]
