"""What a check may find: the names of all checks, and a finding as a value.

Layer: L2, pure. Knows which promise each check guards and what mends what; looks at nothing itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from cas.digest import Digest
    from cas.names import Name

CHECKS: Final = {  # name → the invariant it guards
    "manifest": "I9",  # store.json is there, what was written, and says what packs and index say
    "rows": "I9",  # every row of the index is what was written
    "structure": "I9",  # the tables are whole: in order, and as long as they say
    "names": "I1",  # what a name holds is there, and known to be held
    "uploads": "I1",  # what is safe of an upload that goes on is there
    "sums": "I9",  # sums kept are those of the rows
    "recipes": "I3",  # a blob's segments follow each other and name chunks that are there
    "hints": "I3",  # what a recipe says of where its bytes lie is what its chunks say
    "lost": "I9",  # blobs known to be damaged, until they are pushed again
    "packs": "I4",  # packs and rows belong together, and records say what the index says
    "journal": "I4",  # every change of names that counts is recorded, each record naming the one before it
    "chunks": "I3",  # stored bytes have their checksum
    "keys": "I3",  # chunks have the key of their bytes
    "blobs": "I3",  # blobs have the digest of their bytes
    "unreadable": "I9",  # the disk gave what was asked of it
}
REBUILD: Final = "stop the server and run cas fsck --rebuild-index --force"
PUSH: Final = "push the same content again"
LOST: Final = "push the same content again, or bring it back from a backup: cas fsck --repair --from BACKUP"
REPAIR: Final = "run cas fsck --repair, then push the same content again"
RESTATE: Final = "run cas fsck --repair, which records all names anew"
DISK: Final = "nothing says that it is damaged: look at the system's log, see to the disk, then check again"


class Depth(IntEnum):
    """How far a check goes; each includes those before it."""

    QUICK = 0
    DATA = 1
    DEEP = 2


@dataclass(frozen=True, slots=True)
class Scope:
    """How much of a store a check reads.

    Attributes:
        depth: how far it goes.
        part, parts: of the bytes of packs, and of the blobs, the `part`-th of so many; the rest is looked at whole.
        told: called with a number of bytes after they were read; it may wait, or raise to stop.
    """

    depth: Depth
    part: int = 1
    parts: int = 1
    told: Callable[[int], object] = bool

    def has_pack(self, pack: int) -> bool:
        """Whether a pack's bytes are read."""
        return pack % self.parts == self.part - 1

    def has_blob(self, digest: Digest) -> bool:
        """Whether a blob is read to its end."""
        return int.from_bytes(digest.raw[:8], "big") % self.parts == self.part - 1


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it was promised.

    Attributes:
        check: a name in `CHECKS`.
        what: in words.
        where: a table, a pack and a byte, a blob.
        remedy: what would mend it.
        blobs: those that suffer.
        names: what holds these.
        pack: the one that is damaged, if one is.
    """

    check: str
    what: str
    where: str
    remedy: str = PUSH
    blobs: tuple[Digest, ...] = ()
    names: tuple[Name, ...] = ()
    pack: int | None = None

    @property
    def is_damage(self) -> bool:
        """Whether its blobs may not be whole; what merely could not be read is not damage."""
        return self.check in {"recipes", "packs", "chunks", "keys", "blobs"}

    @property
    def invariant(self) -> str:
        """What was promised."""
        return CHECKS[self.check]
