"""How long connections have patience, told by the test and not by how busy the machine is."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from api.patience import Patience
from tests.support.timers import Timers
from tests.wire.harness import PATIENCE_S, Running


class Hourglass:
    """The time of every `Patience` of connections made from now on: it stands still unless it is let pass."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._timers = Timers()
        for module in ("api.connection", "api.intake"):
            monkeypatch.setattr(f"{module}.Patience", self._patience)

    def _patience(self, _: asyncio.AbstractEventLoop, *rest: object) -> Patience:
        return Patience(cast("asyncio.AbstractEventLoop", self._timers), *rest)  # type: ignore[arg-type]

    def let_pass(self, running: Running, seconds: float) -> None:
        """Let so much time pass at once, in a server's own thread."""

        async def turn() -> None:
            self._timers.go_to(self._timers.now + seconds)

        asyncio.run_coroutine_threadsafe(turn(), running.loop).result(PATIENCE_S)

    def run(self, running: Running, step_s: float) -> None:
        """From now on let time pass by itself, a step after the other, until the server ends."""

        def turn() -> None:
            self._timers.go_to(self._timers.now + step_s)
            running.loop.call_later(0.01, turn)

        running.loop.call_soon_threadsafe(turn)
