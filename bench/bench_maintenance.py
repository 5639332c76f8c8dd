"""What clients notice of maintenance: the slowest one in a hundred of their requests, while a store is kept in order.

Rows `maintenance/…`: `cas` is beside the scrub, at the rate that a server reads at by default, and beside `cas gc` and
`cas fsck --data` in turns, all without a pause; `quiet` is the same load without them. The scrub is the process that a
worker starts, begun anew whenever it has read everything. Windows of all alternate. All the while a client pushes
images and deletes them again, so that there is always something to collect, and something that is half pushed.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from api.access.settings import AccessSettings
from api.config import HttpSettings
from api.content.settings import KeepingSettings
from api.v1.settings import V1Settings
from api.v2.settings import V2Settings
from bench.corpus import Noise
from bench.field import Field, Runner
from bench.load import MIB, Connection, Job, Sample, drive
from bench.measure import Row, Run, figures
from bench.registry import CONFIG, LAYER, MANIFEST, REPOSITORY, closing, give, give_image, opened, pull
from cas import EngineSettings
from tests.support.serving import CAS, clean_environment
from tools.order import Order

CLIENTS = 8
SMALL = {"64k": 64 << 10, "1m": MIB}
SMALL_BLOBS = 16
PUSHED_BYTES = 64 << 10
GC, FSCK = ("gc", "--grace", "0"), ("fsck", "--data")
SCRUB: tuple[str, ...] = ()  # no command of its own
BESIDE: dict[str, Sequence[Sequence[Sequence[str]]]] = {  # loops that run at once, each some commands in turns
    "quiet": (),
    "gc": ((GC,),),
    "fsck": ((FSCK,),),
    "scrub": ((SCRUB,),),
    "cas": ((GC, FSCK), (SCRUB,)),
}
ALONE = ("gc", "fsck", "scrub")
KEPT_TAGS = 4  # of the images that come and go
_OTHERS = 1 << 40  # seeds of theirs
_WELL = (0, 1, 75)  # ended; something was left for the next one; another one was at it
_WITHOUT_GRACE = (201, 400)  # a blob that no manifest named yet may have been collected
_TIMES = 4  # the pulls of other questions, so that some commands end within a window
_ROUNDS = {"pull-64k": 3, "manifest": 3}  # the same: windows of a second, of which a few say little of one in a hundred
_PAUSE_S = 0.1


@dataclass(slots=True)
class _Taken:
    """What was measured of one load under one condition."""

    samples: list[tuple[Sample, float]] = field(default_factory=list)
    ended: int = 0  # commands that ran beside it to their end


def ask(run: Run) -> Iterator[Row]:
    """Fill a store, and ask for a little of it, beside what keeps it in order."""
    layer = run.corpus.noise(run.scale.large)
    blobs = {name: run.corpus.many(SMALL_BLOBS, size) for name, size in SMALL.items()}
    with Field(run.folder) as servers:
        runner = servers.start("cas")
        give(runner, layer)
        jobs: dict[str, list[Job]] = {f"pull-{name}": [give(runner, each) for each in blobs[name]] for name in blobs}
        size = give_image(runner, blobs["64k"][0], [layer, *itertools.chain(*blobs.values())], "kept")
        jobs["manifest"] = [partial(pull, f"/v2/{REPOSITORY}/manifests/kept", size)]
        with churning(runner):
            for name, some in jobs.items():
                times = max(1, _TIMES * run.scale.requests // len(some))
                windows = [some * times] * len(BESIDE) * run.scale.rounds * _ROUNDS.get(name, 1)
                yield beside_all(runner, f"maintenance/{name}", windows)
            yield pushing(run, runner)
    run.corpus.drop(layer, *itertools.chain(*blobs.values()))


def pushing(run: Run, runner: Runner) -> Row:
    """New blobs, each once."""
    each = run.scale.requests
    windows = range(0, each * run.scale.rounds * len(BESIDE), each)
    jobs: list[list[Job]] = [[partial(push_new, PUSHED_BYTES, at + n) for n in range(each)] for at in windows]
    return beside_all(runner, "maintenance/push-64k", jobs)


def push_new(size: int, number: int, connection: Connection) -> int:
    """Push bytes that nobody pushed before."""
    push_made(connection, Noise(number).take(size))
    return size


def push_made(connection: Connection, data: bytes) -> str:
    """Push some bytes; give their digest."""
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    there = connection.ask("PUT", closing(opened(connection), digest), data, Content_Type="application/octet-stream")
    assert there.status == 201, there.head
    return digest


def beside_all(runner: Runner, key: str, windows: Sequence[Sequence[Job]]) -> Row:
    """Run a load in windows, beside nothing and beside each kind of maintenance in turn."""
    taken = {name: _Taken() for name in BESIDE}
    waiting = iter(windows)
    rounds = len(windows) // len(BESIDE)
    for number in range(rounds):
        names = list(BESIDE)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            with ExitStack() as stack:
                loops = [stack.enter_context(looping(runner, commands)) for commands in BESIDE[name]]
                before = runner.cpu_s()
                sample = drive(runner.address, CLIENTS, next(waiting))
                taken[name].samples.append((sample, runner.cpu_s() - before))
            taken[name].ended += sum(map(len, loops))
    found: dict[str, dict[str, Any]] = {name: figures(its.samples, "1,000") for name, its in taken.items()}
    quiet = found["quiet"]["p99_ms"]
    notes: dict[str, float] = {f"p99_beside_{name}": round(found[name]["p99_ms"] / quiet, 2) for name in ALONE}
    notes |= {f"ended_beside_{name}": its.ended for name, its in taken.items()}
    servers = {name: found[name] for name in ("cas", "quiet", *ALONE)}
    clients = {"clients": CLIENTS, "rounds": rounds, "per": "1,000"}
    return {"key": key, **clients, "servers": servers, "notes": notes}


@contextmanager
def looping(runner: Runner, commands: Sequence[Sequence[str]]) -> Iterator[list[int]]:
    """Run commands again and again until left; one that is at it then is stopped in the middle."""
    over, ended, failed = threading.Event(), list[int](), list[str]()
    running: list[subprocess.Popen[bytes]] = []

    def loop() -> None:
        for command in itertools.cycle(commands):
            process = started(runner, command)
            running[:] = [process]
            if over.is_set():
                process.terminate()
            assert process.stdout is not None
            with process:  # its input stays open to the end, which is what keeps a scrub going
                said = process.stdout.read()
            if over.is_set():
                return
            ended.append(process.returncode)
            if process.returncode not in _WELL:
                failed.append(f"{command} ended with {process.returncode}: {said.decode()}")
                return

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield ended
    finally:
        over.set()
        for process in running:
            process.terminate()
        thread.join()
    assert not failed, failed


def started(runner: Runner, command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a command on the server's store; or the scrub, as a worker does to whom all that is stored seems due."""
    scrub = sys.executable, "-P", "-m", "tools.priority", "tools.scrubber"
    process = subprocess.Popen(
        [CAS, *command, "--root", runner.data] if command else scrub,
        env=clean_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        bufsize=0,
    )
    assert process.stdin is not None
    if not command:
        process.stdin.write(order(runner).to_line())
    return process


