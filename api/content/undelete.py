"""Bringing back what was deleted: a tag, a manifest with its tags, or a repository with all it had.

As one change; a repository follows in steps behind a note, and any process finishes what another one began.
Blocking; no HTTP. What is kept, and for how long: `trash`, and whoever collects.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from api.content import marks, removal, repositories, tags, trash
from api.content.repositories import BeingRemoved, Info
from api.content.repository import Repository
from api.content.trash import Deletion
from api.errors import ApiError
from cas import Name, Names, Store

_MANIFEST: Final = "manifest"


class NothingDeleted(ApiError):
    """Nothing of that name was deleted, or too long ago. Nobody's fault."""

    def __init__(self, what: str) -> None:
        super().__init__(404, f"no deletion of {what} can be undone; `cas undelete --list` shows which can")


class StandsInTheWay(ApiError):
    """It cannot be brought back as things are. The operator's to change."""

    def __init__(self, message: str) -> None:
        super().__init__(409, message)


@dataclass(frozen=True, slots=True)
class Target:
    """What somebody deleted, by name: a repository, or a tag or a manifest in one."""

    repository: Repository
    kind: str
    what: str

    @property
    def is_whole(self) -> bool:
        """Whether it is a repository, and no part of one."""
        return self.kind == "repo"

    @classmethod
    def of(cls, text: str) -> Target:
        """Read `REPO`, `REPO:TAG` or `REPO@DIGEST`; `foo` is `library/foo`."""
        head, at, digest = text.partition("@")
        if at:
            repository = Repository.of(head)
            return cls(repository, _MANIFEST, f"{repository}@{digest}")
        path, slash, last = text.rpartition("/")
        last, colon, tag = last.partition(":")
        repository = Repository.of(path + slash + last)
        return cls(repository, tags.TAG, f"{repository}:{tag}") if colon else cls(repository, "repo", str(repository))


@dataclass(frozen=True, slots=True)
class Restored:
    """What came back.

    Attributes:
        deletion: the one that was undone.
        back: the tags and manifests that came back, whichever of them was asked for; of a repository, nothing is said.
        left: names in whose place something stands by now, or whose blobs an earlier version let go of.
    """

    deletion: Deletion
    back: tuple[Name, ...] = ()
    left: tuple[Name, ...] = ()


def undelete(store: Store, target: Target) -> Restored:
    """Undo the last deletion of something; that of a manifest is one of all tags that it took along.

    Raises:
        NothingDeleted: there is none.
        StandsInTheWay: something of that name is there, or what it belongs to is not.
    """
    edit = _repository if target.is_whole else _within
    restored = removal.change(store, target.repository, lambda names: edit(names, target))
    if target.is_whole:
        removal.finish(store, target.repository)
    return restored


def _repository(names: Names, target: Target) -> Restored:
    if names.get(Name(repositories.GONE, target.what)) is not None:
        raise BeingRemoved(target.repository)
    deletion = _newest(names, target)
    if repositories.find(names, target.repository) is not None:
        raise StandsInTheWay(
            f"there is a repository {target.what} again; remove it first, `cas repo rm {target.what}`, "
            f"which can be undone as well"
        )
    removal.restore(names, target.repository, deletion)
    return Restored(deletion)


def _within(names: Names, target: Target) -> Restored:
    deletion = _newest(names, target)
    info = repositories.find(names, target.repository)
    if info is None:
        raise StandsInTheWay(f"{target.repository} is not there; bring it back first: cas undelete {target.repository}")
    if not _is_where(info, deletion):
        raise StandsInTheWay(f"{target.repository} was made anew since, and has nothing of what it was before")
    if names.get(Name(target.kind, target.what)) is not None:
        raise StandsInTheWay(f"there is a {target.what} again; delete that first if you want the one from before")
    moved = [trash.give_back(names, row) for row in trash.rows(names, deletion.id)]
    left = tuple(name for name, size in moved if not size)
    if Name(target.kind, target.what) in left:
        raise StandsInTheWay(f"{target.what} needs a blob that is gone; push it again")
    if names.get(Name(target.kind, target.what)) is None:
        raise NothingDeleted(target.what)  # its rows are gone
    if target.kind == tags.TAG:
        _check_target(names, target)
    names.delete(deletion.name)
    for mark in (str(target.repository), marks.TRASH, marks.V1):
        marks.disturb(names, mark)
    back = (name for name, size in moved if size and name.kind in (tags.TAG, _MANIFEST))
    return Restored(deletion, tuple(back), left)


def _is_where(info: Info, deletion: Deletion) -> bool:
    """Tell whether a repository is the one in which that was deleted; of an earlier version's, by the clock alone."""
    if deletion.stamp is None:
        return not info.stamp and info.created <= deletion.at
    return info.stamp == deletion.stamp


def _check_target(names: Names, target: Target) -> None:
    tag = target.what.removeprefix(f"{target.repository}:")
    found = tags.find(names, target.repository, tag)
    match found and found.target:
        case tags.Manifest(digest=digest):
            needed, name = f"{target.repository}@{digest}", Name(_MANIFEST, f"{target.repository}@{digest}")
            remedy = f"bring it back first: cas undelete {needed}"
        case tags.Image(id=image):
            needed, name = f"the image {image}", Name("v1.in", f"{image}:{target.repository}")
            remedy = "push it again"
        case _:
            return
    if names.get(name) is None:
        raise StandsInTheWay(f"{target.what} points to {needed}, which is not there; {remedy}")


def _newest(names: Names, target: Target) -> Deletion:
    if target.kind == tags.TAG:
        deletion = trash.newest_with(names, target.what, Name(target.kind, target.what), f"{target.repository}@")
    else:
        deletion = trash.newest(names, target.what)
    if deletion is None:
        raise NothingDeleted(target.what)
    return deletion
