"""A request that is told to the access log, once: when its answer is complete, or else when its application ended.

Stands between an application and what carries its answer, where the log is kept at all. Knows which events make an
answer; how many bytes of it went out is for each protocol to count.
"""

from __future__ import annotations

import time
from typing import Any, cast

from hypercorn.protocol.events import EndBody, Event, Response
from hypercorn.typing import ASGISendEvent

from api.access_log import AccessLog
from api.refusals import AnsweredStream


class Logged(AnsweredStream):
    """To be put before a protocol's own kind of request."""

    sent_bytes = 0  # of the answer's body

    def __init__(self, *args: Any, access: AccessLog, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._access, self._began_s = access, time.monotonic()
        self._carry, self.send = self.send, self._say
        self._status: int | None = None
        self._is_told = False

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
        if not self._is_told:
            self._is_told = True
            self._access.tell(self.scope, self._status, self.sent_bytes, time.monotonic() - self._began_s)
