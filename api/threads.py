"""The only crossing between the event loop, which awaits, and the engine, which blocks: one hop a block.

Knows how to hand a blocking step to a bounded pool and to be cancelled without leaving that step behind.
Refuses to know what the step does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Final, Generic, Protocol, TypeVar, TypeVarTuple, final

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
# Threads for long answers: two for each while those are few, and more would only be in the loop's way.
_LONG: Final = 8
# Threads for bodies on their way in: some hash and cut, which takes cores, and others wait for a sync, which does not.
_BODIES: Final = 16
# Bytes of a body that is as short as other requests: it is one step, most of which waits for the disk.
_SHORT_BODY_BYTES: Final = 64 * 1024


class Run(Protocol):
    """Runs a blocking call in a thread; what `Threads.run` is, and all that most callers need of it."""

    def __call__(self, step: Callable[[*Ts], T], /, *args: *Ts) -> Awaitable[T]: ...


@final
class Threads:
    """Bounded pools for the blocking calls of one application: what is short waits for nothing that is long."""

    def __init__(self, most: int, name: str = "engine") -> None:
        self._pool = ThreadPoolExecutor(most, thread_name_prefix=name)
        self._long = ThreadPoolExecutor(min(most, _LONG), thread_name_prefix=f"{name}-long")
        self._bodies = ThreadPoolExecutor(min(most, _BODIES), thread_name_prefix=f"{name}-body")

    async def run(self, step: Callable[[*Ts], T], /, *args: *Ts) -> T:
        """Run step(*args) in a thread.

        A cancelled caller gets its cancellation only when the step is over or was never begun: whoever cleans
        up after it then holds the step's objects alone.
        """
        return await self.begin(step, *args).result()

    def for_body(self, size: int | None) -> Run:
        """Return what runs the steps by which a body of so many bytes is taken, or of nobody knows how many.

        An empty one ends an upload that other requests brought, which is as long as that was.
        """
        return self.run if size and size <= _SHORT_BODY_BYTES else self.run_body

    async def run_body(self, step: Callable[[*Ts], T], /, *args: *Ts) -> T:
        """Do as `run` does with one of the steps by which a body is taken."""
        return await Begun(self._bodies.submit(step, *args)).result()

    def begin(self, step: Callable[[*Ts], T], /, *args: *Ts) -> Begun[T]:
        """Begin step(*args) in a thread; the caller goes on, and sees to its end."""
        return Begun(self._pool.submit(step, *args))

    def begin_long(self, step: Callable[[*Ts], T], /, *args: *Ts) -> Begun[T]:
        """Do as `begin` does with one of the many steps of a long answer."""
        return Begun(self._long.submit(step, *args))

    async def batches(self, items: Iterator[T], full: Callable[[list[T]], bool]) -> AsyncGenerator[list[T], None]:
        """Iterate over a blocking iterator a batch at a time: a batch ends when full(batch) says so.

        The next batch is made in a thread while the last one is used, never more than one. An iterator that raises in
        mid-batch still yields what came before it; the error comes with the next step.
        """
        source = _Batches(items, full)
        ahead = self._pool.submit(source.next)
        try:
            while batch := await asyncio.wrap_future(ahead):
                ahead = self._pool.submit(source.next)
                yield batch
        finally:
            if not ahead.cancel():
                await outlive(asyncio.wrap_future(ahead))

    def close(self) -> None:
        """End the threads; steps under way are waited for."""
        for pool in (self._pool, self._long, self._bodies):
            pool.shutdown()


@final
class Begun(Generic[T]):
    """A step that was begun in a thread. Whoever has it asks for its result once, or gives it up."""

    def __init__(self, job: Future[T]) -> None:
        loop = asyncio.get_running_loop()
        self._job, self._over = job, (over := loop.create_future())
        # asyncio's own way to wait for a thread takes two futures more, and half as much CPU again.
        job.add_done_callback(lambda _: _tell(loop, over))

    async def result(self) -> T:
        """Wait for the step and return what it returned; cancelled, give it up."""
        try:
            await self._over
        except asyncio.CancelledError:
            await self.give_up()
            raise
        return self._job.result()

    async def give_up(self) -> None:
        """Wait until the step is over, or see to it that it never begins."""
        if not self._job.cancel():
            await outlive(asyncio.wrap_future(self._job))


@final
class _Batches(Generic[T]):
    """Takes batches from an iterator; lives in whichever thread has the step."""

    def __init__(self, items: Iterator[T], full: Callable[[list[T]], bool]) -> None:
        self._items, self._full = items, full
        self._error: Exception | None = None

    def next(self) -> list[T]:
        if self._error is not None:
            raise self._error
        batch: list[T] = []
        try:
            for item in self._items:
                batch.append(item)
                if self._full(batch):
                    break
        except Exception as error:
            if not batch:
                raise
            self._error = error
        return batch


def _tell(loop: asyncio.AbstractEventLoop, over: asyncio.Future[None]) -> None:
    with suppress(RuntimeError):  # the loop is closed, and whoever waited is gone
        loop.call_soon_threadsafe(_settle, over)


def _settle(over: asyncio.Future[None]) -> None:
    if not over.done():
        over.set_result(None)


async def outlive(future: asyncio.Future[T]) -> None:
    """Wait until a future is done, whatever comes of it and however often the waiter is cancelled."""
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            continue
    if not future.cancelled():
        future.exception()  # looked at, so that nobody reports it as forgotten
