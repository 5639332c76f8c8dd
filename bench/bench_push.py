"""What a push costs: large layers, small blobs, and what is there already. Rows named `push/…`.

Ours is durable when it answers; the peers leave what they took to the page cache. Every round sends new bytes, the same
to all.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from bench.corpus import Blob
from bench.field import REGISTRIES, Field
from bench.load import MIB, Connection, Job
from bench.measure import Load, Row, Run, compare, limit
from bench.registry import push_by_patch, push_by_put

Push = Callable[[Blob, Connection], int]
LARGE = {
    "large-1": (1, push_by_put),
    "large-4": (4, push_by_put),
    "large-patch": (1, push_by_patch),
}
SMALL = {"1m": (MIB, 8), "4k": (4096, 32)}  # its size, and how many of them each client pushes
CLIENTS = (1, 4, 16)
_SYNC_EVERY = 32 * MIB


def ask(run: Run) -> Iterator[Row]:
    for name, (clients, push) in LARGE.items():
        yield large(run, name, clients, push)
    for name, (size, each) in SMALL.items():
        for clients in CLIENTS:
            yield small(run, f"push/{name}-{clients}", size, clients, each)
    yield again(run)


def large(run: Run, name: str, clients: int, push: Push) -> Row:
    """One new layer, or four at once of a quarter each; beside one core's SHA-256 and a bare durable write of it."""
    rounds = [
        [run.corpus.noise(run.scale.large // clients) for _ in range(clients)] for _ in range(min(run.scale.rounds, 3))
    ]
    with Field(run.folder) as field:
        row = compare(f"push/{name}", pushing(run, field, rounds, clients, push), len(rounds), per="GiB")
    limit(row, "one core's SHA-256", [hashing(layers[0]) for layers in rounds])
    limit(row, "bare durable write", [writing(run.folder / "bare", layers[0]) for layers in rounds])
    run.corpus.drop(*(layer for layers in rounds for layer in layers))
    return row


def small(run: Run, key: str, size: int, clients: int, each: int) -> Row:
    """New blobs of one size, a few of them a client."""
    factor = 1 if run.scale.name == "tiny" else 4
    rounds = [run.corpus.many(clients * each * factor, size) for _ in range(run.scale.rounds)]
    with Field(run.folder) as field:
        row = compare(key, pushing(run, field, rounds, clients, push_by_put), len(rounds), per="1,000")
    run.corpus.drop(*(blob for blobs in rounds for blob in blobs))
    return row


def again(run: Run) -> Row:
    """A layer pushed as new, and at once again, so that what it is sent from is as warm: `new`, then `cas`."""
    with Field(run.folder) as field:
        runner, layers, held = field.start("cas"), list[Blob](), list[int]()

        def new(_number: int) -> Iterator[Job]:
            layers.append(run.corpus.noise(run.scale.large))
            yield partial(push_by_put, layers[-1])

        def once_more(number: int) -> Iterator[Job]:
            held.append(runner.disk_bytes())
            yield partial(push_by_put, layers[number])

        loads = [Load(runner.called("new"), new, 1), Load(runner, once_more, 1)]
        row = compare("push/again", loads, min(run.scale.rounds, 3), per="GiB", in_order=True)
        held.append(runner.disk_bytes())
        written = held[-1] - held[0] - sum(layer.size for layer in layers[1:])
        row["notes"] = {"share_written": round(written / sum(layer.size for layer in layers), 6)}
    run.corpus.drop(*layers)
    return row


def pushing(run: Run, field: Field, rounds: list[list[Blob]], clients: int, push: Push) -> list[Load]:
    def jobs(number: int) -> list[Job]:
        return [partial(push, blob) for blob in rounds[number]]

    return [Load(runner, jobs, clients) for runner in map(field.start, run.among(*REGISTRIES))]


def hashing(blob: Blob) -> float:
    """MiB/s of hashing a file that is in memory."""
    began, running, buffer = time.perf_counter(), hashlib.sha256(), bytearray(MIB)
    with blob.content.file.open("rb", buffering=0) as file:
        while got := file.readinto(buffer):
            running.update(memoryview(buffer)[:got])
    return blob.size / MIB / (time.perf_counter() - began)


def writing(path: Path, blob: Blob) -> float:
    """MiB/s of writing the same bytes in order, synced as often as the engine does."""
    os.sync()
    began, written = time.perf_counter(), 0
    with blob.content.file.open("rb", buffering=0) as source, path.open("wb", buffering=0) as file:
        while block := source.read(MIB):
            written += file.write(block)
            if written % _SYNC_EVERY == 0:
                os.fdatasync(file.fileno())
        os.fdatasync(file.fileno())
    spent = time.perf_counter() - began
    path.unlink()
    return blob.size / MIB / spent
