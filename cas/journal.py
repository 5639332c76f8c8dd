"""Which changes of names counted: the journal followed from its highest number down, by the links of its records.

Layer: L2, pure. Each record names the committed one before it; what lies between the two never happened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

    from cas.records import BlobEntry, NameChanges

    Link = tuple[NameChanges, list[BlobEntry]]


class Place(NamedTuple):
    """Where a change is told, and the number of the one before it: there are too many changes to keep what they say."""

    previous: int
    path: Path
    offset: int


def fullness(link: Link) -> int:
    """Compaction may have taken from a record what no longer counts once the older copy is gone; until then it does."""
    names, blobs = link
    return len(names.edits) + len(blobs)


def committed(journal: dict[int, Place], damaged: list[str]) -> list[Place]:
    """Return the changes that were committed, oldest first; say what of them is not here."""
    chain, at = [], max(journal, default=0)
    while at:
        if at not in journal:
            below = max((seq for seq in journal if seq < at), default=0)
            damaged.append(f"journal records {below + 1} to {at} are missing; changes of names in them are lost")
            at = below
            continue
        chain.append(at)
        at = journal[at].previous
    damaged += _denied(journal, set(chain))
    return [journal[number] for number in reversed(chain)]


def _denied(journal: dict[int, Place], chain: set[int]) -> list[str]:
    """Find changes that were committed, since others name them as such, and that later ones know nothing of."""
    denied = sorted({place.previous for seq, place in journal.items() if seq not in chain} & journal.keys() - chain)
    if not denied:
        return []
    text = (
        f"journal records {denied[0]} to {denied[-1]} were committed, but later ones step over them: "
        "the store was used with an older index; what they name is not brought back"
    )
    return [text]
