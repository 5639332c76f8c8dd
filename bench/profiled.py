"""Where the event loop's time goes: `python -m bench.profiled get|blob|push|push-1m`.

A server in this process, its loop under cProfile, and the clients in another. Threads of the engine are not seen, so
what is told is the price of HTTP; counts of calls divided by requests are exact, times are larger than in real life.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import os
import pstats
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from api.access.settings import AccessSettings
from api.app import build
from api.config import HttpSettings
from api.server import serve
from bench.corpus import Corpus, corpus
from bench.field import Runner
from bench.load import MIB, Address, Job, drive
from bench.registry import REPOSITORY, give, give_image, pull, push_by_put
from cas import Store

CLIENTS = 8
REQUESTS = 3000
LINES = 30
WORK = ("get", "blob", "push", "push-1m")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("work", choices=WORK)
    options.add_argument("--client", type=int, metavar="PORT", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.client:
        client(given.client, given.work)
        return
    with TemporaryDirectory() as folder, Store.open(Path(folder) / "root", create=True) as store:
        profile, before = cProfile.Profile(), time.process_time()
        with profile:
            asyncio.run(served(store, given.work))
        print(f"CPU-seconds of all threads: {time.process_time() - before:.2f}")
        pstats.Stats(profile).sort_stats("tottime").print_stats(LINES)


async def served(store: Store, work: str) -> None:
    """Serve until the clients are done."""
    http, stop, loop = HttpSettings(), asyncio.Event(), asyncio.get_running_loop()
    app = build(store, http, access=AccessSettings(), clock=time.time)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        command = [sys.executable, "-m", "bench.profiled", work, "--client", str(listening.getsockname()[1])]

        def ask() -> None:
            subprocess.run(command, cwd=Path(__file__).parents[1], check=False, env=dict(os.environ))
            loop.call_soon_threadsafe(stop.set)

        await serve(app, [listening], http, stop=stop, on_ready=threading.Thread(target=ask).start, moment=store.moment)


def client(port: int, work: str) -> None:
    """Make the requests, and say how many there were."""
    runner = Runner("cas", Address(port), Path(), list)
    with corpus() as made:
        sample = drive(runner.address, CLIENTS, jobs(runner, made, work))
    print(f"{len(sample.seconds)} times {work}", flush=True)


def jobs(runner: Runner, made: Corpus, work: str) -> list[Job]:
    if work.startswith("push"):
        size, count = (MIB, 200) if work == "push-1m" else (4096, REQUESTS // 3)
        return [partial(push_by_put, blob) for blob in made.many(count, size)]
    blobs = made.many(7, 4096)
    blob, *_ = [give(runner, each) for each in blobs]
    size = give_image(runner, blobs[0], blobs[1:], "v1")
    return [partial(pull, f"/v2/{REPOSITORY}/manifests/v1", size) if work == "get" else blob] * REQUESTS


if __name__ == "__main__":
    main()
