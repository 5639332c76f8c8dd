"""Whether a store gets slower as it fills: layers pushed and pulled until it holds what it was to hold.

The row `growth/store`. Each layer is pulled twice, and the second time counts: what was pushed past the page cache
comes from the disk first.
"""

from __future__ import annotations

import json
import statistics
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from bench.field import Field, room_bytes
from bench.load import drive
from bench.measure import GIB, Row, Run
from bench.registry import REPOSITORY, pull, push_by_put
from tests.support.serving import CAS, clean_environment

_SPARE = 8 * GIB  # of the disk, for whoever else lives on it
_EDGE = 4  # layers at most that stand for the store's youth, and as many for its age


def ask(run: Run) -> Iterator[Row]:
    series: list[dict[str, float]] = []
    wanted = min(run.scale.growth, room_bytes(run.folder) - _SPARE) // run.scale.fill
    assert wanted > 1, "too little room for a store that grows: name another --dir"
    with Field(run.folder) as field:
        runner = field.start("cas")
        for number in range(1, wanted + 1):
            layer = run.corpus.noise(run.scale.fill)
            before = runner.cpu_s()
            pushed = drive(runner.address, 1, [partial(push_by_put, layer)])
            cpu_s = (runner.cpu_s() - before) * GIB / layer.size
            run.corpus.drop(layer)
            back = partial(pull, f"/v2/{REPOSITORY}/blobs/{layer.digest}", layer.size)
            _, pulled = (drive(runner.address, 1, [back]) for _ in range(2))
            series.append(
                {
                    "stored_gib": round(number * run.scale.fill / GIB, 3),
                    "push": round(pushed.mib_per_s, 1),
                    "pull": round(pulled.mib_per_s, 1),
                    "push_cpu_s": round(cpu_s, 3),
                }
            )
        held = stats(runner.data)
        whole = {"peak_rss_mib": round(runner.peak_rss_mib(), 1), "disk_bytes": runner.disk_bytes()}
    edge = min(_EDGE, len(series) // 2)
    edges = {"cas": series[-edge:], "young": series[:edge]}
    yield {
        "key": "growth/store",
        "clients": 1,
        "rounds": len(series),
        "per": "GiB",
        "servers": {
            name: {
                "rate": statistics.median(each["push"] for each in some),
                "pull_rate": statistics.median(each["pull"] for each in some),
                "cpu_s": statistics.median(each["push_cpu_s"] for each in some),
                **(whole if name == "cas" else {}),
            }
            for name, some in edges.items()
        },
        "notes": {
            "stored_gib": series[-1]["stored_gib"],
            "index_bytes_a_chunk": held["index_bytes"] // held["chunks"],
            "chunks": held["chunks"],
        },
        "series": series,
    }


def stats(root: Path) -> dict[str, Any]:
    """Ask `cas stats`, beside the running server."""
    command = [CAS, "stats", "--json", "--root", str(root)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True, env=clean_environment())
    content: dict[str, Any] = json.loads(answer.stdout)
    return content
