"""Answers that may be given again: the same question, word for word, has the same answer while what it rests on stays.

Keeps whole answers as they went out, by the whole head of the request that they were given to, so nothing of either has
to be understood a second time. Of a body that lies in files only the way to have them again is kept. Whether an answer
may be kept is said by whoever made it, who tells what it was made of (`BASIS` in the ASGI message that begins it, and
`FILES`). After any change of the store, by any process, that is looked up again before the answer is given. A word that
must be another one each time is made by whoever made the first (`FRESH`). Knows neither HTTP, beyond the `Date` that is
written anew, nor what the answers are about.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from email.utils import formatdate
from typing import Final, Protocol, final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.basis import Basis
from api.lately import Lately
from cas import FileRange

BASIS: Final = "cas.basis"
FILES: Final = "cas.files"
FRESH: Final = "cas.fresh"
_DATE: Final = b"\r\ndate: "
_DATE_BYTES: Final = len("Thu, 01 Jan 1970 00:00:00 GMT")
_HEAD_END: Final = b"\r\n\r\n"
_MOST_QUESTION_BYTES: Final = 4096  # a head with a token has half of that
_ENTRY_BYTES: Final = 512  # what an entry takes beside its bytes, about
_FILES_BYTES: Final = 4096  # what the way to its files takes, at most about


class Files(Protocol):
    """A body that lies in files, open until they are let go."""

    def pieces(self) -> Iterable[FileRange]: ...

    def ends_early(self, fd: int, missing: int, /) -> object:
        """Have it looked into that a file lacks so many bytes."""

    def close(self) -> None: ...


# Opens nothing and never waits; None if the files are not to be had that way just now.
Again = Callable[[], Files | None]


@dataclass(frozen=True, slots=True)
class Fresh:
    """A word that no two answers share: the one that stands in this answer's head, and how to make the next.

    The next is as long as the first; to make it waits for nothing and fails never.
    """

    word: bytes
    anew: Callable[[], bytes]


def repeatable(answer: ASGIApp, basis: Basis, files: Again | None = None, fresh: Fresh | None = None) -> ASGIApp:
    """Make of an answer one that holds for whoever asks the same, word for word, while its basis stays as it is.

    Only where nothing else went into it: not who asked, nor when.

    Args:
        answer: what is answered.
        basis: all that was looked up for it.
        files: where the body is a whole one by `sendfile`, how to have it again.
        fresh: what must be another one each time.
    """

    async def repeated(scope: Scope, receive: Receive, send: Send) -> None:
        async def say(message: Message) -> None:
            begins = message["type"] == "http.response.start"
            await send({**message, BASIS: basis, FILES: files, FRESH: fresh} if begins else message)

        await answer(scope, receive, say)

    return repeated


@dataclass(frozen=True, slots=True)
class Found:
    """An answer to be given now: what is said, and then the body that lies in files, which whoever gives it lets go."""

    said: bytes
    files: Files | None


@dataclass(frozen=True, slots=True)
class _Answer:
    before: bytes  # up to its date
    after: bytes
    files: Again | None
    fresh: Fresh | None

    @property
    def size(self) -> int:
        return len(self.before) + _DATE_BYTES + len(self.after) + (_FILES_BYTES if self.files else 0) + _ENTRY_BYTES


@final
class Repeats:
    """Answers that were given, as many as there is room for; those kept first go first.

    Args:
        most_bytes: what they may take altogether.
        present: the moment that is now, told without waiting; None if that cannot be.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        most_bytes: int,
        present: Callable[[], int | None],
        clock: Callable[[], float] = time.time,  # noqa: TID251 - the default of an argument
    ) -> None:
        self._clock = clock
        self._kept = Lately[bytes, _Answer](most_bytes, present, clock)
        self._second, self._date = -1, b""

    def find(self, question: bytes) -> Found | None:
        """Return the answer to a request, if it is kept and still true, dated now."""
        answer = self._kept.find(question)
        if answer is None:
            return None
        files = None if answer.files is None else answer.files()
        if self._kept.still(question) is None:  # last: what is held stays as it is, and so it is of now
            if files is not None:
                files.close()
            return None
        if files is None and answer.files is not None:
            return None
        said = b"".join((answer.before, self._now(), answer.after))
        return Found(said if answer.fresh is None else said.replace(answer.fresh.word, answer.fresh.anew()), files)

    def keep(
        self, question: bytes, said: bytes, basis: Basis, files: Again | None = None, fresh: Fresh | None = None
    ) -> None:
        """Keep the answer that went out, in place of an earlier one."""
        at, end = said.find(_DATE) + len(_DATE), said.find(_HEAD_END)
        if len(question) <= _MOST_QUESTION_BYTES and len(_DATE) <= at < end:
            answer = _Answer(said[:at], said[at + _DATE_BYTES :], files, fresh)
            self._kept.keep(question, answer, basis, len(question) + answer.size)

    def _now(self) -> bytes:
        second = int(self._clock())
        if second != self._second:
            self._second, self._date = second, formatdate(second, usegmt=True).encode()
        return self._date
