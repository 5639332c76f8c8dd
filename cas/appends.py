"""The new bytes of one upload on their way into the pack that it has on loan.

Layer: L7. What was cut of one window is written while the next one is cut, and waits where the disk is still busy with
the one before: in order, since a pack grows at its end only. Knows no chunk and no recipe.
"""

from __future__ import annotations

import contextlib
from collections import deque
from concurrent.futures import wait
from typing import TYPE_CHECKING, Final

from cas.errors import CasError, Closed
from cas.threads import submit

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from cas.direct import Aligned
    from cas.packs import PackWriter
    from cas.parts import Parts
    from cas.records import Body

_AT_ONCE: Final = 2  # windows on their way: one that is written, one that waits for it


class Appends:
    """What an upload appends. For one thread at a time."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._writer: PackWriter | None = None
        self._kept = 0  # bytes of the lent pack that a record of ours, or somebody before us, stands on
        self._base = 0  # where in it the gathered bytes will lie
        self._last = 0  # where the last record will lie
        self._gathered: list[bytes | memoryview] = []
        self._size = 0
        self._under_way: deque[Future[int | None]] = deque()  # of a record, where it ends

    def lend(self) -> PackWriter:
        """Return the pack, which is lent when first needed; what was handed over may not have reached it yet."""
        if self._writer is None:
            self._writer = self._parts.packs.take()
            self._kept = self._base = self._writer.end
            self._last = self._writer.last_record
        return self._writer

    def gather(self, stored: bytes | memoryview) -> tuple[int, int]:
        """Take bytes to be appended; return in which pack they will lie, and where."""
        pack = self.lend().pack
        offset = self._base + self._size
        self._gathered.append(stored)
        self._size += len(stored)
        return pack, offset

    def hand_over(self, *, aside: bool, past_cache: bool) -> None:
        """Append what was gathered; nobody looks at it any more afterwards.

        Args:
            aside: whether the caller has something else to do meanwhile.
            past_cache: whether it is unlikely to be asked for soon.

        Raises:
            NoSpace, DiskFailed: it cannot be, or what was handed over before could not.
            Closed: the store was closed.
        """
        if not self._gathered:
            return
        self._parts.check_room(self._size)
        self._settle(but=_AT_ONCE - 1)
        window = None
        if aside or past_cache:
            window = self._parts.windows.take(self._gathered, self._base, wait=past_cache)
        if window is not None:
            self._append_aside(window, past_cache=past_cache)
        else:
            self.settle()
            self.lend().append(self._gathered, early=self._is_alone)
        self._base, self._size, self._gathered = self._base + self._size, 0, []

    def settle(self) -> None:
        """Wait until all that was handed over is in the pack.

        Raises:
            NoSpace, DiskFailed: some of it is not.
        """
        self._settle(but=0)

    def commit(self, body: Body) -> tuple[int, Future[int | None] | None]:
        """Append a record that stands on what was handed over, behind that.

        Returns:
            where it ends, and what to wait for before it is synced, if it is not in the pack already.
        """
        writer, at = self.lend(), self._base
        record = writer.encode(body, at, self._last)
        self._base, self._last = at + len(record), at
        if not self._under_way:
            self._kept = writer.append_record(record, at)
            return self._kept, None
        return self._base, self._submit(lambda: writer.append_record(record, at))

    def roll_back(self) -> None:
        """Take back what no record stands on, whatever became of it."""
        wait(self._under_way)
        with contextlib.suppress(CasError):
            self.settle()
        self._under_way.clear()  # behind what failed nothing was appended
        self._gathered, self._size, self._base = [], 0, self._kept
        if self._writer is not None:
            self._writer.roll_back(self._kept)
            self._last = self._writer.last_record

    def is_lent(self, writer: PackWriter) -> bool:
        """Whether this pack is the one on loan."""
        return writer is self._writer

    def change_packs(self) -> None:
        """Go on in another pack; whoever has this one gives it back.

        Raises:
            NoSpace, DiskFailed: not all that was handed over is in it.
        """
        self.settle()
        self._writer = None

    def release(self) -> None:
        """Give the pack back; nobody else gets it while a thread of ours is at it."""
        wait(self._under_way)
        self._under_way.clear()
        writer, self._writer = self._writer, None
        if writer is not None:
            self._parts.packs.give_back(writer)

    @property
    def _is_alone(self) -> bool:
        """Whether the disk would have nothing to do until these bytes are synced; beside others it has."""
        return not self._parts.spares.are_shared

    def _settle(self, *, but: int) -> None:
        while len(self._under_way) > but:
            end = self._under_way.popleft().result()
            self._kept = self._kept if end is None else end

    def _append_aside(self, window: Aligned, *, past_cache: bool) -> None:
        """Write a copy of what was gathered in another thread."""
        writer, early = self.lend(), self._is_alone

        def append() -> None:
            if past_cache:
                writer.append_direct(window)
            else:
                writer.append([window.bytes], early=early)

        try:
            future = self._submit(append)
        except Closed:
            self._parts.windows.give_back(window)
            raise
        future.add_done_callback(lambda _: self._parts.windows.give_back(window))

    def _submit(self, append: Callable[[], int | None]) -> Future[int | None]:
        """Have a thread append something after what is on its way; not if that fails."""
        before = self._under_way[-1] if self._under_way else None

        def run() -> int | None:
            if before is not None:
                before.result()  # it has begun before us, so it does not wait for our thread
            return append()

        future = submit(self._parts.appenders, run)
        self._under_way.append(future)
        return future
