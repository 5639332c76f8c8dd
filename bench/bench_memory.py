"""The memory that 16 parallel pulls, and 16 parallel pushes, of 1 GiB each take from one worker.

The worker's resident set is sampled while they run; page cache that is only mapped is not in it. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.bench_push import MIB
from tests.support.serving import starting
from tests.v1client import Client, Layer


class Endless(Layer):
    """A layer made while it is sent: random enough, never on disk."""

    def __init__(self, name: str, mib: int) -> None:
        image = hashlib.sha256(name.encode()).hexdigest()
        super().__init__(image, json.dumps({"id": image}).encode(), b"")
        object.__setattr__(self, "mib", mib)
        object.__setattr__(self, "seed", os.urandom(MIB))

    def blocks(self) -> Iterator[bytes]:
        for number in range(self.mib):  # type: ignore[attr-defined]
            yield number.to_bytes(8, "big") + self.seed[number % 4096 :] + self.seed[: number % 4096 - 8]  # type: ignore[attr-defined]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--mib", type=int, default=1024)
    options.add_argument("--streams", type=int, default=16)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder, starting(Path(folder)) as start:
        server = start(Path(folder, "root"), workers=1)
        worker = server.pids()[-1]
        shared = Endless("shared", given.mib)
        push(server.port, shared, 0)
        idle = rss_mib(worker)
        pulls = peak(worker, given.streams, lambda _: pull(server.port, shared.id))
        pushes = peak(worker, given.streams, lambda n: push(server.port, Endless(f"own {n}", given.mib), n))
        row = {
            "streams": given.streams,
            "mib_each": given.mib,
            "idle_rss_mib": idle,
            "pulls_add_mib": round(pulls - idle, 1),
            "pushes_add_mib": round(pushes - idle, 1),
        }
        print(json.dumps(row), flush=True)
        server.stop()


def push(port: int, image: Layer, number: int) -> None:
    Client("127.0.0.1", port, timeout_s=600).push(f"bench/memory{number}", [image], ["latest"])


def pull(port: int, image: str) -> None:
    client = Client(
        "127.0.0.1",
        port,
        timeout_s=600,
    )
    client.endpoint = f"127.0.0.1:{port}"
    client.get_layer(image, lambda _: None)


def rss_mib(pid: int) -> float:
    return round(psutil.Process(pid).memory_info().rss / MIB, 1)


def peak(pid: int, streams: int, work: Callable[[int], None]) -> float:
    """Run `work` in parallel and return the highest resident set seen meanwhile."""
    highest, over = rss_mib(pid), threading.Event()

    def watch() -> None:
        nonlocal highest
        while not over.wait(0.02):
            highest = max(highest, rss_mib(pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(streams) as pool:
        list(pool.map(work, range(streams)))
    over.set()
    watcher.join()
    return highest


if __name__ == "__main__":
    main()
