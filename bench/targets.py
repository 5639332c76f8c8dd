"""What was set out to be reached, a row each: the one table of titles, bounds and whom a row is held against."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bench.measure import Row, ratios


@dataclass(frozen=True, slots=True)
class Target:
    """A bound on one figure of a row."""

    words: str
    figure: Callable[[Row], float | None]  # None where the run did not measure it
    bound: float
    most: bool = False  # whether the bound is the most it may be, or the least

    def met(self, row: Row) -> bool | None:
        """Say whether it is reached; None if it was not measured."""
        value = self.figure(row)
        return None if value is None else value <= self.bound if self.most else value >= self.bound


@dataclass(frozen=True, slots=True)
class Title:
    """A row as people read it, with its targets."""

    words: str
    targets: tuple[Target, ...] = ()


def faster(other: str, bound: float, figure: str = "rate") -> Target:
    """Our rate by theirs."""
    return Target(f"≥ {bound} × {other}", lambda row: ratios(row, figure).get(other), bound)


def cheaper(other: str, bound: float) -> Target:
    """Our CPU-seconds by theirs."""
    return Target(f"CPU ≤ {bound} × {other}", lambda row: ratios(row, "cpu_s").get(other), bound, most=True)


def noted(name: str, words: str, bound: float) -> Target:
    """A figure that the question noted, and the most that it may be."""
    return Target(words, lambda row: row.get("notes", {}).get(name), bound, most=True)


OLD, NEW = "docker-registry", "distribution"
_LARGE_PULL = (faster("nginx", 0.95), faster(OLD, 1.2), faster(NEW, 1.2), cheaper("nginx", 1.15))
_LARGE_PUSH = (faster(OLD, 3), faster("one core's SHA-256", 0.5))
_SMALL_PUSH = (faster(OLD, 1.5), faster(NEW, 1.5))
_SMALL_PULL = (faster(OLD, 1.5), faster(NEW, 1.5))
_BESIDE = (
    Target("p99 ≤ 1.5 × quiet", lambda row: ratios(row, "p99_ms").get("quiet"), 1.5, most=True),
    noted("p99_beside_gc", "beside gc alone ≤ 1.5", 1.5),
    noted("p99_beside_fsck", "beside fsck alone ≤ 1.5", 1.5),
    noted("p99_beside_scrub", "beside the scrub alone ≤ 1.5", 1.5),
)
_MANIFEST = (faster(OLD, 3), faster(NEW, 1.2), faster("zot", 1))

ROWS: Mapping[str, Title] = {
    "pull/large-1": Title("pull one large layer, 1 stream", _LARGE_PULL),
    "pull/large-4": Title("pull one large layer, 4 streams", _LARGE_PULL),
    "pull/large-16": Title("pull one large layer, 16 streams", _LARGE_PULL),
    "pull/cold": Title("pull one large layer that is on the disk alone"),
    "pull/1m": Title("pull 1 MiB blobs, 16 clients", _SMALL_PULL),
    "pull/64k": Title("pull 64 KiB blobs, 16 clients", _SMALL_PULL),
    "pull/scattered": Title("pull a layer scattered over many packs", (faster("contiguous", 0.6),)),
    "pull/zstd": Title("pull a layer kept as zstd", (faster("one core's zstd", 0.8),)),
    "pull/tls": Title("pull the large layer over TLS", (faster(OLD, 0.7), faster(NEW, 0.7))),
    "push/large-1": Title("push a large random layer, 1 stream", _LARGE_PUSH),
    "push/large-4": Title("push as much as 4 layers at once", _LARGE_PUSH),
    "push/large-patch": Title("push as docker does, PATCH in chunks", _LARGE_PUSH),
    "push/1m-1": Title("push 1 MiB blobs, 1 client", _SMALL_PUSH),
    "push/1m-4": Title("push 1 MiB blobs, 4 clients", _SMALL_PUSH),
    "push/1m-16": Title("push 1 MiB blobs, 16 clients", _SMALL_PUSH),
    "push/4k-1": Title("push 4 KiB blobs, 1 client", _SMALL_PUSH),
    "push/4k-4": Title("push 4 KiB blobs, 4 clients", _SMALL_PUSH),
    "push/4k-16": Title("push 4 KiB blobs, 16 clients", _SMALL_PUSH),
    "push/again": Title(
        "push again what is stored",
        (faster("new", 1), noted("share_written", "writes ≤ 0.001 of it", 0.001)),
    ),
    "manifest/get": Title("manifest GET by tag, 16 clients", _MANIFEST),
    "manifest/head": Title("manifest HEAD by tag, 16 clients", _MANIFEST),
    "manifest/words": Title("manifest GET by tag, each time in other words, 16 clients"),
    "manifest/token": Title("the same with a token, where people are told apart"),
    "list/tags": Title("first page of many tags", (faster("with 100", 0.5),)),
    "list/catalogue": Title("first page of a large catalogue", (faster("with 100", 0.5),)),
    "start/chunks": Title("start with many chunks, to the first answer", (faster("empty", 0.83),)),
    "memory/worker": Title(
        "memory of one worker, 16 pulls and 16 pushes at once",
        (noted("idle_mib", "≤ 96 MiB idle", 96), noted("added_mib", "+ ≤ 64 MiB", 64)),
    ),
    "growth/store": Title(
        "a store that fills: its last layers beside its first",
        (
            faster("young", 0.8),
            faster("young", 0.8, "pull_rate"),
            cheaper("young", 1.2),
            noted("index_bytes_a_chunk", "index ≤ 200 B a chunk", 200),
        ),
    ),
    "maintenance/pull-64k": Title("pull 64 KiB blobs beside gc, fsck and scrub", _BESIDE),
    "maintenance/pull-1m": Title("pull 1 MiB blobs beside gc, fsck and scrub", _BESIDE),
    "maintenance/manifest": Title("manifest GET beside gc, fsck and scrub", _BESIDE),
    "maintenance/push-64k": Title("push 64 KiB blobs beside gc, fsck and scrub", _BESIDE),
    "fsck/data": Title("check of all checksums"),
    "fsck/deep": Title("check of all keys and digests"),
    "fsck/rebuild": Title("index made anew from packs", (noted("s_a_million", "≤ 30 s a million chunks", 30),)),
    "mix/pull": Title("pulls as registries see them, 8 clients"),
}
