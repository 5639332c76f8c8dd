"""Counts what the index is asked to do, so that tests can gate on work where time would only tell of the machine."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any
from unittest.mock import patch

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
