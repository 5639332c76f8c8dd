"""Counts what a server asks of the index and of threads, so that tests gate on work: time would tell of the machine."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any
from unittest.mock import patch

from api.threads import Threads
from cas.environment import Cursor, Environment, Transaction


@dataclass
class IndexWork:
    """Calls of one process so far: transactions of both kinds, and what was done within them."""

    reads: int = 0
    writes: int = 0
    look_ups: int = 0
    changes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, name: str) -> None:
        with self._lock:
            setattr(self, name, getattr(self, name) + 1)


_COUNTED: dict[type, dict[str, str]] = {
    Environment: {"read": "reads", "read_now": "reads", "write": "writes"},
    Transaction: {
        "get": "look_ups",
        "values": "look_ups",
        "count": "look_ups",
        "put": "changes",
        "add": "changes",
        "delete": "changes",
    },
    Cursor: {"seek": "look_ups", "last": "look_ups", "delete": "changes"},
}


@contextmanager
def counted_index() -> Iterator[IndexWork]:
    """Count, in every store of this process, until left."""
    work, patches = IndexWork(), []
    for kind, verbs in _COUNTED.items():
        for verb, what in verbs.items():
            patches.append(patch.object(kind, verb, _counting(getattr(kind, verb), what, work)))
    for each in patches:
        each.start()
    try:
        yield work
    finally:
        for each in reversed(patches):
            each.stop()


def _counting(verb: Callable[..., Any], what: str, work: IndexWork) -> Callable[..., Any]:
    @wraps(verb)
    def counted(*arguments: Any, **named: Any) -> Any:
        work.note(what)
        return verb(*arguments, **named)

    return counted


@contextmanager
def counted_crossings() -> Iterator[list[str]]:
    """Name the steps that the event loop has threads do, of every application of this process, until left."""
    names = list[str]()

    def counting(run: Callable[..., Any]) -> Callable[..., Any]:
        async def counted(self: Threads, step: Callable[..., Any], *args: Any) -> Any:
            names.append(step.__name__)
            return await run(self, step, *args)

        return counted

    with (
        patch.object(Threads, "run", counting(Threads.run)),
        patch.object(Threads, "run_body", counting(Threads.run_body)),
    ):
        yield names
