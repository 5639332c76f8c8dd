"""The page of numbers beside what else its process does: who looks at the store for it, and how often."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest
from starlette.types import ASGIApp

from api import metrics
from api.counts import Counts, shared_memory
from cas import Stats, Store
from tests.wire.harness import PATIENCE_S, ask, serving

PAGE = "GET /metrics HTTP/1.1\nHost: a\nConnection: close"
NOWHERE = "GET / HTTP/1.1\nHost: a\nConnection: close"


@pytest.fixture
def page(store: Store) -> Iterator[ASGIApp]:
    fd = shared_memory(1)
    yield metrics.build(store, Counts(fd, 0), "1.2.3")
    os.close(fd)


def test_whoever_waits_for_the_store_keeps_nobody_else_waiting(
    page: ASGIApp, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop that serves requests goes on while a thread looks."""
    looking, go, stats = threading.Event(), threading.Event(), Store.stats

    def slow(of: Store) -> Stats:
        looking.set()
        assert go.wait(PATIENCE_S)
        return stats(of)

    monkeypatch.setattr(Store, "stats", slow)
    answers: list[bytes] = []
    with serving(page) as running:
        monitor = threading.Thread(target=lambda: answers.append(ask(running, PAGE)))
        monitor.start()
        assert looking.wait(PATIENCE_S)
        assert ask(running, NOWHERE).startswith(b"HTTP/1.1 404")
        assert not answers
        go.set()
        monitor.join(PATIENCE_S)
    assert b"\ncas_store_readable 1.0\n" in answers[0]
    assert b'version="1.2.3"' in answers[0]


def test_the_store_is_looked_at_once_in_a_while(page: ASGIApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many monitors come meanwhile."""
    looks, stats = list[Store](), Store.stats

    def look(of: Store) -> Stats:
        looks.append(of)
        return stats(of)

    monkeypatch.setattr(Store, "stats", look)
    with serving(page) as running:
        for _ in range(3):
            assert b"\ncas_blobs 0.0\n" in ask(running, PAGE)
        assert len(looks) == 1
        monkeypatch.setattr(metrics, "FRESH_S", 0.0)
        assert b"\ncas_blobs 0.0\n" in ask(running, PAGE)
        assert len(looks) == 2