def order(runner: Runner) -> Order:
    """What a worker tells the scrub: all settings as they are by default, but for the interval."""
    keeping = KeepingSettings(scrub_interval_s=0)
    others = HttpSettings(), V1Settings(), V2Settings(), AccessSettings()
    return Order(runner.data, (), "error", EngineSettings(), *others, keeping)


@contextmanager
def churning(runner: Runner) -> Iterator[None]:
    """Push small images and delete them again, one client, until left."""
    over, failed = threading.Event(), list[BaseException]()

    def churn() -> None:
        try:
            with Connection(runner.address) as connection:
                for number in itertools.count():
                    if over.wait(_PAUSE_S):
                        return
                    come_and_go(connection, number)
        except BaseException as error:  # noqa: BLE001 - raised below, where somebody hears it
            failed.append(error)

    thread = threading.Thread(target=churn, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    if failed:
        raise failed[0]


def come_and_go(connection: Connection, number: int) -> None:
    """Push an image, and delete one that was pushed a little while ago."""
    one = {"mediaType": LAYER, "digest": push_made(connection, Noise(_OTHERS + number).take(MIB)), "size": MIB}
    said = {"schemaVersion": 2, "mediaType": MANIFEST, "config": one | {"mediaType": CONFIG}, "layers": [one]}
    place, old = (f"/v2/{REPOSITORY}/manifests/churn{each}" for each in (number, number - KEPT_TAGS))
    done = connection.ask("PUT", place, json.dumps(said).encode(), Content_Type=MANIFEST)
    assert done.status in _WITHOUT_GRACE, done.head
    gone = connection.ask("DELETE", old)
    assert gone.status in (202, 404), gone.head
