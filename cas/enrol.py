"""A pack's row through its life: told by the pool of packs, written by the committer.

Layer: L6.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cas.tables import PackRow, PackState

if TYPE_CHECKING:
    from cas.commit import Committer, Draft
    from cas.index import Edit, Index
    from cas.records import Role


@dataclass(frozen=True, slots=True)
class PackRows:
    """The rows of the packs that one process makes."""

    index: Index
    committer: Committer
    owner: bytes

    def register(self, pack: int, role: Role) -> None:
        """A pack is about to be made: openers find every pack in the index, whatever becomes of its maker."""
        row = PackRow(pack, PackState.OPEN, role, self.owner, 0)
        self.committer.run(lambda edit, _: edit.put_pack(row))

    def sealed(self, pack: int, size: int) -> None:
        """A pack has its footer, and ends with it."""

        def seal(edit: Edit, _draft: Draft) -> None:
            row = edit.pack(pack)
            if row is not None and row.state is PackState.OPEN:
                edit.put_pack(replace(row, state=PackState.SEALED, committed=size))

        self.committer.run(seal)

    def forget(self, pack: int) -> None:
        """A pack could not be made."""
        self.committer.run(lambda edit, _: edit.delete_pack(pack))

    def is_open(self, pack: int) -> bool:
        """Whether nobody closed it meanwhile."""
        row = self.index.read(lambda view: view.pack(pack))
        return row is not None and row.state is PackState.OPEN
