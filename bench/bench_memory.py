"""What a worker holds in memory: idle, and under sixteen pulls and sixteen pushes at once. Rows `memory/…`.

One worker, so that all transfers are its own. Resident sets are the kernel's high-water marks; pages of the index that
are mapped count, page cache does not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import partial

from bench.corpus import Noise
from bench.field import Field, status_kib
from bench.load import Connection, Job, Made, drive
from bench.measure import Row, Run, figures
from bench.registry import closing, give, opened

PULLS = 16
PUSHES = 16


def ask(run: Run) -> Iterator[Row]:
    """All 32 share one queue of 32 jobs, so each has one from the first moment on."""
    size = run.scale.large
    layer = run.corpus.noise(size)
    with Field(run.folder) as field:
        runner = field.start("cas", "--workers", "1")
        idle = peak_of_worker(runner.processes()[-1])
        pull = give(runner, layer)
        run.corpus.drop(layer)
        jobs: list[Job] = [pull] * PULLS + [partial(push_made, Noise(1000 + n), size) for n in range(PUSHES)]
        before = runner.cpu_s()
        sample = drive(runner.address, len(jobs), jobs)
        taken = figures([(sample, runner.cpu_s() - before)], "GiB") | {"disk_bytes": runner.disk_bytes()}
        busy = peak_of_worker(runner.processes()[-1])
    yield {
        "key": "memory/worker",
        "clients": PULLS + PUSHES,
        "rounds": 1,
        "per": "GiB",
        "servers": {"cas": taken | {"peak_rss_mib": busy}},
        "notes": {"idle_mib": idle, "added_mib": round(busy - idle, 1), "bytes_each": size},
    }


def push_made(noise: Noise, size: int, connection: Connection) -> int:
    """POST, PATCH of bytes made on the way, PUT with the digest that they turned out to have."""
    running = hashlib.sha256()

    def blocks() -> Iterator[bytes]:
        for block in noise.blocks(size):
            running.update(block)
            yield block

    sent = connection.ask("PATCH", opened(connection), Made(size, blocks()), Content_Type="application/octet-stream")
    assert sent.status == 202, sent.head
    digest = f"sha256:{running.hexdigest()}"
    done = connection.ask("PUT", closing(sent.header("location"), digest))
    assert done.status == 201, done.head
    return size


def peak_of_worker(pid: int) -> float:
    """MiB of the highest resident set that a process ever had."""
    return round(status_kib(pid, "VmHWM") / 1024, 1)
