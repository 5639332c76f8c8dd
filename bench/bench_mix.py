"""A day at a registry: many small requests, most bytes in large layers, a few of everything popular.

Published traces of large registries look so: two thirds of the requests are for less than 1 MB, and 95 % of the bytes
lie in blobs beyond 10 MB. The row `mix/pull`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from bench.field import REGISTRIES, Field
from bench.load import MIB, Job
from bench.measure import Load, Row, Run, compare, same
from bench.registry import give

CLIENTS = 8
SHARES = {"small": 0.66, "middle": 0.20, "large": 0.14}  # of the requests


def ask(run: Run) -> Iterator[Row]:
    sizes = {
        "small": [2048, 4096, 8192, 16_384, 32_768, 65_536, 131_072, 262_144, 524_288] * 4,
        "middle": [2 * MIB, 3 * MIB, 4 * MIB, 6 * MIB, 8 * MIB],
        "large": [max(MIB, run.scale.large // part) for part in (32, 20, 16, 12, 8, 5)],
    }
    blobs = {name: [run.corpus.noise(size) for size in some] for name, some in sizes.items()}
    with Field(run.folder) as field:
        loads = []
        for runner in map(field.start, run.among(*REGISTRIES)):
            jobs = {name: [give(runner, blob) for blob in some] for name, some in blobs.items()}
            wanted = choose(jobs, max(32, run.scale.requests // 20))
            loads.append(Load(runner, same(wanted), CLIENTS))
        yield compare("mix/pull", loads, run.scale.rounds, per="GiB")
    run.corpus.drop(*(blob for some in blobs.values() for blob in some))


def choose(jobs: dict[str, list[Job]], count: int) -> list[Job]:
    """Draw requests: a class by its share, and in it the n-th blob 1/n as often as the first."""
    dice, wanted = random.Random(1), []
    for name in dice.choices(list(SHARES), list(SHARES.values()), k=count):
        weights = [1 / rank for rank in range(1, len(jobs[name]) + 1)]
        wanted += dice.choices(jobs[name], weights)
    return wanted
