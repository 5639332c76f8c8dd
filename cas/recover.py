"""Recovery: what a store has lost is read from another one, a backup of it, and pushed anew.

Layer: L10. Whose bytes they are does not matter: they come in by the one door for bytes, and only their digest brings a
blob back (I3). Asks of the other store nothing but a reader; what that cannot give stays lost.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from cas.errors import Damaged, DiskFailed, Mismatch, Missing, NotAStore, NotOwner
from cas.heal import bring_back
from cas.layout import Layout
from cas.root import has_remains, user_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cas.digest import Digest
    from cas.parts import Parts
    from cas.reader import Reader

_WINDOW_BYTES: Final = 1 << 20  # read at a time
_SLICE: Final = 100


def check_source(folder: Path) -> None:
    """Refuse a folder that cannot be read as another store, where to open it would speak of it as of one's own.

    Raises:
        NotAStore: there is no store in it.
        NotOwner: it is another user's, and not for this one to use.
    """
    layout = Layout(folder)
    for path in (folder, layout.index, layout.index_data):
        if path.exists() and not os.access(path, os.R_OK | os.W_OK) and path.stat().st_uid != os.geteuid():
            own = user_name(os.geteuid())
            raise NotOwner(
                f"the backup in {folder} belongs to {user_name(path.stat().st_uid)}, and {own} may not use it; "
                f"let root hand it over: chown -R {own} {folder}"
            )
    if not layout.manifest.exists() and not has_remains(layout):
        what = "it has no store.json" if folder.exists() else "it does not exist"
        raise NotAStore(f"there is no backup in {folder}: {what}; name the folder that a cas backup went to")


def recover(parts: Parts, reader: Callable[[Digest], Reader]) -> list[Digest]:
    """Bring back the lost blobs that another store has whole; return which those are.

    Args:
        parts: of the store that lost them.
        reader: of a blob in the other one.

    Raises:
        NoSpace, DiskFailed, ReadOnly, Busy, Closed: of this store; nothing was lost by it, do it again.
    """
    found: list[Digest] = []
    for digest in lost_blobs(parts):
        with suppress(Missing, Mismatch, Damaged):
            if bring_back(parts, digest, _bytes(reader, digest)):
                found.append(digest)
    return found


def lost_blobs(parts: Parts) -> Iterator[Digest]:
    """Yield the lost blobs that a name still holds."""
    last: Digest | None = None
    while blobs := parts.index.read(lambda view, last=last: view.lost_after(last, _SLICE)):  # type: ignore[misc]
        last = blobs[-1].digest
        yield from parts.index.read(
            lambda view, blobs=blobs: [blob.digest for blob in blobs if view.is_held(blob.digest)]  # type: ignore[misc]
        )


def _bytes(reader: Callable[[Digest], Reader], digest: Digest) -> Iterator[bytes]:
    """Yield a blob's bytes.

    Raises:
        Missing: it is not there.
        Damaged: it is, or cannot be read: others are tried.
    """
    try:
        with reader(digest) as other:
            for at in range(0, other.size, _WINDOW_BYTES):
                yield other.read(at, at + _WINDOW_BYTES)
    except DiskFailed as error:
        raise Damaged(str(error)) from error
