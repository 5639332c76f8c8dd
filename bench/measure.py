"""How a question is measured: the same load on each server in turn, several rounds, medians of what each round took.

Knows what a row of the results is. A row is a plain dictionary from here on: it goes to a file as JSON.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.corpus import Corpus
from bench.field import Runner, found
from bench.load import MIB, Job, Sample, drive
from tests.support.certificates import Authority

GIB = 1 << 30
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Scale:
    """How much a run does. `large` is the layer of the large rows; the rest follows from it."""

    name: str
    large: int
    rounds: int
    requests: int
    names: int
    chunks: int
    growth: int
    fill: int


SCALES = {
    scale.name: scale
    for scale in (
        Scale("tiny", 8 * MIB, 1, 64, 1_000, 10_000, 48 * MIB, 16 * MIB),
        Scale("short", 256 * MIB, 3, 2_000, 100_000, 1_000_000, 4 * GIB, 256 * MIB),
        Scale("full", GIB, 3, 8_000, 100_000, 1_000_000, 50 * GIB, GIB),
    )
}


@dataclass(frozen=True, slots=True)
class Run:
    """What every question is told."""

    scale: Scale
    folder: Path  # on the disk that is measured
    corpus: Corpus
    authority: Authority
    peers: tuple[str, ...]  # those that are here, and wanted

    def among(self, *wanted: str) -> list[str]:
        """Ours, and those of these peers that take part."""
        return ["cas", *(peer for peer in wanted if peer in self.peers)]


@dataclass(frozen=True, slots=True)
class Load:
    """One server's part of a row: who, and the jobs of one round (given the round's number)."""

    runner: Runner
    jobs: Callable[[int], Iterable[Job]]
    clients: int
    is_cold: bool = False  # whether its files are to leave the page cache before each turn


def same(jobs: Sequence[Job]) -> Callable[[int], Iterable[Job]]:
    """The same jobs in every round."""
    return lambda _: jobs


def compare(key: str, loads: list[Load], rounds: int, *, per: str, in_order: bool = False) -> Row:
    """Run the same load on every server, turn by turn; `per` is what rates and costs are counted in: GiB or 1,000.

    Another server begins each round, unless they are to go in order.
    """
    taken: dict[str, list[tuple[Sample, float]]] = {load.runner.name: [] for load in loads}
    peaks = {load.runner.name: 0.0 for load in loads}
    for number in range(rounds):
        first = 0 if in_order else number % len(loads)
        for load in loads[first:] + loads[:first]:
            jobs = list(load.jobs(number))
            os.sync()  # nobody pays for what another left to be written
            if load.is_cold:
                load.runner.forget_files()
            load.runner.forget_peak()
            before = load.runner.cpu_s()
            sample = drive(load.runner.address, load.clients, jobs)
            taken[load.runner.name].append((sample, load.runner.cpu_s() - before))
            peaks[load.runner.name] = max(peaks[load.runner.name], load.runner.peak_rss_mib())
    found_of = {
        load.runner.name: figures(taken[load.runner.name], per)
        | {"peak_rss_mib": round(peaks[load.runner.name], 1), "disk_bytes": load.runner.disk_bytes()}
        for load in loads
    }
    return {"key": key, "clients": loads[0].clients, "rounds": rounds, "per": per, "servers": found_of}


def figures(taken: Sequence[tuple[Sample, float]], per: str) -> dict[str, Any]:
    """What samples of one load come to, each with the CPU-seconds that it took the server."""
    by_bytes = per == "GiB"
    rates = [sample.mib_per_s if by_bytes else sample.jobs_per_s for sample, _ in taken]
    work = [sample.moved_bytes / GIB if by_bytes else len(sample.seconds) / 1000 for sample, _ in taken]
    seconds = sorted(1000 * each for sample, _ in taken for each in sample.seconds)
    return {
        "rate": round(statistics.median(rates), 2),
        "rates": [round(rate, 2) for rate in rates],
        "cpu_s": round(statistics.median(cpu / max(done, 1e-9) for (_, cpu), done in zip(taken, work, strict=True)), 4),
        "p50_ms": round(percentile(seconds, 0.50), 3),
        "p99_ms": round(percentile(seconds, 0.99), 3),
    }


def percentile(ordered: Sequence[float], share: float) -> float:
    """Give the value that this share of an ordered list does not exceed."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def limit(row: Row, name: str, rates: Sequence[float]) -> None:
    """Note what a bare part of the work can do on this machine, measured in the same run."""
    row["servers"][name] = {"rate": round(statistics.median(rates), 2), "rates": [round(rate, 2) for rate in rates]}


def ratios(row: Mapping[str, Any], figure: str) -> dict[str, float]:
    """Ours by each other's."""
    ours = row["servers"]["cas"].get(figure)
    others = {name: its.get(figure) for name, its in row["servers"].items() if name != "cas"}
    return {name: ours / its for name, its in others.items() if ours is not None and its}


def present(peers: Iterable[str]) -> tuple[str, ...]:
    """Those that this machine has."""
    return tuple(peer for peer in peers if found(peer))
