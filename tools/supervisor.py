"""Keeps N workers alive, and ends them when told: knows processes and signals, nothing of stores or HTTP.

Layer: tools. One thread, one selector. Workers are fresh interpreters (never forks: an open index must not
cross one) that inherit the listening sockets. Each holds the read end of a pipe whose write end lives here,
so that a supervisor that dies of anything at all takes its workers along, gracefully.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from api.counts import Places
from api.evenly import Balance, shared_memory
from tools.errors import WorkerFailed
from tools.order import READY, Order

STOP_SIGNALS: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
# A terminal sends these to everybody in front of it; what they mean to a worker is decided here.
FOR_US: Final = frozenset({signal.SIGINT, signal.SIGHUP})
HEALTHY_S: Final = 10.0  # a worker that lived this long did not die of starting
FIRST_DELAY_S: Final = 0.1
MOST_DELAY_S: Final = 10.0
KILL_AFTER_S: Final = 5.0  # beyond the grace that workers give their transfers: closing the store takes a moment
# The C library gives each busy thread a heap of its own and never evens them out; two are enough for two dozen
# threads that share one interpreter, and keep a worker's memory in bounds (10 MiB less with 16 uploads). It also gives
# pieces of half a MiB back to the kernel each time they are free, in some runs 200 pages a MiB that is decoded; to
# have them again can cost nearly as much as decoding. What a worker holds at most is the same.
_THRIFTY: Final = {
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_TRIM_THRESHOLD_": str(32 << 20),
    "MALLOC_MMAP_THRESHOLD_": str(8 << 20),
}
logger = logging.getLogger("cas.supervisor")


def restart_delay_s(quick_deaths: int) -> float:
    """At once after an accident, later and later for one that dies whenever it starts."""
    doublings = min(quick_deaths - 1, 16)  # past the longest delay anyhow; a power without end overflows
    return 0.0 if quick_deaths == 0 else min(MOST_DELAY_S, FIRST_DELAY_S * 2**doublings)


class Slot:
    """The place of one worker; the process in it changes."""

    def __init__(self, number: int, order: Order) -> None:
        self.number, self._order = number, order
        self.process: subprocess.Popen[bytes] | None = None
        self.ready = False
        self.due = 0.0  # when to start the next process, while there is none
        self._started = 0.0
        self._quick_deaths = 0

    def start(self) -> None:
        # -P: a folder named tools/ where the operator stands must not become ours.
        command = [sys.executable, "-P", "-m", "tools.worker"]
        with _blocked(FOR_US):
            self.process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=self._order.inherited,
                bufsize=0,
                env={**_THRIFTY, **os.environ},
            )
        self.ready, self._started = False, time.monotonic()
        assert self.process.stdin is not None, "asked for above"
        with contextlib.suppress(BrokenPipeError):  # it died already; reaping tells how
            self.process.stdin.write(self._order.to_line())

    def bury(self) -> None:
        """Let go of a process that ended, and say when the next one is due."""
        assert self.process is not None
        if time.monotonic() - self._started >= HEALTHY_S:
            self._quick_deaths = 0
        self.postpone()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        self.process = None

    def postpone(self) -> None:
        """Say when to try next: at once the first time, which may be an accident; repetition is a pattern."""
        self.due = time.monotonic() + restart_delay_s(self._quick_deaths)
        self._quick_deaths += 1

    def renew(self) -> None:
        """Make the worker look at its certificate now; whatever it hears by this pipe means that."""
        if self.process is not None and self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.write(b"\n")

    def send(self, signum: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(signum)


class Supervisor:
    """Runs workers until a stop signal; raises WorkerFailed if they cannot even start.

    `on_ready` is called once every worker can answer; `on_stop` when no more is to be taken on.
    """

    def __init__(
        self, order: Order, workers: int, *, on_ready: Callable[[], object], on_stop: Callable[[], object]
    ) -> None:
        self._grace_s = order.http.grace_s
        # Where there are files to be read again, a hang-up asks for that; else it is a terminal that closed.
        self._stops = STOP_SIGNALS if order.tls is None else STOP_SIGNALS - {signal.SIGHUP}
        self._memory = shared_memory(workers)
        self._balance = Balance(self._memory)
        self._counted = None if order.counts is None else Places(order.counts)
        self._slots = [Slot(place + 1, replace(order, place=place, balance=self._memory)) for place in range(workers)]
        self._on_ready, self._on_stop = on_ready, on_stop
        self._announced = False
        self._selector = selectors.DefaultSelector()

    def run(self) -> None:
        with self._selector, _signals() as wakeup:
            self._selector.register(wakeup, selectors.EVENT_READ)
            try:
                for slot in self._slots:
                    self._start(slot)
                while not self._wait(wakeup, self._until_due_s()):
                    self._keep_alive()
            finally:
                self._stop(wakeup)
                os.close(self._memory)

    def _start(self, slot: Slot) -> None:
        try:
            slot.start()
        except OSError as error:  # no memory, no descriptor, no process to be had
            if not self._announced:
                raise
            slot.postpone()
            logger.warning("worker %d cannot be started (%s) and will be tried again", slot.number, error.strerror)
            return
        assert slot.process is not None
        assert slot.process.stdout is not None
        self._selector.register(slot.process.stdout, selectors.EVENT_READ, slot)
        logger.info("worker %d started as process %d", slot.number, slot.process.pid)

    def _wait(self, wakeup: socket.socket, timeout_s: float | None) -> bool:
        """Wait for news; True when told to stop."""
        told: set[int] = set()
        for key, _ in self._selector.select(timeout_s):
            if isinstance(key.data, Slot):
                self._hear(key)
            else:
                told |= set(wakeup.recv(4096))
        stops = not self._stops.isdisjoint(told)
        if signal.SIGHUP in told and not stops:
            for slot in self._slots:
                slot.renew()
        return stops

    def _hear(self, key: selectors.SelectorKey) -> None:
        said = os.read(key.fd, 4096)
        if not said:
            self._selector.unregister(key.fileobj)
        elif said.startswith(READY):
            key.data.ready = True
            if not self._announced and all(slot.ready for slot in self._slots):
                self._announced = True
                self._on_ready()

    def _keep_alive(self) -> None:
        for slot in self._slots:
            status = self._reap(slot)
            if status is None:
                pass
            elif not self._announced:
                raise WorkerFailed(status if status > 0 else 70)
            else:
                logger.warning("worker %d %s; another takes its place", slot.number, how(status))
            if slot.process is None and slot.due <= time.monotonic():
                self._start(slot)

    def _reap(self, slot: Slot) -> int | None:
        """Give the exit status of a worker that ended. One look decides: it may end between two."""
        if slot.process is None or (status := slot.process.poll()) is None:
            return None
        assert slot.process.stdout is not None
        with contextlib.suppress(KeyError):  # its end of file was heard first
            self._selector.unregister(slot.process.stdout)
        slot.bury()
        self._balance.forget(slot.number - 1)
        if self._counted is not None:
            self._counted.forget(slot.number - 1)
        return status

    def _until_due_s(self) -> float | None:
        waiting = [slot.due for slot in self._slots if slot.process is None]
        return max(0.0, min(waiting) - time.monotonic()) if waiting else None

    def _stop(self, wakeup: socket.socket) -> None:
        """End every worker: gracefully within the grace, at once after it or when told a second time."""
        self._announced = True  # too late to say that we serve
        self._on_stop()
        for slot in self._slots:
            slot.send(signal.SIGTERM)
        deadline = time.monotonic() + self._grace_s + KILL_AFTER_S
        patient = True
        while any(slot.process is not None for slot in self._slots):
            hurried = self._wait(wakeup, max(0.0, deadline - time.monotonic()) if patient else None)
            if patient and (hurried or time.monotonic() >= deadline):
                patient = False
                logger.warning("transfers under way are cut")
                for slot in self._slots:
                    slot.send(signal.SIGKILL)
            for slot in self._slots:
                self._reap(slot)


def how(status: int) -> str:
    """Put a process's exit status in words."""
    if status >= 0:
        return f"ended with exit code {status}"
    known = {each.value: each.name for each in signal.Signals}
    return f"was killed by {known.get(-status, f'signal {-status}')}"


@contextlib.contextmanager
def _blocked(signals: frozenset[signal.Signals]) -> Iterator[None]:
    """Hold signals back for a moment; a process born in it never gets them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _signals() -> Iterator[socket.socket]:
    """Turn signals into bytes on a socket, so that the selector is the only place that waits."""
    ours = {*STOP_SIGNALS, signal.SIGCHLD}
    # Under nohup a hang-up is ignored already, and stays so.
    ours -= {signum for signum in ours if signal.getsignal(signum) is signal.SIG_IGN}
    reader, writer = socket.socketpair()
    with reader, writer:
        reader.settimeout(0)
        writer.settimeout(0)
        before = {signum: signal.signal(signum, lambda *_: None) for signum in ours}
        fd = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        try:
            yield reader
        finally:
            signal.set_wakeup_fd(fd)
            for signum, handler in before.items():
                signal.signal(signum, handler)
