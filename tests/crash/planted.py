"""Five bugs that the campaign has to notice, each planted for as long as its context lasts. None is in the product.

They are what its promises stand on: bytes are synced, before the index names them; a collection waits for those who
rely on what it takes; what was never committed is stepped over; equal keys prove nothing.
"""

# ruff: noqa: SLF001 - a bug does not ask for public methods

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import Any, Final
from unittest.mock import patch

from cas import CasError
from cas.environment import Environment
from cas.packs import PackWriter
from tests.support.powercut import ForgetfulDisk


@contextmanager
def no_fsync() -> Iterator[None]:
    """Syncs of files do nothing: the disk never hears of them."""
    with patch.object(ForgetfulDisk, "sync", lambda disk, _fd: disk.step("sync")):
        yield


@contextmanager
def commit_before_sync() -> Iterator[None]:
    """Packs are synced, but only once the index has named what lies in them."""
    sync, close, write = PackWriter.sync, PackWriter.close, Environment.write
    due: set[PackWriter] = set()
    lock = threading.RLock()

    def later(writer: PackWriter) -> None:
        with lock:
            due.add(writer)

    def late(writer: PackWriter) -> None:
        due.discard(writer)
        if writer._fd in writer._disk._files:  # type: ignore[attr-defined] # else it is of a store that was cut off
            sync(writer)

    def write_first(environment: Environment, work: Callable[..., Any]) -> Any:
        result = write(environment, work)
        with lock:
            for writer in list(due):
                late(writer)
        return result

    def close_last(writer: PackWriter) -> None:
        with lock, suppress(CasError):
            if writer in due:
                late(writer)
        close(writer)

    with (
        patch.object(PackWriter, "sync", later),
        patch.object(PackWriter, "close", close_last),
        patch.object(Environment, "write", write_first),
    ):
        yield


@contextmanager
def no_pins() -> Iterator[None]:
    """A collection takes it for granted that nobody relies on anything."""
    with patch("cas.pins.Pins.quiet", lambda *_: True):
        yield


@contextmanager
def no_void_rule() -> Iterator[None]:
    """Nobody steps over a number of the journal that was reserved and never committed."""
    with ExitStack() as stack:
        stack.enter_context(patch("cas.disk.Cell.read", lambda _: 0))
        stack.enter_context(patch("cas.settle._highest_number", lambda *_: 0))
        yield


@contextmanager
def keys_alone() -> Iterator[None]:
    """A chunk is taken for another one of the same key, whatever its bytes and its salt."""
    alike = lambda stored, _: stored is not None  # noqa: E731 - the same for all of them
    with ExitStack() as stack:
        for where in ("cas.runs.same", "cas.alike.same", "cas.alike.same_memory", "cas.track.same_memory"):
            stack.enter_context(patch(where, alike))
        yield


# With the seed at which it is noticed, as far as threads let a seed say that.
PLANTED: Final[dict[Callable[[], AbstractContextManager[None]], int]] = {
    no_fsync: 1,
    commit_before_sync: 0,
    no_pins: 1,
    no_void_rule: 5,
    keys_alone: 3,
}
