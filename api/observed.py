"""A request that observers are told of, once: when its answer is complete, or else when its application ended.

Stands between an application and what carries its answer, where there are observers at all: the access log, and the
counts that a monitor reads. Knows which events make a request and an answer; how many bytes of it went out is for each
protocol to count.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast, final

from hypercorn.protocol.events import Body, EndBody, Event, Request, Response
from hypercorn.typing import ASGISendEvent

from api.access_log import AccessLog
from api.counts import Counts, Kind
from api.refusals import AnsweredStream


@final
@dataclass(frozen=True, slots=True)
class Observers:
    """Who is told of every request of a worker; one of them at least."""

    access: AccessLog | None
    counts: Counts | None

    def refused(self, scope: Mapping[str, Any], status: int, sent_bytes: int) -> None:
        """Tell of what was answered before any application could, with as much of a scope as there is."""
        if self.access is not None:
            self.access.tell(scope, status, sent_bytes, 0.0)
        if self.counts is not None:
            self.counts.kind(scope.get("method", ""), scope.get("raw_path", b"")).count(status, sent_bytes, 0, 0.0)


class Observed(AnsweredStream):
    """To be put before a protocol's own kind of request."""

    sent_bytes = 0  # of the answer's body
    received_bytes = 0  # of the request's

    def __init__(self, *args: Any, observers: Observers, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._observers, self._began_s = observers, time.monotonic()
        self._carry, self.send = self.send, self._say
        self._kind: Kind | None = None
        self._status: int | None = None
        self._is_told = False

    async def handle(self, event: Event) -> None:
        if isinstance(event, Body):
            self.received_bytes += len(event.data)
        elif isinstance(event, Request) and self._observers.counts is not None:
            self._kind = self._observers.counts.kind(event.method, event.raw_path)
            self._kind.begin()
        await super().handle(event)

    async def app_send(self, message: ASGISendEvent | dict[str, Any] | None) -> None:
        try:
            await super().app_send(cast("ASGISendEvent | None", message))
        finally:
            if message is None:
                self._tell()

    def refused(self, status: int, sent_bytes: int) -> None:
        """Take note that the connection gave the answer, before the application could."""
        if not self._is_told:
            self._status, self.sent_bytes = status, sent_bytes
            self._tell()

    async def _say(self, event: Event) -> None:
        if isinstance(event, Response) and self._status is None:
            self._status = event.status_code
        await self._pass_on(event)
        if isinstance(event, EndBody):
            self._tell()

    async def _pass_on(self, event: Event) -> None:
        await self._carry(event)

    def _tell(self) -> None:
        if self._is_told:
            return
        self._is_told = True
        took_s = time.monotonic() - self._began_s
        if self._observers.access is not None:
            self._observers.access.tell(self.scope, self._status, self.sent_bytes, took_s)
        if self._kind is not None:
            self._kind.end()
            self._kind.count(self._status, self.sent_bytes, self.received_bytes, took_s)
