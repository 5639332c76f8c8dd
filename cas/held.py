"""Blobs that lie in few raw extents: found in one look, read from open files without the index, and had again at once.

Layer: L5. Who holds all files of a blob needs no pin and holds nobody up: written bytes of a pack never change, and an
unlinked file can be read to its end (I4).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cas.errors import Damaged, DiskFailed
from cas.extent import Codec, FileRange, overlap
from cas.finding import REPAIR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cas.digest import Digest
    from cas.extent import Extent
    from cas.packfiles import PackFiles
    from cas.records import BlobEntry
    from cas.view import View

MOST_EXTENTS = 16  # of a blob whose places are kept: a new layer has one for 32 MiB


@dataclass(frozen=True, slots=True)
class Places:
    """Where the bytes of a blob lie, in order: what one look at the index found."""

    digest: Digest
    size: int
    extents: tuple[Extent, ...]


class Held:
    """A blob all of whose files are open, until `close`. Nothing here waits, but for the bytes themselves."""

    __slots__ = ("_files", "_held", "_places")

    def __init__(self, files: PackFiles, places: Places, held: dict[int, int]) -> None:
        """Not for callers: use `Store.hold`."""
        self._files, self._places, self._held = files, places, held

    @property
    def digest(self) -> Digest:
        """The blob's digest."""
        return self._places.digest

    @property
    def size(self) -> int:
        """The blob's length in bytes."""
        return self._places.size

    def pieces(self, start: int = 0, stop: int | None = None) -> Iterator[FileRange]:
        """Yield where the blob's bytes `[start, stop)` lie, in order."""
        for extent, first, last in overlap(self._places.extents, max(start, 0), self.size if stop is None else stop):
            yield FileRange(self._held[extent.pack], extent.offset + first, last - first)

    plan = pieces  # as a reader's

    def ends_early(self, fd: int, missing: int) -> Damaged:
        """Return the error for whoever finds so many bytes of a `FileRange` missing in its file; as a reader's."""
        self._files.doubt([pack for pack, held in self._held.items() if held == fd])
        return Damaged(f"blob {self.digest} is damaged: a pack ends {missing} bytes early; {REPAIR}")

    def again(self) -> Held | None:
        """Return the same blob held once more, also after `close`; None if a file of it is not open any more."""
        return _hold(self._files, self._places, self._files.borrow)

    def close(self) -> None:
        """Let go of the files."""
        held, self._held = self._held, {}
        for pack in held:
            self._files.release(pack)

    __del__ = close


def find_places(view: View, blob: BlobEntry) -> Places | None:
    """Return where a blob lies, if that is few raw extents; None of any other, which only a reader can read."""
    extents: list[Extent] = []
    at = 0
    while at < blob.size:
        stretch = view.stretch(blob.recipe, at)
        if stretch is None or stretch.start != at:
            return None
        extents += stretch.extents
        at += stretch.raw
        if len(extents) > MOST_EXTENTS or sum(extent.raw for extent in extents) != at:
            return None
    few_raw = extents and all(extent.codec is Codec.RAW for extent in extents)
    return Places(blob.digest, blob.size, tuple(extents)) if few_raw else None


def hold(files: PackFiles, places: Places) -> Held | None:
    """Open all files of a blob; None if one of them is gone, or cannot be opened: a reader will tell why."""

    def acquire(pack: int) -> int | None:
        try:
            return files.acquire(pack)
        except (FileNotFoundError, DiskFailed):
            return None

    return _hold(files, places, acquire)


def _hold(files: PackFiles, places: Places, take: Callable[[int], int | None]) -> Held | None:
    held = Held(files, places, found := {})
    for extent in places.extents:
        if extent.pack not in found:
            fd = take(extent.pack)
            if fd is None:
                held.close()
                return None
            found[extent.pack] = fd
    return held
