"""Repositories removed with everything they consist of, and brought back, a bounded step at a time.

    repo.gone    ns/repo    {"to": ID}      its record and its tags are in the trash; other rows are on their way there
    repo.gone    ns/repo    {"from": ID}    its rows are on their way back; its record comes last

A repository may have more rows than one change can move before the other writers grow impatient. So the first
change takes what makes it a repository, and leaves a note; the rest follows in steps, and the note goes with the
last of them. Nobody can make a repository of that name while the note is there, so what is made anew never inherits
anything. Whoever meets a note that a dead process left finishes its work. Blocking; no HTTP.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from api.content import marks, repositories, tags, trash
from api.content.repositories import GONE, REPO, BeingRemoved
from api.content.repository import Repository
from api.content.trash import Deletion
from api.content.values import content, record
from cas import Busy, Closed, DiskFailed, Name, Names, NoSpace, ReadOnly, Store

T = TypeVar("T")

# Every kind of name that belongs to one repository, and what stands between that repository and the rest of it.
PARTS: Final = (
    (tags.TAG, ":"),
    ("v1.member", ":"),
    ("v1.upload", ":"),
    ("manifest", "@"),
    ("link", "@"),
    ("referrer", "@"),
)
# Kinds of which each row has another one with the two halves of its path exchanged.
TURNED: Final = {"v1.member": "v1.in"}
STEP: Final = 500  # rows a change
STEP_BYTES: Final = 1 << 20  # of records; manifests are large


def remove(store: Store, repository: Repository, now: float) -> bool:
    """Remove a repository; tell whether there was one. Nobody sees it any more once the first step is done.

    Raises:
        NoSpace, DiskFailed, ReadOnly, Busy, Closed: nothing was changed, or it says that the removal has begun.
    """
    if not store.change(lambda names: _begin(names, repository, now), frees=True):
        note = store.get(Name(GONE, str(repository)))
        if note is None:
            return False
        _finish_begun(store, repository)
        return "from" not in content(note) or remove(store, repository, now)
    _finish_begun(store, repository)
    return True


def _finish_begun(store: Store, repository: Repository) -> None:
    try:
        finish(store, repository)
    except (NoSpace, DiskFailed, ReadOnly, Busy, Closed) as error:
        raise type(error)(
            f"{repository} is gone, and what it consisted of follows with the next `cas gc`, start of a server or "
            f"push to it, or when it is removed again: {error}"
        ) from error


def restore(names: Names, repository: Repository, deletion: Deletion) -> None:
    """Begin to bring a repository back, as part of a change; `finish` does the rest.

    Raises:
        BeingRemoved: rows are on their way already.
    """
    if names.get(Name(GONE, str(repository))) is not None:
        raise BeingRemoved(repository)
    names.put(Name(GONE, str(repository)), record({"from": deletion.id}))
    names.delete(deletion.name)
    marks.disturb(names, marks.TRASH)


def finish(store: Store, repository: Repository) -> None:
    """Move what is left of a repository that is on its way."""
    while not store.change(lambda names: _step(names, repository), frees=True):
        continue


def finish_all(store: Store) -> None:
    """Move what is left of every repository that is on its way: what processes left that were killed meanwhile."""
    for path in store.read(lambda reads: reads.paths(GONE)):
        finish(store, Repository.of(path))


def change(store: Store, repository: Repository, edit: Callable[[Names], T], *, frees: bool = False) -> T:
    """Make a change that may make a repository, or deletes in it, as soon as no rows of that name are on their way."""
    while True:
        try:
            return store.change(edit, frees=frees)
        except BeingRemoved:
            finish(store, repository)


def _begin(names: Names, repository: Repository, now: float) -> bool:
    if repositories.find(names, repository) is None:
        return False
    deletion = trash.begin(names, repository, str(repository), now)
    repositories.forget(names, repository, lambda name: trash.take(names, deletion, name))
    names.put(Name(GONE, str(repository)), record({"to": deletion.id}))
    for path in names.paths(tags.TAG, f"{repository}:"):
        trash.take(names, deletion, Name(tags.TAG, path))
    return True


def _step(names: Names, repository: Repository) -> bool:
    """Move up to `STEP` rows; tell whether those were the last."""
    gone = names.get(Name(GONE, str(repository)))
    if gone is None:
        return True  # somebody else was at it, and is through; what is there now belongs to a new one
    note = content(gone)
    done = _bring(names, repository, note["from"]) if "from" in note else _take(names, repository, note.get("to", ""))
    if done:
        names.delete(Name(GONE, str(repository)))
    return done


def _take(names: Names, repository: Repository, deletion: str) -> bool:
    rows, size = STEP, STEP_BYTES
    for kind, separator in PARTS:
        prefix = f"{repository}{separator}"
        for path in names.paths(kind, prefix, limit=rows):
            size -= trash.take_row(names, deletion, Name(kind, path))
            if kind in TURNED:
                trash.take_row(names, deletion, Name(TURNED[kind], _turned(path.removeprefix(prefix), repository)))
            rows -= 1
            if size <= 0:
                return False
    return rows > 0


def _bring(names: Names, repository: Repository, deletion: str) -> bool:
    rows, size = STEP, STEP_BYTES
    last = Name(REPO, str(repository))
    for row in trash.rows(names, deletion, limit=STEP):
        if trash.original(row) == last:
            continue
        size -= trash.give_back(names, row)[1]
        rows -= 1
        if size <= 0:
            return False
    if rows <= 1:
        return False  # one of those listed may have been the record
    for row in trash.rows(names, deletion, REPO):
        trash.give_back(names, row)
        repositories.enter(names, repository)
    for mark in (str(repository), marks.V1):
        marks.disturb(names, mark)
    return True


def _turned(part: str, repository: Repository) -> str:
    return f"{part}:{repository}"
