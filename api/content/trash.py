"""What was deleted, kept for a while so that it can be brought back.

    trash.of    WHAT#ID         {"at": Unix seconds, "stamp": the repository's}
                                one deletion: of `ns/repo:tag`, `ns/repo@digest` or `ns/repo`
    trash       ID/kind/path    the record as it was, holding the same blobs; one row of what the deletion took
    trash.last  ids             {"id": the last one's}

To the engine these are names like any other: what they hold is not collected, and what is lost of it is known to be
needed, so that a backup goes on having it. They stand for no logical bytes. Rows of an id that no deletion has, and no
note of `removal`, are garbage. Blocking; no HTTP.
Who brings things back: `undelete`.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from api.content import marks, repositories
from api.content.collect import Garbage, Rule, Terms, walk
from api.content.repositories import GONE, BeingRemoved
from api.content.repository import Repository
from api.content.values import content, record
from cas import Damaged, Missing, Name, Names, Reads, Record, Store

TRASH: Final = "trash"
OF: Final = "trash.of"
_LAST: Final = Name("trash.last", "ids")
_STAMP: Final = 12  # hexadecimal digits of an id that say when
_AFTER_SLASH: Final = "0"  # sorts behind every path that goes on with a slash


@dataclass(frozen=True, slots=True)
class Deletion:
    """One deletion.

    Attributes:
        what: was deleted.
        at: when, in Unix seconds.
        id: under which its rows stand. Ids begin with the time in milliseconds and sort in the order of all deletions,
            also where a clock was put back.
        stamp: of the repository it was made in; None for one that an earlier version made.
    """

    what: str
    at: int
    id: str
    stamp: str | None

    @property
    def name(self) -> Name:
        """Where it stands in the store."""
        return Name(OF, f"{self.what}#{self.id}")


@dataclass(frozen=True, slots=True)
class Undoable:
    """Deletions that can be undone.

    Attributes:
        undoable: how many there are.
        latest: when the last of them was made, in Unix seconds; 0 if there is none.
    """

    undoable: int
    latest: int


def begin(names: Names, repository: Repository, what: str, now: float) -> Deletion:
    """Enter a new deletion, the newest of all; what it takes follows.

    Raises:
        BeingRemoved: the rows of that repository are under way; `removal.change` sees to that.
    """
    info = repositories.find(names, repository)
    if info is None:
        raise BeingRemoved(repository)
    deletion = Deletion(what, int(now), _next_id(names, now), info.stamp)
    names.put(deletion.name, record({"at": deletion.at, "stamp": deletion.stamp}))
    return deletion


def _next_id(names: Names, now: float) -> str:
    last = names.get(_LAST)
    before = [each.id for each in deletions(names)] if last is None else [content(last)["id"]]  # of an earlier version
    stamp = max(int(now * 1000), *(int(each[:_STAMP], 16) + 1 for each in ["0", *before]))
    found = f"{stamp:0{_STAMP}x}{secrets.token_hex(4)}"
    names.put(_LAST, record({"id": found}))
    return found


def take(names: Names, deletion: Deletion, name: Name) -> bool:
    """Delete a name and keep what stood there; tell whether it was there."""
    return bool(take_row(names, deletion.id, name))


def take_row(names: Names, deletion: str, name: Name) -> int:
    """Do the same for a deletion by its id; return how many bytes that moved."""
    found = names.get(name)
    if found is None:
        return 0
    whole = found.encode()
    names.move(name, _row(deletion, name), Record(whole, found.holds))
    return len(whole)


def give_back(names: Names, row: Name) -> tuple[Name, int]:
    """Put a name back where it stood; return it, and how many bytes that moved: 0 if it could not go back.

    It cannot where something stands by now, or where a blob is gone: earlier versions let go of what was lost.
    """
    found = names.get(row)
    assert found is not None, "listed within this change"
    name = original(row)
    if names.get(name) is None:
        with contextlib.suppress(Missing, Damaged):
            names.move(row, name, Record.decode(found.value))
            return name, len(found.value)
    names.delete(row)
    return name, 0


def _row(deletion: str, name: Name) -> Name:
    return Name(TRASH, f"{deletion}/{name.kind}/{name.path}")


def original(row: Name) -> Name:
    """Return where a row of the trash stood before."""
    _, kind, path = row.path.split("/", 2)
    return Name(kind, path)


def deletions(reads: Reads | Store, what: str = "", *, after: str = "", limit: int | None = None) -> list[Deletion]:
    """List deletions of what begins with `what`, in order of what was deleted, then of time."""
    return [_read(name, found) for name, found in reads.scan(OF, what, after=after, limit=limit)]


def newest(reads: Reads, what: str) -> Deletion | None:
    """Return the last deletion of just this."""
    return next(reversed(deletions(reads, f"{what}#")), None)


def newest_with(reads: Reads, what: str, name: Name, within: str) -> Deletion | None:
    """Return the last deletion of just this, or of what begins with `within` if that took this name along."""
    own = newest(reads, what)
    found = [each for each in deletions(reads, within) if reads.get(_row(each.id, name)) is not None]
    return max(found if own is None else [own, *found], key=lambda each: each.id, default=None)


def tags_with(reads: Reads, deletion: Deletion) -> list[str]:
    """List the tags, as `ns/repo:tag`, that the deletion of a manifest took along; none of any other deletion."""
    return [original(row).path for row in rows(reads, deletion.id, "tag")] if "@" in deletion.what else []


def rows(reads: Reads, deletion: str, kind: str = "", *, limit: int | None = None) -> list[Name]:
    """List rows of a deletion, of one kind or of all."""
    prefix = f"{deletion}/{kind}/" if kind else f"{deletion}/"
    return [Name(TRASH, path) for path in reads.paths(TRASH, prefix, limit=limit)]


def kept(store: Store, terms: Terms, what: str, kind: str) -> Iterator[tuple[Name, Record]]:
    """Yield names of a kind as they stood, from each deletion of what begins with `what` that can still be undone."""
    for head, found in walk(store, OF, what):
        deletion = _read(head, found)
        if deletion.at > terms.deleted_before:
            for row, each in walk(store, TRASH, f"{deletion.id}/{kind}/"):
                yield original(row), Record.decode(each.value)


def undoable(store: Store, terms: Terms) -> Undoable:
    """Count the deletions that can still be undone, and so keep what they took."""
    when = [at for head, found in walk(store, OF) if (at := _read(head, found).at) > terms.deleted_before]
    return Undoable(len(when), max(when, default=0))


def _garbage(store: Store, _scope: str, terms: Terms) -> Iterator[Garbage]:
    there = list(_ids(store))  # before their deletions: what is deleted from now on is nobody's garbage
    busy = {id_ for _, found in store.scan(GONE) for id_ in content(found).values()}
    still = set(busy)
    for head, found in walk(store, OF):
        deletion = _read(head, found)
        if deletion.at > terms.deleted_before:
            still.add(deletion.id)
        elif deletion.id not in busy:
            yield Garbage.of(head, found, "deletions that can no longer be undone")
    for each in there:
        if each not in still:
            for name, row in walk(store, TRASH, f"{each}/"):
                yield Garbage.of(name, row, "what those deletions had kept: tags, manifests, links to blobs")


def _ids(store: Store) -> Iterator[str]:
    """Yield the ids of deletions that have rows."""
    after = ""
    while first := store.read(lambda reads, after=after: reads.paths(TRASH, after=after, limit=1)):  # type: ignore[misc]
        each = first[0].partition("/")[0]
        yield each
        after = each + _AFTER_SLASH


RULE: Final = Rule(lambda _: [marks.TRASH], _garbage)


def _read(name: Name, found: Record) -> Deletion:
    what, _, id_ = name.path.rpartition("#")
    value = content(found)
    return Deletion(what, value["at"], id_, value.get("stamp"))
