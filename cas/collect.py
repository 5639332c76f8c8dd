"""Collection: blobs that no name holds, recipes that no blob has, chunks that no recipe names.

Layer: L8. Online (I8): others push, pull and delete meanwhile, in any process. A thing is hidden first, so that nobody
comes to rely on it any more; once all who may have relied on it are gone (see `pins`), it is taken. Every step is a
short transaction, and what a collection that was killed leaves behind is work for the next one. The bytes in the packs
are the compaction's business.

The marks are ids of chunks that recipes name, walked in as many passes as keep them in bounded memory. What is filed
while they are made is in `touched`, and every transaction that condemns looks there first. A condemned chunk is a miss
to pushes; one that had found it before makes it good again when it files.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from cas.doomed import Doomed
from cas.index import Edit
from cas.pins import advance
from cas.session import UploadState
from cas.tables import MARKING, ChunkState

if TYPE_CHECKING:
    from cas.digest import Digest
    from cas.parts import Parts
    from cas.records import BlobEntry
    from cas.tables import ChunkRow
    from cas.view import View

T = TypeVar("T")
MOST_MARKS: Final = 1_000_000  # ids of chunks in memory at once, 100 bytes each
_ROWS: Final = 4_000  # of chunks, in one transaction: a writer is not to wait 50 ms for it
_BLOBS: Final = 500  # some have their bytes in their row
_RECIPES: Final = 32
_SEGMENTS: Final = 64
_PREFIXES: Final = 1 << 32  # of keys of chunks, which are spread evenly
_USABLE: Final = (ChunkState.GOOD, ChunkState.BAD)


@dataclass(slots=True)
class CollectReport:
    """What a collection took away; in a dry run, what one would.

    Attributes:
        blobs: that no name held.
        recipes: that belonged to no blob and no upload.
        chunks: that no recipe named.
        bytes: what these chunks take in packs, which a compaction gives back.
        unfinished: why the rest was left to the next run; empty if nothing was.
        doomed: of a dry run, for that of a compaction.
    """

    blobs: int = 0
    recipes: int = 0
    chunks: int = 0
    bytes: int = 0
    unfinished: str = ""
    doomed: Doomed | None = field(default=None, compare=False, repr=False)

    def add(self, row: ChunkRow) -> None:
        """Count a chunk."""
        self.chunks += 1
        self.bytes += row.extent.stored


@dataclass(slots=True)
class _Marks:
    """The chunks in use whose ids lie between two bounds."""

    low: bytes
    high: bytes
    ids: set[bytes] = field(default_factory=set)

    def add(self, chunks: Collection[bytes]) -> None:
        """Mark the chunks of a segment."""
        self.ids.update(chunk for chunk in chunks if self.low <= chunk < self.high)


class _Collection:
    def __init__(
        self, parts: Parts, *, dry_run: bool, without: Collection[bytes], wait_s: float, progress: Callable[[], object]
    ) -> None:
        self._parts, self._dry_run, self._without = parts, dry_run, without
        self._wait_s, self._progress = wait_s, progress
        self._report = CollectReport()

    def run(self) -> CollectReport:
        """Do all of it, as far as others let us."""
        self._drop_blobs(_blobs, Edit.delete_blob)
        self._drop_blobs(_lost, Edit.delete_lost)
        if not self._quiet():
            return self._report
        orphans = self._orphans()
        if self._dry_run:
            self._report.doomed = Doomed(orphans)
        self._drop_recipes(orphans)
        self._write(lambda edit: edit.set_number(MARKING, 1))
        passes = self._read(lambda view: view.count("chunks")) // MOST_MARKS + 1
        bounds = [(number * _PREFIXES // passes).to_bytes(4, "big") for number in range(passes)]
        for low, high in zip(bounds, [*bounds[1:], b"\xff" * 21], strict=True):
            marks = _Marks(low, high)
            self._mark(marks, orphans)
            self._condemn(marks)
        self._write(lambda edit: edit.set_number(MARKING, 0))
        while self._write(lambda edit: edit.absorb_touched(_SEGMENTS)):
            pass
        if not self._dry_run and self._quiet():
            self._sweep()
        return self._report

    def _read(self, work: Callable[[View], T]) -> T:
        self._progress()
        return self._parts.index.read(work)

    def _write(self, work: Callable[[Edit], T]) -> T | None:
        """Change the index; in a dry run, do nothing."""
        self._progress()
        if self._dry_run:
            return None
        result: T = self._parts.committer.run(lambda edit, _: work(edit))
        return result

    def _quiet(self) -> bool:
        """Wait until everybody is gone who may rely on what was hidden until now."""
        epoch = self._write(advance)
        if epoch is None or self._parts.pins.quiet(epoch, self._wait_s):
            return True
        self._report.unfinished = (
            f"somebody who began before this has been pulling or pushing for {self._wait_s:g} s; "
            "the next collection takes the rest"
        )
        return False

    def _drop_blobs(
        self,
        rows: Callable[[View, Digest | None], list[BlobEntry]],
        delete: Callable[[Edit, Digest], None],
    ) -> None:
        after: Digest | None = None
        while found := self._read(lambda view: self._free(view, rows(view, after))):  # noqa: B023 - used at once
            after, free = found

            def drop(edit: Edit, free: list[Digest] = free) -> int:
                gone = [digest for digest in free if not edit.is_held(digest)]
                for digest in gone:
                    delete(edit, digest)
                return len(gone)

            dropped = self._write(drop) if free else 0
            self._report.blobs += len(free) if dropped is None else dropped

    def _free(self, view: View, blobs: list[BlobEntry]) -> tuple[Digest, list[Digest]] | None:
        """Return the last of these blobs, and those of them that no name holds."""
        free = [blob.digest for blob in blobs if not view.is_held(blob.digest, self._without)]
        return (blobs[-1].digest, free) if blobs else None

    def _orphans(self) -> set[int]:
        """Return the recipes that nobody will ever refer to again.

        The order makes that true: a recipe that was there is an upload's first and a blob's later, never the other way,
        and a blob that was lost comes back.
        """
        orphans: set[int] = set()
        last = 0
        while some := self._read(lambda view: view.recipes_after(last, _ROWS)):  # noqa: B023 - used at once
            orphans.update(some)
            last = max(some)
        orphans.difference_update(self._read(_under_way))
        for rows in (_lost, _blobs):
            orphans.difference_update(self._recipes_of(rows))
        return orphans

    def _recipes_of(self, rows: Callable[[View, Digest | None], list[BlobEntry]]) -> Iterator[int]:
        after: Digest | None = None
        while blobs := self._read(lambda view: self._kept(view, rows(view, after))):  # noqa: B023 - used at once
            after, recipes = blobs
            yield from recipes

    def _kept(self, view: View, blobs: list[BlobEntry]) -> tuple[Digest, list[int]] | None:
        """Return the last of these blobs, and the recipes of those that stay."""
        kept = [blob.recipe for blob in blobs if not self._dry_run or view.is_held(blob.digest, self._without)]
        return (blobs[-1].digest, kept) if blobs else None

    def _drop_recipes(self, orphans: set[int]) -> None:
        self._report.recipes = len(orphans)
        recipes = sorted(orphans)
        for start in range(0, len(recipes), _RECIPES):
            some = recipes[start : start + _RECIPES]
            self._write(partial(_delete_recipes, recipes=some))

    def _mark(self, marks: _Marks, orphans: set[int]) -> None:
        """Mark what recipes name, except those that a dry run has left there."""
        after = b""
        while found := self._read(lambda view: view.named_chunks(after, _SEGMENTS)):  # noqa: B023 - used at once
            after = found[-1][0]
            for _, recipe, chunks in found:
                if recipe not in orphans:
                    marks.add(chunks)
        while self._write(lambda edit: _absorb(edit, marks, _SEGMENTS)):
            pass

    def _condemn(self, marks: _Marks) -> None:
        for rows in self._chunks(marks.low):
            dead = [(chunk, row) for chunk, row in rows if marks.low <= chunk < marks.high and chunk not in marks.ids]
            if self._report.doomed is not None:
                self._report.doomed.add(chunk for chunk, _ in dead)
                for _, row in dead:
                    self._report.add(row)
            elif any(row.state is not ChunkState.DYING for _, row in dead):
                self._write(partial(_condemn, marks=marks, chunks=[chunk for chunk, _ in dead]))
            if rows[-1][0] >= marks.high:
                return

    def _sweep(self) -> None:
        for rows in self._chunks(b""):
            dying = [chunk for chunk, row in rows if row.state is ChunkState.DYING]
            if dying:
                for row in self._write(partial(_delete, chunks=dying)) or ():
                    self._report.add(row)

    def _chunks(self, after: bytes) -> Iterator[list[tuple[bytes, ChunkRow]]]:
        while rows := self._read(lambda view: view.stored_chunks(after, _ROWS)):  # noqa: B023 - used at once
            yield rows
            after = rows[-1][0]


def collect(
    parts: Parts, *, dry_run: bool, without: Collection[bytes], wait_s: float, progress: Callable[[], object]
) -> CollectReport:
    """Take away what nothing needs; see `Store.collect`. The caller holds the maintenance lock."""
    return _Collection(parts, dry_run=dry_run, without=without, wait_s=wait_s, progress=progress).run()


def _lost(view: View, after: Digest | None) -> list[BlobEntry]:
    return view.lost_after(after, _BLOBS)


def _blobs(view: View, after: Digest | None) -> list[BlobEntry]:
    return view.blobs_after(after, _BLOBS)


def _under_way(view: View) -> set[int]:
    """Return the recipes of uploads that may still become blobs."""
    resumable = {row.recipe for _, row in view.sessions() if row.state is UploadState.OPEN}
    return resumable | {recipe for recipe, _ in view.uploads()}


def _absorb(edit: Edit, marks: _Marks, limit: int | None) -> bool:
    """Mark what was filed since; say whether there may be more."""
    touched = edit.absorb_touched(limit)
    for chunks in touched:
        marks.add(chunks)
    return len(touched) == limit


def _condemn(edit: Edit, marks: _Marks, chunks: list[bytes]) -> None:
    _absorb(edit, marks, None)
    for chunk in chunks:
        if chunk not in marks.ids:
            edit.set_state(chunk, _USABLE, ChunkState.DYING)


def _delete(edit: Edit, chunks: list[bytes]) -> list[ChunkRow]:
    """Forget those of these chunks that are dying still; return the rows they had."""
    rows = [edit.delete_dying(chunk) for chunk in chunks]
    return [row for row in rows if row is not None]


def _delete_recipes(edit: Edit, recipes: list[int]) -> None:
    for recipe in recipes:
        edit.delete_recipe(recipe)
