"""What a pull costs: large and small layers, scattered ones, compressed ones, and over TLS.

Everything is pulled once before it is measured, so all servers read the page cache, but for one row that reads
the disk. Rows named `pull/…`.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import zstandard

from bench.corpus import Blob
from bench.field import PEERS, REGISTRIES, Field, Runner
from bench.load import MIB, Address, Job, drive
from bench.measure import Load, Row, Run, compare, limit, same
from bench.registry import give, pull

# How many at once, and times the rounds of others: one is over in a moment, and differs twofold from one to the next.
STREAMS = {1: 10, 4: 3, 16: 1}
SMALL = {"1m": MIB, "64k": 64 << 10}
SMALL_BLOBS = 64
CLIENTS = 16
SOURCES = 16
STRETCH = 4 * MIB
FRAME = 64 << 10  # the middle size of a compressed chunk
_MANY = 3  # times the rounds of others, for what is over in a second and differs from one to the next


def ask(run: Run) -> Iterator[Row]:
    yield from large(run)
    yield from small(run)
    yield scattered(run)
    yield compressed(run)
    yield encrypted(run)


def large(run: Run) -> Iterator[Row]:
    """One layer, whole, by more and more clients at once, beside a bare loop of `sendfile`; and from the disk."""
    layer = run.corpus.noise(run.scale.large)
    with Field(run.folder) as field:
        ready = [(runner, warmed(runner, layer)) for runner in map(field.start, run.among(*PEERS))]
        for streams, times in STREAMS.items():
            row = compare(
                f"pull/large-{streams}",
                [Load(runner, same([job] * streams), streams) for runner, job in ready],
                times * run.scale.rounds,
                per="GiB",
            )
            if streams == 1:
                limit(row, "bare sendfile", [bare_sendfile(layer) for _ in range(run.scale.rounds)])
            yield row
        yield compare(
            "pull/cold",
            [Load(runner, same([job]), 1, is_cold=True) for runner, job in ready],
            _MANY * run.scale.rounds,
            per="GiB",
        )
    run.corpus.drop(layer)


def small(run: Run) -> Iterator[Row]:
    """Blobs of one size, all of them again and again."""
    for name, size in SMALL.items():
        blobs = run.corpus.many(SMALL_BLOBS, size)
        with Field(run.folder) as field:
            loads = []
            for runner in map(field.start, run.among(*PEERS)):
                jobs = [warmed(runner, blob) for blob in blobs]
                times = max(1, run.scale.requests // len(jobs))
                loads.append(Load(runner, same(jobs * times), CLIENTS))
            yield compare(f"pull/{name}", loads, run.scale.rounds, per="1,000")
        run.corpus.drop(*blobs)


def scattered(run: Run) -> Row:
    """A layer of stretches that lie in sixteen other layers, and so in many packs; beside one that lies in a row."""
    sources = [run.corpus.noise(run.scale.large // SOURCES) for _ in range(SOURCES)]
    woven = run.corpus.woven(sources, min(STRETCH, run.scale.large // SOURCES))
    whole = run.corpus.noise(woven.size)
    with Field(run.folder) as field:
        runner = field.start("cas", "--pack-bytes", str(max(4 * MIB, run.scale.large // SOURCES)))
        for source in sources:
            give(runner, source)
        before = runner.disk_bytes()
        jobs = {"cas": warmed(runner, woven)}
        added = runner.disk_bytes() - before
        jobs["contiguous"] = warmed(runner, whole)
        loads = [Load(runner.called(name), same([job]), 1) for name, job in jobs.items()]
        row = compare("pull/scattered", loads, run.scale.rounds, per="GiB")
    row["notes"] = {"stored_anew_share": round(added / woven.size, 3)}
    run.corpus.drop(*sources, woven, whole)
    return row


def compressed(run: Run) -> Row:
    """A layer of text that is kept as zstd frames; beside one core that does nothing but decode such frames."""
    layer = run.corpus.text(run.scale.large)
    with Field(run.folder) as field:
        runner = field.start("cas")
        job = warmed(runner, layer)
        row = compare("pull/zstd", [Load(runner, same([job]), 1)], _MANY * run.scale.rounds, per="GiB")
        row["notes"] = {"stored_share": round(runner.disk_bytes() / layer.size, 3)}
    limit(row, "one core's zstd", [decoding(layer) for _ in range(run.scale.rounds)])
    run.corpus.drop(layer)
    return row


def encrypted(run: Run) -> Row:
    """The large layer over TLS, one client."""
    layer = run.corpus.noise(run.scale.large)
    with Field(run.folder, run.authority) as field:
        runners = map(field.start, run.among(*REGISTRIES))
        loads = [Load(runner, same([warmed(runner, layer)]), 1) for runner in runners]
        row = compare("pull/tls", loads, run.scale.rounds, per="GiB")
    run.corpus.drop(layer)
    return row


def warmed(runner: Runner, blob: Blob) -> Job:
    """Give a blob to a server and pull it once."""
    job = give(runner, blob)
    drive(runner.address, 1, [job])
    return job


def decoding(layer: Blob) -> float:
    """MiB/s of decoding the layer, frame by frame, in one thread."""
    frames, packer = [], zstandard.ZstdCompressor(level=3)
    with layer.content.file.open("rb") as file:
        frames += [packer.compress(file.read(FRAME)) for _ in range(min(layer.size, 64 * MIB) // FRAME)]
    unpacker, began = zstandard.ZstdDecompressor(), time.perf_counter()
    for frame in frames:
        unpacker.decompress(frame)
    return len(frames) * FRAME / MIB / (time.perf_counter() - began)


def bare_sendfile(layer: Blob) -> float:
    """MiB/s of a thread that accepts a connection and sends the file: the least that a server can do."""
    with serving_bare(layer.content.file, layer.size) as port:
        return drive(Address(port), 1, [partial(pull, "/", layer.size)]).mib_per_s


@contextmanager
def serving_bare(path: Path, size: int) -> Iterator[int]:
    """Answer one request on one connection by `sendfile`."""
    with socket.create_server(("127.0.0.1", 0)) as listening, path.open("rb") as file:

        def serve() -> None:
            peer, _ = listening.accept()
            with peer:
                peer.recv(65_536)
                peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
                at = 0
                while at < size:
                    at += os.sendfile(peer.fileno(), file.fileno(), at, size - at)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        thread.join(60)
