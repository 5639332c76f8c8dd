"""The index held against itself: whether its tables are whole, its sums right, and what hangs together does.

Layer: L8. Changes nothing, and needs no lock: what is compared with each other is read in one transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cas.errors import Damaged
from cas.extent import coalesce
from cas.finding import REBUILD, Finding
from cas.rows import PIECES
from cas.session import UploadState
from cas.tables import DOUBTED, TABLES, PackState, is_usable, read_place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cas.parts import Parts
    from cas.tables import Stretch
    from cas.view import View

_SLICE: Final = 1000
_SEGMENTS: Final = 64
_AGAIN: Final = "run cas fsck --repair, which ends it; whoever uploads begins anew"


def tables(parts: Parts) -> Iterator[Finding]:
    """Yield what is wrong with the tables as such: whoever walks one that is out of order may never end."""
    what = parts.index.flaw()
    if what is not None:
        yield Finding("structure", what, "index", REBUILD)
        return
    for table in TABLES:
        try:
            what = parts.index.read(lambda view, table=table: view.disorder(table))  # type: ignore[misc]
        except Damaged as error:
            what = str(error)
        if what is not None:
            yield Finding("structure", what, f"index table {table}", REBUILD)


def rows(parts: Parts) -> Iterator[Finding]:
    """Yield the tables of which a row is not what was written."""
    for table in (name for name, several in TABLES.items() if not several):
        after: bytes | None = b""
        try:
            while after is not None:
                after = parts.index.read(lambda view, after=after, table=table: view.prove_after(table, after, _SLICE))  # type: ignore[misc]
        except Damaged:
            yield Finding("rows", "a row is not what was written", f"index table {table}", REBUILD)


def pieces(parts: Parts) -> Iterator[Finding]:
    """Yield what is left of long rows that are gone: it takes space, and might pass for a part of what comes there."""
    strays = parts.index.read(lambda view: view.strays())
    if strays:
        yield Finding("rows", f"{strays} pieces belong to no row", f"index table {PIECES}", REBUILD)


def uploads(parts: Parts) -> Iterator[Finding]:
    """Yield the resumable uploads of which less is there than their clients were told."""
    numbers = parts.index.read(lambda view: [number for number, _ in view.sessions()])
    for number in numbers:
        what = parts.index.read(lambda view, number=number: cut_off(view, number))  # type: ignore[misc]
        if what is not None:
            yield Finding("uploads", what, f"upload {number:016x}", _AGAIN)


def cut_off(view: View, number: int) -> str | None:
    """Return why a resumable upload cannot go on to a whole blob, as far as the index knows; None if it can."""
    session = view.session(number)
    if session is None or session.state is not UploadState.OPEN:
        return None
    if session.inline:
        there = len(session.inline)
        return None if there == session.end else f"{there} bytes of it are here, and {session.end} were told"
    return gap(view, session.recipe, session.end)


def gap(view: View, recipe: int, size: int) -> str | None:
    """Return why a recipe does not lead through `size` bytes, as far as the index knows; None if it does."""
    at = 0
    for start, chunks, raw in view.chunk_lists(recipe):
        if start != at:
            return f"its recipe has a hole at byte {at}"
        if not all(map(is_usable, view.chunk_rows(chunks))):
            return f"a chunk is missing or damaged after byte {at}"
        at += raw
    return None if at == size else f"its recipe has {at} bytes of {size}"


def sums(parts: Parts) -> Iterator[Finding]:
    """Yield the sum that is not one."""
    kept, true = parts.index.read(lambda view: (view.number("logical_bytes"), view.logical_bytes()))
    if kept != true:
        yield Finding("sums", f"names stand for {true} bytes, and {kept} are told", "index counter", REBUILD)


def hints(parts: Parts) -> Iterator[Finding]:
    """Yield the segments whose readers are sent elsewhere than to their chunks."""
    after = b""
    while found := parts.index.read(lambda view, after=after: _hints_slice(view, after)):  # type: ignore[misc]
        after, untrue = found
        for recipe, start in untrue:
            what = "its bytes are said to lie elsewhere than its chunks do"
            yield Finding("hints", what, f"recipe {recipe:016x}, byte {start}", REBUILD)


def _hints_slice(view: View, after: bytes) -> tuple[bytes, list[tuple[int, int]]] | None:
    found = view.stretches(after, _SEGMENTS)
    if not found:
        return None
    # A hint at a pack that is gone or going is no lie: a reader that finds no file there asks the chunks. Nor is one at
    # a doubted pack: a repair that was ended may have moved what is good of it.
    firm = {row.pack for row in view.packs() if row.state is not PackState.DYING}
    firm -= {pack for pack, when in view.checked().items() if when == DOUBTED}
    untrue = [(recipe, stretch.start) for _, recipe, stretch in found if _is_untrue(view, stretch, firm)]
    return found[-1][0], untrue


def _is_untrue(view: View, stretch: Stretch, firm: set[int]) -> bool:
    if not stretch.extents or any(extent.pack not in firm for extent in stretch.extents):
        return False
    rows = view.chunk_rows(ref.key + ref.salt.to_bytes(4, "big") for ref in stretch.refs)
    if not all(map(is_usable, rows)):
        return False  # `recipes` tells of that
    return coalesce(read_place(row) for row in rows if row is not None) != list(stretch.extents)
