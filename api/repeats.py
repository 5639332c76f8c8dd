"""Answers that may be given again: the same question, word for word, of an unchanged store has the same answer.

Keeps whole answers as they went out, by the whole head of the request that they were given to, so nothing of either has
to be understood a second time. Of a body that lies in files only the way to have them again is kept. Whether an answer
may be kept is said by whoever made it: they name the moment of the store that it was read at (`MOMENT` in the ASGI
message that begins it, and `FILES`), and a change of anything, by any process, ends them all. Knows neither HTTP,
beyond the `Date` that is written anew, nor what the answers are about.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from email.utils import formatdate
from typing import Final, Protocol, final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOMENT: Final = "cas.moment"
FILES: Final = "cas.files"
_DATE: Final = b"\r\ndate: "
_DATE_BYTES: Final = len("Thu, 01 Jan 1970 00:00:00 GMT")
_HEAD_END: Final = b"\r\n\r\n"
_MOST_QUESTION_BYTES: Final = 4096  # a head with a token has half of that
_ENTRY_BYTES: Final = 512  # what an entry takes beside its bytes, about
_FILES_BYTES: Final = 4096  # what the way to its files takes, at most about


class Place(Protocol):
    """Bytes of an open file."""

    @property
    def fd(self) -> int: ...

    @property
    def offset(self) -> int: ...

    @property
    def count(self) -> int: ...


class Files(Protocol):
    """A body that lies in files, open until they are let go."""

    def pieces(self) -> Iterable[Place]: ...

    def close(self) -> None: ...


# Opens nothing and never waits; None if the files are not to be had that way just now.
Again = Callable[[], Files | None]


def repeatable(answer: ASGIApp, moment: int, files: Again | None = None) -> ASGIApp:
    """Make of an answer one that holds for whoever asks the same, word for word, until the store changes.

    Only where nothing else went into it: not who asked, nor when.

    Args:
        answer: what is answered.
        moment: of the store, at which all of it was looked up.
        files: where the body is a whole one by `sendfile`, how to have it again.
    """

    async def repeated(scope: Scope, receive: Receive, send: Send) -> None:
        async def say(message: Message) -> None:
            begins = message["type"] == "http.response.start"
            await send({**message, MOMENT: moment, FILES: files} if begins else message)

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

    @property
    def size(self) -> int:
        return len(self.before) + _DATE_BYTES + len(self.after) + (_FILES_BYTES if self.files else 0)


@final
class Repeats:
    """Answers of one moment, as many as there is room for; those kept first go first.

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
        self._most_bytes, self._present, self._clock = most_bytes, present, clock
        self._moment: int | None = None
        self._kept: dict[bytes, _Answer] = {}
        self._bytes = 0
        self._second, self._date = -1, b""

    def find(self, question: bytes) -> Found | None:
        """Return the answer to a request, if it is kept and still true, dated now."""
        answer = self._kept.get(question)
        if answer is None:
            return None
        files = None if answer.files is None else answer.files()
        if self._present() != self._moment:  # looked at last: what is held stays as it is, and so it is of now
            if files is not None:
                files.close()
            self._forget()
            return None
        if files is None and answer.files is not None:
            return None
        return Found(b"".join((answer.before, self._now(), answer.after)), files)

    def keep(self, question: bytes, said: bytes, moment: int, files: Again | None = None) -> None:
        """Keep the answer that went out, if its moment is no earlier one than that of the others."""
        at, end = said.find(_DATE) + len(_DATE), said.find(_HEAD_END)
        answer = _Answer(said[:at], said[at + _DATE_BYTES :], files)
        size = len(question) + answer.size + _ENTRY_BYTES
        if len(question) > _MOST_QUESTION_BYTES or size > self._most_bytes // 16 or not len(_DATE) <= at < end:
            return
        if self._moment is None or moment > self._moment:
            self._forget()
            self._moment = moment
        if moment == self._moment and question not in self._kept:
            self._kept[question] = answer
            self._bytes += size
            self._make_room()

    def _make_room(self) -> None:
        while self._bytes > self._most_bytes:
            question = next(iter(self._kept))
            self._bytes -= len(question) + self._kept.pop(question).size + _ENTRY_BYTES

    def _forget(self) -> None:
        self._kept.clear()
        self._bytes, self._moment = 0, None

    def _now(self) -> bytes:
        second = int(self._clock())
        if second != self._second:
            self._second, self._date = second, formatdate(second, usegmt=True).encode()
        return self._date
