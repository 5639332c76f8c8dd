"""The page of numbers that a monitor reads: what all workers counted, and how the store is.

In the format of Prometheus, which the library knows. Nothing in it is a word of a client's. The store's numbers are
looked up in a thread and kept for some seconds, since that takes longer the more packs there are. Refuses to know where
the page is served; to serve it apart from the registry is for `tools/` to see to.
"""

from __future__ import annotations

import platform
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from itertools import accumulate
from typing import Final, final

from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp

from api import maintenance
from api.counts import BOUNDS_S, Counts, Sum
from api.threads import Threads
from cas import CasError, Stats, Store

PATH: Final = "/metrics"
FRESH_S: Final = 10.0  # a look at the store is 23 µs a pack (measured), and monitors come every 15 s or so
_KIND: Final = ("protocol", "method")
_FOLDERS: Final = ("packs", "index")
_READABLE: Final = ("cas_store_readable", "Whether the numbers of the store could be read.")
_GAUGES: Final[tuple[tuple[str, str, Callable[[Stats], int]], ...]] = (
    ("cas_pushed_bytes", "What clients sent of all that is stored.", lambda of: of.logical_bytes),
    ("cas_packs", "Files that data lies in.", lambda of: of.packs),
    ("cas_unchecked_packs", "Packs that nobody read through since they were written.", lambda of: of.unchecked_packs),
    ("cas_doubted_packs", "Packs seen damaged, or missing, until looked into and mended.", lambda of: of.doubted),
    ("cas_blobs", "Blobs that are stored.", lambda of: of.blobs),
    ("cas_lost_blobs", "Blobs found damaged, until they are pushed again.", lambda of: of.lost),
    ("cas_chunks", "Pieces that blobs consist of.", lambda of: of.chunks),
    ("cas_names", "Repositories, tags and images.", lambda of: of.names),
)


def build(store: Store, counts: Counts, version: str) -> ASGIApp:
    """Make the application that gives the page, and refuses everything else."""
    threads, numbers = Threads(1, "metrics"), Numbers(store, counts, version)

    async def show(_: Request) -> Response:
        page = await threads.run(generate_latest, numbers)
        return Response(page, headers={"Content-Type": CONTENT_TYPE_LATEST})

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        yield
        threads.close()

    return Router([Route(PATH, show)], redirect_slashes=False, lifespan=lifespan)


@final
class Numbers(Collector):
    """Everything on the page. Not safe for two threads."""

    def __init__(self, store: Store, counts: Counts, version: str) -> None:
        self._store, self._counts = store, counts
        self._version = {"version": version, "python": platform.python_version()}
        self._looked_s, self._seen = -FRESH_S, list[Metric]()

    def collect(self) -> Iterable[Metric]:
        """Give all families of numbers as they are now."""
        yield InfoMetricFamily("cas_build", "What is running.", self._version)
        yield from _traffic(self._counts.sums())
        if time.monotonic() - self._looked_s >= FRESH_S:
            self._seen = list(_state(self._store))
            self._looked_s = time.monotonic()
        yield from self._seen


def _traffic(sums: Iterable[Sum]) -> Iterator[Metric]:
    """Make families of what was counted: of every kind of request, and of statuses those that were given."""
    requests = CounterMetricFamily("cas_requests", "Requests that are over, by status.", labels=[*_KIND, "code"])
    took = HistogramMetricFamily(
        "cas_request_duration_seconds", "From a request's head to the end of its answer.", labels=_KIND
    )
    sent = CounterMetricFamily("cas_sent_bytes", "Of answers' bodies, once these ended.", labels=_KIND)
    received = CounterMetricFamily("cas_received_bytes", "Of requests' bodies, once answered.", labels=_KIND)
    under_way = GaugeMetricFamily("cas_requests_in_progress", "Requests under way.", labels=_KIND)
    for each in sums:
        kind = [each.protocol, each.method]
        for status, count in each.answers.items():
            if count:
                requests.add_metric([*kind, str(status)], count)
        kept_to = zip([*map(str, BOUNDS_S), "+Inf"], accumulate(each.durations), strict=True)
        took.add_metric(kind, list(kept_to), each.took_s)
        sent.add_metric(kind, each.sent_bytes)
        received.add_metric(kind, each.received_bytes)
        under_way.add_metric(kind, each.under_way)
    return iter((requests, took, sent, received, under_way))


def _state(store: Store) -> Iterator[Metric]:
    """Make families of how the store is; where it cannot be read, of that alone."""
    try:
        stats, free, collected = store.stats(), store.free_bytes(), maintenance.last_run(store)
    except (CasError, OSError):
        yield _gauge(*_READABLE, 0)
        return
    yield _gauge(*_READABLE, 1)
    for name, said, of in _GAUGES:
        yield _gauge(name, said, of(stats))
    yield _by_folder("cas_stored_bytes", "What the store takes on disk.", (stats.pack_bytes, stats.index_bytes))
    yield _by_folder("cas_disk_free_bytes", "Free on the disk of a folder.", free)
    if stats.checked:
        yield _gauge(
            "cas_checked_timestamp_seconds", "After this every pack was written or read through.", stats.checked
        )
    if collected is not None:
        yield _gauge("cas_collected_timestamp_seconds", "When the last collection ended.", collected)


def _gauge(name: str, said: str, value: int) -> Metric:
    return GaugeMetricFamily(name, said, value)


def _by_folder(name: str, said: str, values: tuple[int, int]) -> Metric:
    found = GaugeMetricFamily(name, said, labels=["folder"])
    for folder, value in zip(_FOLDERS, values, strict=True):
        found.add_metric([folder], value)
    return found
