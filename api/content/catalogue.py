"""The catalogue: the names of all repositories, packed into pages, so that a search reads few rows.

    catalogue.public     first name of the page    names, one a line, sorted
    catalogue.private    the same

A hundred thousand names are some 250 pages: a substring is looked for in each page's text as a whole. Two lists,
because whoever may see few private repositories must not wait for a walk past all the others.
Blocking; no HTTP. Who may see what is told by the caller.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import Final

from api.content.repository import LIBRARY, Repository
from cas import Name, Names, Reads, Record

PUBLIC: Final = "public"
PRIVATE: Final = "private"
PAGE_BYTES: Final = 8192  # a page past it is split; small, because every new repository writes one anew
_SMALL_BYTES: Final = PAGE_BYTES // 4  # a page below it joins the next one where both fit into half of a page
_FIRST_PAGE: Final = "!"  # sorts before every name
_PAGES_AT_ONCE: Final = 32


@dataclass(frozen=True, slots=True)
class Sight:
    """What somebody may see: every public repository, and of the private ones those that `may_see`.

    Attributes:
        everything: all of it; then nothing else counts.
        prefixes: what the name of every private one that may be seen begins with, or is; none in vain.
        may_see: the last word on a private one.
    """

    everything: bool
    prefixes: tuple[str, ...] = ()
    may_see: Callable[[str], bool] = bool


def add(names: Names, access: str, name: str) -> None:
    """Enter a repository's full name; twice is once."""
    page, lines = _page(names, access, name)
    at = bisect_left(lines, name)
    if lines[at : at + 1] == [name]:
        return
    lines.insert(at, name)
    if _size(lines) <= PAGE_BYTES:
        _write(names, page, lines)
        return
    half = _middle(lines)
    _write(names, page, lines[:half])
    _write(names, Name(page.kind, lines[half]), lines[half:])


def remove(names: Names, access: str, name: str) -> None:
    """Take a repository's full name out."""
    page, lines = _page(names, access, name)
    if name not in lines:
        return
    lines.remove(name)
    if _size(lines) < _SMALL_BYTES:
        lines += _take_next(names, page, PAGE_BYTES // 2 - _size(lines))
    if lines:
        _write(names, page, lines)
    else:
        names.delete(page)


def _take_next(names: Names, page: Name, most: int) -> list[str]:
    """Take the lines of the page after this one out of the list, if they are few enough."""
    following = names.scan(page.kind, after=page.path, limit=1)
    if not following or len(following[0][1].value) >= most:
        return []
    name, found = following[0]
    names.delete(name)
    return found.value.decode().split("\n")


def _middle(lines: list[str]) -> int:
    """Return at which line to split a page, so that either part has about half of its bytes, and a line at least."""
    ends = list(accumulate(len(line) + 1 for line in lines))
    return min(range(1, len(lines)), key=lambda at: abs(2 * ends[at - 1] - ends[-1]))


def _size(lines: list[str]) -> int:
    return sum(map(len, lines)) + len(lines)


def any_of(reads: Reads, access: str) -> bool:
    """Tell whether there is any name in one of the two lists."""
    return bool(reads.paths(_kind(access), limit=1))


def search(reads: Reads, sight: Sight, term: str = "") -> Iterator[str]:
    """Yield the full names that contain a term and may be seen, in byte order."""
    if sight.everything:
        return heapq.merge(_walk(reads, PUBLIC, term=term), _walk(reads, PRIVATE, term=term))
    own = (
        name
        for prefix in _disjoint(sight.prefixes)
        for name in _walk(reads, PRIVATE, prefix, term=term)
        if sight.may_see(name)
    )
    return heapq.merge(_walk(reads, PUBLIC, term=term), own)


def listing(reads: Reads, sight: Sight, *, after: str = "", limit: int) -> list[str]:
    """List up to `limit` short names that may be seen and follow `after`, in byte order of the short names."""
    lists = [PUBLIC, PRIVATE] if sight.everything else [PUBLIC]
    streams = [stream for access in lists for stream in _short(reads, access, "", after)]
    if not sight.everything:
        for prefix in _disjoint(sight.prefixes):
            streams += [filter(_seen(sight), stream) for stream in _short(reads, PRIVATE, prefix, after)]
    return list(islice(heapq.merge(*streams), limit))


def _seen(sight: Sight) -> Callable[[str], bool]:
    return lambda short: sight.may_see(str(Repository.of(short)))


def _short(reads: Reads, access: str, prefix: str, after: str) -> list[Iterator[str]]:
    """Give two streams in order of the short name: what is not shortened, and what is."""
    plain = (name for name in _walk(reads, access, prefix, after) if not _is_shortened(name))
    library = f"{LIBRARY}/"
    within = max(prefix, library, key=len)
    if not (prefix.startswith(library) or library.startswith(prefix)):
        return [plain]
    walked = _walk(reads, access, within, library + after)
    return [plain, (name.removeprefix(library) for name in walked if _is_shortened(name))]


def _is_shortened(name: str) -> bool:
    return Repository.of(name).short != name


def _disjoint(prefixes: Iterable[str]) -> list[str]:
    """Leave out every prefix that another one covers, so that no name is met twice."""
    kept: list[str] = []
    for prefix in sorted(set(prefixes)):
        if not (kept and prefix.startswith(kept[-1])):
            kept.append(prefix)
    return kept


def _walk(reads: Reads, access: str, prefix: str = "", after: str = "", *, term: str = "") -> Iterator[str]:
    """Yield the names of one list that begin with a prefix, contain a term and follow `after`."""
    low = max(prefix, after)
    for text in _texts(reads, access, low):
        head = text.partition("\n")[0]
        if head > prefix and not head.startswith(prefix):
            return
        if term not in text:
            continue
        lines = text.split("\n")
        for name in lines[bisect_left(lines, low) :]:
            if name > prefix and not name.startswith(prefix):
                return
            if name > after and term in name:
                yield name


def _texts(reads: Reads, access: str, low: str) -> Iterator[str]:
    """Yield the pages' texts from the one that holds `low` on."""
    first = reads.last(_kind(access), low)
    if first is not None:
        yield first[1].value.decode()
        low = first[0].path
    while pages := reads.scan(_kind(access), after=low, limit=_PAGES_AT_ONCE):
        for name, found in pages:
            yield found.value.decode()
            low = name.path


def _page(names: Names, access: str, name: str) -> tuple[Name, list[str]]:
    """Find the page on which a name belongs."""
    found = names.last(_kind(access), name)
    if found is None:
        return Name(_kind(access), _FIRST_PAGE), []
    return found[0], found[1].value.decode().split("\n")


def _write(names: Names, page: Name, lines: list[str]) -> None:
    names.put(page, Record("\n".join(lines).encode()))


def _kind(access: str) -> str:
    return f"catalogue.{access}"
