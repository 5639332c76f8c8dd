"""Whose history a state is: of two stores that were one, the number of the last change alone says nothing.

Layer: L4. The history of names is divided into eras. One begins with the first change that a process makes after the
process of the era before is gone: only then may the folder be another one, restored, copied or put back. Where a
history parts, whoever goes on in the new place begins an era that the old place never has; so a number and the era it
falls into are one state, in all folders. An era is a name like any other: journal, rebuild and copies all have it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Self

from cas.lease import is_standing
from cas.names import Name, Record
from cas.records import NameEdit

if TYPE_CHECKING:
    from cas.index import Edit
    from cas.layout import Layout
    from cas.view import View

_KIND: Final = "era"
_PREFIX: Final = b"era\0"
_LAST: Final = _PREFIX + b"~"  # follows every name of the kind


class Era(NamedTuple):
    """A stretch of changes: from a number on, begun by a process, known by its owner's id."""

    start: int
    owner: bytes

    @classmethod
    def from_key(cls, key: bytes) -> Self:
        """Read what `key` made."""
        start, _, owner = Name.from_key(key).path.partition(" ")
        return cls(int(start, 16), bytes.fromhex(owner))

    def key(self) -> bytes:
        """Return its name; names of later eras follow."""
        return Name(_KIND, f"{self.start:016x} {self.owner.hex()}").key()


def begin(edit: Edit, layout: Layout, owner: bytes, change: int) -> tuple[NameEdit, ...]:
    """Begin an era with a change, unless one goes on; return what the journal is to say of it.

    Args:
        edit: the transaction of the change.
        layout: of the store.
        owner: of the process that makes the change.
        change: its number.
    """
    last = edit.record_up_to(_LAST, within=_PREFIX)
    if last is not None:
        known = Era.from_key(last[0]).owner
        if known == owner or is_standing(layout, known):  # nobody puts a folder back under a living process
            return ()
    key, record = Era(change, owner).key(), Record(b"").encode()
    edit.put_record(key, record)
    return (NameEdit(key, record),)


def eras(view: View) -> list[Era]:
    """Return all eras, in order."""
    return [Era.from_key(key) for key in view.keys(_PREFIX, b"", None)]


def descends(history: list[Era], change: int, earlier: list[Era]) -> bool:
    """Whether a history went through a state.

    Args:
        history: the eras of the one.
        change: the number of the other's last change; not above that of the one.
        earlier: the eras of the other. Where there are none, an older version made it, and what begins later counts.
    """
    return set(earlier) == {era for era in history if era.start <= change}
