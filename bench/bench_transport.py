"""What HTTP costs around the engine: CPU-seconds of the server for each GiB, beside bare loops over a socket.

Four servers, each a process of its own: our listener sending a file, a bare `sendfile` loop sending the same
file, our listener taking a body and throwing it away, a bare `recv` loop doing so. One JSON line each;
--rounds times.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from api.config import HttpSettings
from api.intake import received
from api.server import serve
from api.streaming import ZERO_COPY
from api.zerocopy import sent

MIB = 1 << 20


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--mib", type=int, default=1024)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--dir", type=Path, default=None, help="where the file lies")
    options.add_argument("--server", choices=SERVERS, help=argparse.SUPPRESS)
    options.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options.add_argument("--socket", type=int, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.server:
        SERVERS[given.server](socket.socket(fileno=given.socket), given.file, given.mib * MIB)
        return
    with tempfile.TemporaryDirectory(dir=given.dir) as folder:
        file = Path(folder, "file")
        with file.open("wb") as out:
            for _ in range(given.mib):
                out.write(os.urandom(MIB))
        for _ in range(given.rounds):
            for name in SERVERS:
                print(json.dumps(measure(name, file, given.mib)), flush=True)


def measure(name: str, file: Path, mib: int) -> dict[str, Any]:
    """Run one server and its one client; the server's last line tells what it used."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        command = [sys.executable, __file__, "--server", name, "--file", str(file), "--mib", str(mib)]
        number = listening.fileno()
        with subprocess.Popen(
            [*command, "--socket", str(number)], pass_fds=[number], stdout=subprocess.PIPE, text=True
        ) as server:
            assert server.stdout is not None
            server.stdout.readline()  # it is ready
            began = time.perf_counter()
            talk(listening.getsockname(), mib, pull="pull" in name)
            wall_s = time.perf_counter() - began
            report = json.loads(server.stdout.readline())
    per_gib = 1024 / mib
    cpu = round((report["user_s"] + report["system_s"]) * per_gib, 3)
    return {"server": name, "cpu_s_per_gib": cpu, "mib_per_s": round(mib / wall_s), **report}


def talk(address: tuple[str, int], mib: int, *, pull: bool) -> None:
    """Be the client."""
    buffer = bytearray(MIB)
    with socket.create_connection(address) as peer:
        if pull:
            peer.sendall(b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
            taken = 0
            while count := peer.recv_into(buffer):
                taken += count
            assert taken >= mib * MIB, taken
        else:
            length = f"Content-Length: {mib * MIB}"
            peer.sendall(f"PUT / HTTP/1.1\r\nHost: bench\r\n{length}\r\nConnection: close\r\n\r\n".encode())
            for _ in range(mib):
                peer.sendall(buffer)
            assert peer.recv_into(buffer) > 0


def ours(listening: socket.socket, file: Path, _: int) -> None:
    """Serve one connection with our listener."""

    async def run() -> None:
        done = asyncio.Event()
        fd = os.open(file, os.O_RDONLY)

        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                await (pull if scope["method"] == "GET" else push)(receive, send)
                done.set()

        async def pull(_: Any, send: Any) -> None:
            size = os.fstat(fd).st_size
            headers = [(b"content-length", str(size).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            for at in range(0, size, 8 * MIB):  # extents of a blob come in runs of about this size
                piece = {"file": fd, "offset": at, "count": min(8 * MIB, size - at)}
                await send({"type": ZERO_COPY, **piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        async def push(receive: Any, send: Any) -> None:
            while (await receive()).get("more_body"):
                pass
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})

        before = usage()
        await serve(app, [listening], HttpSettings(), stop=done, on_ready=ready)
        report(before, **asdict(sent), **asdict(received))

    asyncio.run(run())


def bare_sendfile(listening: socket.socket, file: Path, _: int) -> None:
    """Serve one connection with as little as possible."""
    before = usage()
    ready()
    peer, _address = listening.accept()
    with peer, file.open("rb") as source:
        peer.recv(4096)
        size = os.fstat(source.fileno()).st_size
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        at, calls = 0, 0
        while at < size:
            at += os.sendfile(peer.fileno(), source.fileno(), at, min(MIB, size - at))
            calls += 1
    report(before, sendfile_calls=calls)


def bare_recv(listening: socket.socket, _: Path, size: int) -> None:
    before = usage()
    ready()
    peer, _address = listening.accept()
    with peer:
        taken = 0
        while taken < size:
            taken += len(peer.recv(MIB // 4))
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    report(before)


def usage() -> resource.struct_rusage:
    return resource.getrusage(resource.RUSAGE_SELF)


def ready() -> None:
    print("ready", flush=True)


def report(before: resource.struct_rusage, **counted: int) -> None:
    after = usage()
    spent = {"user_s": after.ru_utime - before.ru_utime, "system_s": after.ru_stime - before.ru_stime}
    print(json.dumps({key: round(value, 3) for key, value in spent.items()} | counted), flush=True)


SERVERS = {"pull": ours, "pull-bare": bare_sendfile, "push": ours, "push-bare": bare_recv}

if __name__ == "__main__":
    main()
