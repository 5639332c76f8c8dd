"""Faults of the operating system, planted below the engine: the n-th call of a kind fails, once.

`cas.disk` calls the system through its `os`; while `FaultyCalls` stand in for that, the engine's own ways with half
writes, short reads and error numbers are what is tested. The index has its own files: a commit fails just before it.
"""

from __future__ import annotations

import errno
import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple
from unittest.mock import patch

import lmdb

from cas.environment import Transaction
from cas.store import Store


class Fault(NamedTuple):
    """What goes wrong: at which calls, and with which error number; 0 for a call that does less than it was told."""

    call: str
    error: int

    def __str__(self) -> str:
        return f"{self.call} {errno.errorcode.get(self.error, 'short')}"


FAULTS: Final = (
    Fault("write", errno.EIO),
    Fault("write", errno.ENOSPC),
    Fault("write", errno.EINTR),
    Fault("write", 0),
    Fault("read", errno.EIO),
    Fault("read", errno.EINTR),
    Fault("read", 0),
    Fault("sync", errno.EIO),
    Fault("sync", errno.ENOSPC),
    Fault("folder sync", errno.EIO),
    Fault("create", errno.EIO),
    Fault("create", errno.ENOSPC),
    Fault("truncate", errno.EIO),
    Fault("commit", errno.EIO),
)
Buffers = Sequence[bytes | bytearray | memoryview]


class FaultyCalls:
    """The module `os` for `cas.disk`: itself, but for one call."""

    def __init__(self, seed: int) -> None:
        self._dice, self._lock = random.Random(seed), threading.Lock()
        self._fault: Fault | None = None
        self._left = 0
        self.struck: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def plan(self, fault: Fault | None, after: int = 0) -> None:
        """Let the call after so many of its kind go wrong; or none."""
        with self._lock:
            self._fault, self._left = fault, after

    def _due(self, call: str) -> Fault | None:
        with self._lock:
            if self._fault is None or self._fault.call != call:
                return None
            self._left -= 1
            if self._left >= 0:
                return None
            fault, self._fault = self._fault, None
            self.struck[str(fault)] += 1
            return fault

    def _strike(self, call: str) -> None:
        fault = self._due(call)
        if fault is not None:
            raise OSError(fault.error, os.strerror(fault.error))

    def pwritev(self, fd: int, buffers: Buffers, offset: int) -> int:
        fault = self._due("write")
        if fault is None:
            return os.pwritev(fd, buffers, offset)
        data = b"".join(buffers)
        done = os.pwrite(fd, data[: self._dice.randint(1, max(len(data) - 1, 1))], offset)
        if fault.error:
            raise OSError(fault.error, os.strerror(fault.error))  # a part of it lies there
        return done

    def preadv(self, fd: int, buffers: Sequence[memoryview], offset: int) -> int:
        fault = self._due("read")
        if fault is None:
            return os.preadv(fd, buffers, offset)
        if fault.error:
            raise OSError(fault.error, os.strerror(fault.error))
        (buffer,) = buffers
        return os.preadv(fd, [buffer[: self._dice.randint(1, len(buffer))]], offset)

    def fdatasync(self, fd: int) -> None:
        self._strike("sync")
        os.fdatasync(fd)

    def fsync(self, fd: int) -> None:
        self._strike("folder sync")
        os.fsync(fd)

    def ftruncate(self, fd: int, size: int) -> None:
        self._strike("truncate")
        os.ftruncate(fd, size)

    def open(self, path: str | os.PathLike[str], flags: int, mode: int = 0o777) -> int:
        if flags & os.O_EXCL:
            self._strike("create")
        return os.open(path, flags, mode)

    def before_commit(self) -> None:
        """Fail as the index does when its disk fails."""
        fault = self._due("commit")
        if fault is not None:
            raise lmdb.Error(f"planted: {os.strerror(fault.error)}")

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Stand in for `os` in `cas.disk`."""
        with patch("cas.disk.os", self):
            yield


def before_commits(store: Store, act: Callable[[], None]) -> None:
    """Do something before each commit of a store's index, when everything else of the change is done."""
    environment = store._parts.index._env
    write = environment.write

    def acting(work: Callable[[Transaction], Any]) -> Any:
        def run(txn: Transaction) -> Any:
            result = work(txn)
            act()
            return result

        return write(run)

    environment.write = acting  # type: ignore[method-assign]
