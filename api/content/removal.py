"""Repositories removed with everything they consist of, a bounded step at a time.

    repo.gone    ns/repo    {}    its record and its tags are gone; other rows of it may still be there

A repository may have more rows than one change can delete before the other writers grow impatient. So the first
change takes what makes it a repository, and leaves a note; the rest follows in steps, and the note goes with the
last of them. Nobody can make a repository of that name while the note is there, so what is made anew never inherits
anything. Whoever meets a note that a dead process left finishes its work. Blocking; no HTTP.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from api.content import repositories, tags
from api.content.repositories import GONE, BeingRemoved
from api.content.repository import Repository
from cas import Name, Names, Record, Store

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
STEP: Final = 1000  # rows a change


def remove(store: Store, repository: Repository) -> bool:
    """Remove a repository; tell whether there was one. Nobody sees it any more once the first step is done."""
    if not store.change(lambda names: _begin(names, repository)):
        return False
    finish(store, repository)
    return True


def finish(store: Store, repository: Repository) -> None:
    """Remove what is left of a repository that is gone."""
    while not store.change(lambda names: _step(names, repository)):
        continue


def finish_all(store: Store) -> None:
    """Remove what is left of every repository that is gone: what processes left that were killed meanwhile."""
    for path in store.read(lambda reads: reads.paths(GONE)):
        finish(store, Repository.of(path))


def change(store: Store, repository: Repository, edit: Callable[[Names], T]) -> T:
    """Make a change that may make a repository, as soon as nothing is left of an older one of that name."""
    while True:
        try:
            return store.change(edit)
        except BeingRemoved:
            finish(store, repository)


def _begin(names: Names, repository: Repository) -> bool:
    if not repositories.forget(names, repository):
        return False
    names.put(Name(GONE, str(repository)), Record(b"{}"))
    for path in names.paths(tags.TAG, f"{repository}:"):
        names.delete(Name(tags.TAG, path))
    return True


def _step(names: Names, repository: Repository) -> bool:
    """Delete up to `STEP` rows; tell whether those were the last."""
    gone = Name(GONE, str(repository))
    if names.get(gone) is None:
        return True  # somebody else was at it, and is through; what is there now belongs to a new one
    left = STEP
    for kind, separator in PARTS:
        prefix = f"{repository}{separator}"
        paths = names.paths(kind, prefix, limit=left)
        for path in paths:
            names.delete(Name(kind, path))
            if kind in TURNED:
                names.delete(Name(TURNED[kind], f"{path.removeprefix(prefix)}{separator}{repository}"))
        left -= len(paths)
    if left > 0:
        names.delete(gone)
    return left > 0
