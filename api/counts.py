"""What a worker counts of requests, in memory that all workers share, so that any of them can tell the sums.

Each worker has a place there, and whoever takes a dead one's place counts on from where that stopped: however a worker
dies, no sum goes back, and no file is left. A place is a table of one size, a row of numbers for each kind of request,
which is a protocol and a method; what a stranger makes up is of the kind `other`. Each place is written to by one
thread, the one with the event loop. Knows memory, and of a request its method and how its path begins; refuses to know
how numbers are shown.
"""

from __future__ import annotations

import mmap
import os
import re
import time
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from itertools import product
from typing import Final, final

from api.access_log import CLIENT_GONE

OTHER: Final = "other"
PROTOCOLS: Final = ("v1", "v2", OTHER)
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", OTHER)
STATUSES: Final = (*(status.value for status in HTTPStatus if status >= HTTPStatus.OK), CLIENT_GONE)
# From an answer that is known by heart to a layer of gigabytes on a slow way.
BOUNDS_S: Final = (0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0, 300.0)

_NUMBER_BYTES: Final = 8
# A row: requests under way, bytes of bodies either way, nanoseconds, answers by how long they took, and by status.
_UNDER_WAY, _SENT, _RECEIVED, _TOOK, _DURATIONS = range(5)
_ANSWERS: Final = _DURATIONS + len(BOUNDS_S) + 1
_ROW: Final = _ANSWERS + len(STATUSES)
_KINDS: Final = tuple(product(PROTOCOLS, METHODS))
_PLACE: Final = _ROW * len(_KINDS)
_COLUMNS: Final = {status: _ANSWERS + column for column, status in enumerate(STATUSES)}
_UNKNOWN: Final = _COLUMNS[500]  # of a status that nothing here gives
_PROTOCOL: Final = re.compile(rb"(?:https?://[^/?]*)?/(v[12])(?![^/?])")
_NS: Final = 1e9
_HEAD_END: Final = b"\r\n\r\n"
_STATUS: Final = slice(9, 12)  # of an answer's head: `HTTP/1.1 200`


def shared_memory(workers: int) -> int:
    """Make memory for so many workers; return its descriptor, which is theirs to inherit and the caller's to close."""
    fd = os.memfd_create("cas-counts")
    os.ftruncate(fd, workers * _PLACE * _NUMBER_BYTES)
    return fd


@dataclass(frozen=True, slots=True)
class Sum:
    """What all workers together counted of one kind of request.

    Attributes:
        durations: answers by the bounds that they kept to; those past the last one come last.
        answers: how many were given, by status.
    """

    protocol: str
    method: str
    under_way: int
    sent_bytes: int
    received_bytes: int
    took_s: float
    durations: tuple[int, ...]
    answers: dict[int, int]


@final
class Kind:
    """Requests of one kind, as one worker counts them."""

    __slots__ = ("_row",)

    def __init__(self, row: memoryview[int]) -> None:
        self._row = row

    def begin(self) -> None:
        """One is under way."""
        self._row[_UNDER_WAY] += 1

    def end(self) -> None:
        """It is over."""
        self._row[_UNDER_WAY] -= 1

    def count(self, status: int | None, sent_bytes: int, received_bytes: int, took_s: float) -> None:
        """Count one that is over; without a status nobody waited for its answer."""
        row = self._row
        row[_SENT] += sent_bytes
        row[_RECEIVED] += received_bytes
        row[_TOOK] += int(took_s * _NS)
        row[_DURATIONS + bisect_left(BOUNDS_S, took_s)] += 1
        row[_COLUMNS.get(status or CLIENT_GONE, _UNKNOWN)] += 1


@final
class Repeat:
    """An answer that is given by heart, as bytes."""

    __slots__ = ("_before", "_began_s", "_kind")

    def __init__(self, kind: Kind, moved_bytes: int) -> None:
        self._kind, self._before, self._began_s = kind, moved_bytes, time.monotonic()
        kind.begin()

    def over(self, said: bytes, moved_bytes: int) -> None:
        """Count it: what was said, which may be a head alone, and what of files had gone out after it."""
        body_bytes = len(said) - said.index(_HEAD_END) - len(_HEAD_END) + moved_bytes - self._before
        self._kind.end()
        self._kind.count(int(said[_STATUS]), body_bytes, 0, time.monotonic() - self._began_s)


def _numbers(fd: int) -> memoryview[int]:
    return memoryview(mmap.mmap(fd, os.fstat(fd).st_size)).cast("q")


@final
class Places:
    """Where all workers count, for whoever sees them die."""

    def __init__(self, fd: int) -> None:
        self._numbers = _numbers(fd)

    def forget(self, place: int) -> None:
        """Let nothing be under way in this place any more: its worker is gone, and the next one may take a while."""
        for begin in range(place * _PLACE, (place + 1) * _PLACE, _ROW):
            self._numbers[begin + _UNDER_WAY] = 0


@final
class Counts:
    """The counting of one worker, and the sums of all."""

    def __init__(self, fd: int, place: int) -> None:
        """Count in this place, the first being 0, of memory that others share."""
        self._numbers = _numbers(fd)
        self._kinds: dict[str, dict[str, Kind]] = {protocol: {} for protocol in PROTOCOLS}
        for number, (protocol, method) in enumerate(_KINDS):
            begin = place * _PLACE + number * _ROW
            row = self._numbers[begin : begin + _ROW]
            row[_UNDER_WAY] = 0  # whoever was here before has died
            self._kinds[protocol][method] = Kind(row)

    def kind(self, method: str, target: bytes) -> Kind:
        """Tell of which kind a request is, by its path or all that stood there."""
        found = _PROTOCOL.match(target)
        kinds = self._kinds[OTHER if found is None else found[1].decode()]
        return kinds.get(method) or kinds[OTHER]

    def repeat(self, question: bytes, moved_bytes: int) -> Repeat:
        """Begin to count an answer that is given by heart.

        Args:
            question: the head of the request.
            moved_bytes: what went out of files on its connection before.
        """
        method, target, _ = question.split(b" ", 2)
        return Repeat(self.kind(method.decode(), target), moved_bytes)

    def sums(self) -> Iterator[Sum]:
        """Tell of each kind of request what all workers counted."""
        numbers = self._numbers.tolist()
        places = [numbers[begin : begin + _PLACE] for begin in range(0, len(numbers), _PLACE)]
        added = [sum(column) for column in zip(*places, strict=True)]
        for number, (protocol, method) in enumerate(_KINDS):
            row = added[number * _ROW : (number + 1) * _ROW]
            yield Sum(
                protocol,
                method,
                row[_UNDER_WAY],
                row[_SENT],
                row[_RECEIVED],
                row[_TOOK] / _NS,
                tuple(row[_DURATIONS:_ANSWERS]),
                dict(zip(STATUSES, row[_ANSWERS:], strict=True)),
            )
