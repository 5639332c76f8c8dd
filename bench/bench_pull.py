"""The cost of a pull: CPU-seconds of all server processes a GiB, beside a bare `sendfile` loop in the same run.

One random layer that nobody shared, pulled whole from a real `cas serve`; the bytes that left by `sendfile` are counted
by strace in a pull of its own (`--strace`), the extents by the engine. Alternating rounds; one JSON line each, then the
ratio of the medians.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.bench_push import MIB, random_file
from cas import Digest, FileRange, Store
from tests.support.serving import Server, starting
from tests.v1client import Client, Layer, chain


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--mib", type=int, default=1024)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--strace", action="store_true", help="count sendfile bytes (needs strace)")
    options.add_argument("--sendfile-loop", type=Path, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.sendfile_loop:
        sendfile_loop(given.sendfile_loop)
        return
    with tempfile.TemporaryDirectory() as folder, starting(Path(folder)) as start:
        into = Path(folder)
        layer = random_file(into / "layer", given.mib)
        server = start(into / "root", workers=1)
        images = chain([layer], seed="pull")
        Client(server.host, server.port).push("bench/pull", images, ["latest"])
        cost = rounds(server, images[0], layer, given.rounds)
        if given.strace:
            print(json.dumps(traced(server, images[0])), flush=True)
        server.stop()
        print(json.dumps({"extents": extents(into / "root", images[0]), "mib": given.mib} | cost), flush=True)


def rounds(server: Server, image: Layer, layer: Path, count: int) -> dict[str, Any]:
    """Pull from both, in turns."""
    ours, bare, gib = [], [], layer.stat().st_size / (1 << 30)
    loop = subprocess.Popen(
        [sys.executable, __file__, "--sendfile-loop", str(layer)], stdout=subprocess.PIPE, text=True
    )
    assert loop.stdout is not None
    port = int(loop.stdout.readline())
    for _ in range(count):
        ours.append(one("cas", server.port, f"/v1/images/{image.id}/layer", server.pids(), gib))
        bare.append(one("bare sendfile", port, "/", [loop.pid], gib))
    loop.kill()
    loop.wait()
    loop.stdout.close()
    cpu = [statistics.median(row["cpu_s_per_gib"] for row in rows) for rows in (ours, bare)]
    return {"cpu_s_per_gib": cpu[0], "bare_cpu_s_per_gib": cpu[1], "ratio": round(cpu[0] / cpu[1], 2)}


def one(name: str, port: int, path: str, pids: list[int], gib: float) -> dict[str, Any]:
    """Pull once with curl and report time and the servers' CPU."""
    before, began = cpu_s(pids), time.monotonic()
    subprocess.run(["curl", "-sf", "-o", "/dev/null", f"http://127.0.0.1:{port}{path}"], check=True)
    wall = time.monotonic() - began
    row = {"server": name, "seconds": round(wall, 3), "cpu_s_per_gib": round((cpu_s(pids) - before) / gib, 3)}
    print(json.dumps(row), flush=True)
    return row


def cpu_s(pids: list[int]) -> float:
    times = [psutil.Process(pid).cpu_times() for pid in pids]
    return sum(spent.user + spent.system for spent in times)


def traced(server: Server, image: Layer) -> dict[str, Any]:
    """Count, under strace, what one pull sends by sendfile and by other calls."""
    watch = [flag for pid in server.pids() for flag in ("-p", str(pid))]
    calls = "trace=sendfile,write,writev,send,sendto,sendmsg"
    with tempfile.NamedTemporaryFile("r") as log:
        strace = subprocess.Popen(["strace", "-f", "-qq", "-e", calls, "-o", log.name, *watch])
        while not Path(f"/proc/{server.pids()[-1]}/status").read_text().count(f"TracerPid:\t{strace.pid}"):
            pass
        client = Client(server.host, server.port)
        client.endpoint = f"{server.host}:{server.port}"
        client.get_layer(image.id, lambda _: None)
        strace.terminate()
        strace.wait()
        sent: dict[str, int] = {}
        for call, size in re.findall(r"(sendfile|write|writev|send|sendto|sendmsg)\([^\n]*= (\d+)", log.read()):
            sent[call] = sent.get(call, 0) + int(size)
    return {"sent_by_call": sent}


def extents(root: Path, image: Layer) -> int:
    """Count the places in files that the layer is sent from."""
    with Store.open(root) as store:
        layer = next(
            blob for name, record in store.scan("v1.image") for blob in record.holds if store.stat(blob).size > MIB
        )
        assert isinstance(layer, Digest), image
        with store.reader(layer) as reader:
            return sum(isinstance(piece, FileRange) for piece in reader.pieces())


def sendfile_loop(path: Path) -> None:
    """Serve a file by `sendfile` and nothing else: the least a server can do."""
    size = path.stat().st_size
    with socket.create_server(("127.0.0.1", 0)) as listening, path.open("rb") as file:
        print(listening.getsockname()[1], flush=True)
        while True:
            peer, _ = listening.accept()
            with peer:
                peer.recv(65536)
                peer.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % size)
                at = 0
                while at < size:
                    at += os.sendfile(peer.fileno(), file.fileno(), at, size - at)


if __name__ == "__main__":
    main()
