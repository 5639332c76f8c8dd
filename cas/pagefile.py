"""The file of the index's pages: read beside LMDB, never written.

Layer: L1. Which state of it nobody changes meanwhile is for whoever calls to see to; what pages are, `pages` knows.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from cas import pages

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TRIES: Final = 100  # to catch a state while others commit; each takes microseconds
_DATA: Final = "data.mdb"


def is_empty(place: str) -> bool:
    """Whether there is a file and nothing in it, as LMDB makes it before its first commit."""
    with suppress(OSError), _opened(place) as fd:
        return not os.fstat(fd).st_size
    return False


def metas_flaw(place: str, tables: Mapping[str, bool]) -> str | None:
    """Return what is wrong with the two pages on which all else rests, or with a file that is too short for them.

    LMDB would go by an older state in silence, by keys in an order that is not theirs, or be ended by the kernel.

    Args:
        place: folder of the environment.
        tables: as for `pages.verify`.
    """
    what = None
    try:
        with _opened(place) as fd:
            for _ in range(TRIES):  # somebody may be writing one of them
                try:
                    if os.fstat(fd).st_size:
                        _check(fd, tables)
                    return None
                except pages.Broken as error:
                    what = str(error)
    except OSError:
        return None  # there is none yet, or LMDB says why
    return what


def state_flaw(place: str, number: int, tables: Mapping[str, bool]) -> tuple[bool, str | None]:
    """Walk the state that one commit left; return whether it was still to be found, and what is wrong with it."""
    with _opened(place) as fd:
        try:
            meta = next((each for each in _metas(fd) if each.number == number), None)
            if meta is not None:
                pages.verify(meta, partial(_read, fd, meta.page_bytes), tables)
        except pages.Broken as error:
            return True, str(error)
    return meta is not None, None


def _check(fd: int, tables: Mapping[str, bool]) -> None:
    first, second = _metas(fd)
    pages.check_metas(first, second, partial(_read, fd, first.page_bytes))
    newest = max(first, second, key=lambda meta: meta.number)
    pages.check_tables(newest, partial(_read, fd, newest.page_bytes), tables)
    if os.fstat(fd).st_size < (newest.last_page + 1) * newest.page_bytes:
        # Mostly its last pages are free and were never written; but to touch one that is gone ends the process.
        pages.verify(newest, partial(_read, fd, newest.page_bytes), tables)


@contextmanager
def _opened(place: str) -> Iterator[int]:
    fd = os.open(os.path.join(place, _DATA), os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _read(fd: int, page_bytes: int, page: int, count: int) -> bytes:
    return os.pread(fd, count * page_bytes, page * page_bytes)


def _metas(fd: int) -> list[pages.Meta]:
    first = pages.read_meta(os.pread(fd, pages.META_BYTES, 0), 0)
    return [first, pages.read_meta(os.pread(fd, pages.META_BYTES, first.page_bytes), 1)]
