"""Marks: how whoever removes what nothing needs learns that it is needed again, before it is too late.

    gc.mark    what    {}    nothing has made names of it count again since this was set

A collector sets the mark, looks around at its leisure, and then removes, in changes that each find the mark still
there. A push that makes something older count again (a manifest that names it, say) takes the mark away within its own
change; the collector looks again. So neither waits for the other, and a mark that a dead collector left costs one row.
A deletion that looks through many tags goes by a mark as well, by anybody's that stands.
Knows no rule of what counts. Blocking; no HTTP.
"""

from __future__ import annotations

from typing import Final

from cas import Name, Names, Record

MARK: Final = "gc.mark"
TRASH: Final = "trash"  # what has been deleted and can be brought back
V1: Final = "v1"  # images that stand in no repository


def put(names: Names, what: str, token: str) -> None:
    """Set a mark; what is written there tells it from another collector's."""
    names.put(_name(what), Record(token.encode()))


def share(names: Names, what: str, token: str) -> str:
    """Return what is written in the mark that stands; where none does, set one."""
    found = names.get(_name(what))
    if found is not None:
        return found.value.decode()
    put(names, what, token)
    return token


def stands(names: Names, what: str, token: str) -> bool:
    """Tell whether nobody took it away."""
    found = names.get(_name(what))
    return found is not None and found.value == token.encode()


def disturb(names: Names, what: str) -> None:
    """Take a mark away, if there is one."""
    if names.get(_name(what)) is not None:
        names.delete(_name(what))


def _name(what: str) -> Name:
    return Name(MARK, what)
