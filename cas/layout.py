"""Where things lie under a store's root; the only module that knows file names.

Layer: L1, pure (paths are values here; nothing is opened).

    ROOT/
      store.json          format, store id, chunking profiles
      index/              the LMDB environment
      packs/ab/<id>.pack  256 folders, by the first byte of the pack's id
      locks/<uuid>        flocked by each live process
      locks/journal       the highest journal number ever reserved; locked by whoever commits
      locks/gc            flocked by whoever collects, compacts, repairs or makes a backup
      locks/scrub         flocked by whoever reads all packs through, slowly
      locks/work          empty; its byte is shared by whoever checks, collects, mends or copies: a scrub waits
      locks/packs         empty; its bytes are locked by whoever appends to a pack, or closes it
      locks/epochs        empty; its bytes are locked by whoever relies on what a collection might take
      locks/uploads       empty; its bytes are locked by whoever writes to a resumable upload
      locks/turns         empty; its bytes are locked by uploads of the same content
      quarantine/         damaged packs, after what was good in them was moved, and unknown ones
      packs/quarantine/   the same, where packs/ is a disk of its own: no file gets from one to another in one step
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PACK = re.compile(r"([0-9a-f]{16})\.pack", re.ASCII)


@dataclass(frozen=True)
class Layout:
    """Paths under one root. Those that each push asks for are made once."""

    root: Path

    @property
    def manifest(self) -> Path:
        """What makes a folder a store."""
        return self.root / "store.json"

    @cached_property
    def index(self) -> Path:
        """Folder of the LMDB environment."""
        return self.root / "index"

    @property
    def growing(self) -> tuple[Path, Path]:
        """Folders that each push adds to; either may lie on a disk of its own."""
        return self.packs, self.index

    @property
    def index_unfinished(self) -> Path:
        """Where a rebuild works, so that one that was cut off is never taken for an index."""
        return self.root / "index.new"

    @property
    def index_data(self) -> Path:
        """The index's data file. Never open and close it while the environment is open (POSIX locks would go)."""
        return self.index / "data.mdb"

    @property
    def index_lock(self) -> Path:
        """LMDB's own file, by which all who have the index open see each other."""
        return self.index / "lock.mdb"

    def old_index(self, number: int) -> Path:
        """Where an index that is not to be trusted is moved."""
        return self.root / f"index.old-{number}"

    @cached_property
    def packs(self) -> Path:
        """Folder of all packs."""
        return self.root / "packs"

    @cached_property
    def locks(self) -> Path:
        """Folder of the processes' leases."""
        return self.root / "locks"

    @property
    def journal_cell(self) -> Path:
        """The highest journal number ever reserved: 8 bytes, written before the journal. Locked by whoever commits."""
        return self.locks / "journal"

    @cached_property
    def turns(self) -> Path:
        """An empty file: uploads of the same content lock the same byte of it, and so take turns."""
        return self.locks / "turns"

    @property
    def hands(self) -> Path:
        """An empty file: whoever writes to a resumable upload locks its byte together with others."""
        return self.locks / "uploads"

    @property
    def epochs(self) -> Path:
        """An empty file: who relies on what was looked up in an epoch shares its byte; see `pins`."""
        return self.locks / "epochs"

    @property
    def pack_locks(self) -> Path:
        """An empty file: whoever appends to a data pack, or closes it in its owner's place, locks the pack's byte."""
        return self.locks / "packs"

    @cached_property
    def shared_locks(self) -> tuple[Path, ...]:
        """Files without which a process would not see what others are about, and take it or write over it."""
        return self.journal_cell, self.epochs, self.pack_locks

    @property
    def index_copy(self) -> Path:
        """Where a copy of an index waits for the packs it names."""
        return self.root / "index.tmp"

    @property
    def diary(self) -> Path:
        """What makes a folder a backup, and says how far it is good."""
        return self.root / "backup.json"

    @property
    def copy_lock(self) -> Path:
        """Locked by whoever copies into this folder."""
        return self.root / "backup.lock"

    @property
    def maintenance(self) -> Path:
        """Locked by whoever takes something away from the store; one at a time."""
        return self.locks / "gc"

    @property
    def scrub(self) -> Path:
        """Locked by whoever reads all packs through; one at a time."""
        return self.locks / "scrub"

    @property
    def quarantine(self) -> Path:
        """Folder of what nobody is to read: what is in there is neither replaced nor deleted."""
        return self.root / "quarantine"

    @property
    def work(self) -> Path:
        """Its first byte is locked, shared, by all who keep the store in order but the scrub."""
        return self.locks / "work"

    def lease(self, owner: bytes) -> Path:
        """Lock file of a process."""
        return self.locks / owner.hex()

    def pack(self, pack: int) -> Path:
        """File of a pack."""
        name = pack_name(pack)
        return self.packs / name[:2] / name

    @property
    def quarantines(self) -> tuple[Path, Path]:
        """Where packs are set aside: the first of these that a file of `packs/` can be moved to."""
        return self.quarantine, self.packs / self.quarantine.name

    def pack_folders(self) -> list[Path]:
        """All 256 folders that packs may lie in."""
        return [self.packs / f"{number:02x}" for number in range(256)]


def names_in(folder: Path, name: str) -> Iterator[Path]:
    """Yield what something of this name may be called in a folder where nothing is replaced: the first that is free."""
    path = folder / name
    yield path
    yield from (path.with_stem(f"{path.stem}-{number}") for number in count(2))


def pack_name(pack: int) -> str:
    """Return the name of a pack's file."""
    return f"{pack:016x}.pack"


def pack_id(filename: str) -> int | None:
    """Return the id in a pack's file name, or None if it is not one."""
    match = _PACK.fullmatch(filename)
    return int(match[1], 16) if match else None
