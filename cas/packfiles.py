"""Packs open for reading, the least recently used ones closed first, never while somebody reads.

Layer: L3. The lock is held for bookkeeping alone: files are opened and closed outside of it, so to borrow a pack that
is open, and to give one back, never waits for a disk.
"""

from __future__ import annotations

import errno
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cas.errors import Damaged
from cas.finding import REPAIR
from cas.records import HEADER_SIZE, decode_header

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cas.disk import Disk
    from cas.layout import Layout


@dataclass(slots=True)
class _Open:
    fd: int
    users: int = 0
    is_gone: bool = False  # its file has no name any more: closed by its last reader


class PackFiles:
    """The packs that one process has open for reading."""

    def __init__(self, disk: Disk, layout: Layout, limit: int, doubt: Callable[[Iterable[int]], object]) -> None:
        """Begin.

        Args:
            disk, layout: of the store.
            limit: how many packs to keep open.
            doubt: to be told packs in which whoever reads sees damage; returns at once.
        """
        self._disk, self._layout, self._limit = disk, layout, limit
        self.doubt = doubt
        self._open: OrderedDict[int, _Open] = OrderedDict()
        self._lock = threading.RLock()  # a blob may be forgotten, and give its packs back, at any moment on any thread

    def acquire(self, pack: int) -> int:
        """Return a descriptor of a pack, to be given back with `release`.

        Raises:
            FileNotFoundError: the pack moved or was quarantined, or its file is another pack; resolve the chunks again.
        """
        fd = self.borrow(pack)
        return self._opened(pack) if fd is None else fd

    def borrow(self, pack: int) -> int | None:
        """Return a descriptor as `acquire` does if the pack is open already, without waiting; None if it is not."""
        with self._lock:
            entry = self._open.get(pack)
            if entry is None:
                return None
            entry.users += 1
            self._open.move_to_end(pack)
            return entry.fd

    def _opened(self, pack: int) -> int:
        fd = self._disk.open_read(path := self._layout.pack(pack))
        try:
            if not self._is_it(pack, fd):
                raise FileNotFoundError(errno.ENOENT, "another pack stands in its place", str(path))
        except BaseException:
            self._disk.close(fd)
            raise
        with self._lock:
            entry = self._open.setdefault(pack, _Open(fd))
            entry.users += 1
            surplus = [fd] if entry.fd != fd else []  # somebody was faster
            surplus += self._surplus()
        self._close(surplus)
        return entry.fd

    def _is_it(self, pack: int, fd: int) -> bool:
        """Tell whether a file is the pack that its name says, or does not say itself that it is another one.

        Files may be moved by hand, or by a filesystem that was repaired. Raw bytes go out as they lie there.
        """
        head = bytearray(HEADER_SIZE)
        self._disk.read_into(fd, memoryview(head), 0)
        header = decode_header(bytes(head))
        return header is None or header.pack == pack

    def release(self, pack: int) -> None:
        """Give a descriptor back. What is open beyond the limit is closed when the next pack is opened."""
        with self._lock:
            entry = self._open[pack]
            entry.users -= 1
            surplus = [] if self._limit else self._surplus()
            if entry.is_gone and not entry.users and pack in self._open:
                surplus.append(self._open.pop(pack).fd)
        self._close(surplus)

    def read(self, pack: int, offset: int, size: int) -> bytearray:
        """Read stored bytes of a pack.

        Raises:
            FileNotFoundError: the pack is gone.
            Damaged: the pack ends too early.
        """
        data = bytearray(size)
        with memoryview(data) as view:
            self.read_into(pack, offset, view)
        return data

    def read_into(self, pack: int, offset: int, memory: memoryview) -> None:
        """Fill memory with stored bytes of a pack.

        Raises:
            FileNotFoundError: the pack is gone.
            Damaged: the pack ends too early.
        """
        fd = self.acquire(pack)
        try:
            done = self._disk.read_into(fd, memory, offset)
        finally:
            self.release(pack)
        if done != len(memory):
            raise Damaged(f"pack {pack:016x} ends before byte {offset + len(memory)}; {REPAIR}")

    def forget_unlinked(self) -> None:
        """Close packs whose file is gone, one that is read after its last reader: only then is their space free."""
        with self._lock:
            packs = list(self._open)
        gone = [pack for pack in packs if not self._layout.pack(pack).exists()]
        with self._lock:
            still = [pack for pack in gone if pack in self._open]
            for pack in still:
                self._open[pack].is_gone = True
            surplus = [self._open.pop(pack).fd for pack in still if not self._open[pack].users]
        self._close(surplus)

    def close(self) -> None:
        """Close all files that nobody is reading, and from now on each when its last reader gives it back."""
        with self._lock:
            self._limit = 0
            surplus = self._surplus()
        self._close(surplus)

    def _surplus(self) -> list[int]:
        """Take out of the books what is open beyond the limit."""
        idle = [pack for pack, entry in list(self._open.items()) if not entry.users]
        return [self._open.pop(pack).fd for pack in idle[: max(0, len(self._open) - self._limit)]]

    def _close(self, descriptors: Iterable[int]) -> None:
        for fd in descriptors:
            self._disk.close(fd)
