"""Receiving from a connection that is lent: the upload is begun once, and nobody rests it once it is over."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import cast

import pytest

from api import receiving
from api.config import MIB
from api.loan import Lender, Loan
from api.receiving import receive_into
from api.threads import Threads
from cas import Closed, Upload
from tests.wire.harness import PATIENCE_S
from tests.wire.test_streaming_receive import Sink, messages


class Ending(Sink):
    """Takes nothing more once it is over, as the engine's do."""

    is_over = False

    def rest(self) -> None:
        if self.is_over:
            raise Closed("this upload is over")
        super().rest()

    def draw(self, read: Callable[[memoryview], int], left: int, most: int) -> int:
        with self._alone():
            memory = bytearray(min(left, most))
            got = read(memoryview(memory))
            self.data += memory[:got]
            return got

    def end(self, size: int) -> int:
        self.is_over = True
        return size


class Rest:
    """What is left of a body, all of which is there."""

    def __init__(self, data: bytes, *, is_ready: bool = True) -> None:
        self._data, self.left, self.is_ready = data, len(data), is_ready
        self.is_over = self.is_stalled = False

    async def wait(self, _wanted: int) -> None: ...

    def read(self, into: memoryview) -> int:
        got, self._data = self._data[: len(into)], self._data[len(into) :]
        into[: len(got)] = got
        self.left -= len(got)
        return len(got)

    async def close(self) -> None:
        """Be given back after as many moments as some timers need to go off."""
        over = asyncio.Event()
        asyncio.get_running_loop().call_later(0.02, over.set)
        await over.wait()


def lending(*loans: Rest | None, told: Callable[[], object] = object) -> Lender:
    """Lend these in turn, and tell of each."""
    rest = list(loans)

    async def lend(_taken: int) -> Loan | None:
        if not rest:
            return None
        if (loan := rest.pop(0)) is not None:
            told()
        return cast("Loan | None", loan)

    return lend


def test_an_upload_that_is_over_does_not_rest(threads: Threads, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that took the last bytes ended it; its connection is given back only then."""
    monkeypatch.setattr(receiving, "_REST_S", 0.0005)
    sink, data = Ending(), b"x" * MIB

    async def main() -> int:
        return await receive_into(
            messages(),
            lambda: cast("Upload", sink),
            limit_bytes=None,
            run=threads.run,
            lend=lending(Rest(data)),
            then=sink.end,
        )

    assert asyncio.run(main()) == len(data)
    assert sink.data == data


def test_an_upload_that_a_thread_is_about_to_begin_is_begun_once(threads: Threads) -> None:
    """Its first block is on its way there when the rest of its connection is lent."""
    sink, begun, go_on = Ending(), list[int](), threading.Event()

    def begin() -> Upload:
        begun.append(1)
        assert go_on.wait(PATIENCE_S)
        return cast("Upload", sink)

    async def main() -> int:
        loop = asyncio.get_running_loop()
        lend = lending(None, Rest(b"y" * MIB, is_ready=False), told=lambda: loop.call_later(0.05, go_on.set))
        came = messages(b"x" * 2 * MIB)
        return await receive_into(came, begin, limit_bytes=None, run=threads.run, lend=lend, then=sink.end)

    assert asyncio.run(main()) == 3 * MIB
    assert begun == [1]
    assert sink.data == b"x" * 2 * MIB + b"y" * MIB
