"""The speed of a push, beside Debian's docker-registry taking the same bytes in the same run.

A random layer (nothing to deduplicate, nothing to compress), alternating, on the same disk: ours over Registry v1
(json, layer, checksum, tag; durable when answered), theirs over its own API (POST, PATCH as docker sends it, PUT).
Needs `apt-get install docker-registry` for the second part. One JSON line a push, then the ratio of the medians.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.support.serving import starting

MIB = 1 << 20
_CONFIG = """version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {root}}}}}
http: {{addr: 127.0.0.1:{port}}}
"""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--mib", type=int, default=1024)
    options.add_argument("--rounds", type=int, default=5)
    given = options.parse_args()
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # the layer's own bytes are not to load the disk
    with (
        tempfile.TemporaryDirectory(dir=memory) as source_folder,
        tempfile.TemporaryDirectory() as folder,
        starting(Path(folder)) as start,
    ):
        into, source = Path(folder), Path(source_folder)
        ours, theirs, bare = [], [], []
        server = start(into / "root", workers=2)
        with docker_registry(into) as port:
            for number in range(given.rounds):
                layer = random_file(source / "layer", given.mib)
                ours.append(push_v1(server.port, layer, number))
                print(json.dumps({"server": "cas", "mib": given.mib, "seconds": round(ours[-1], 3)}), flush=True)
                bare.append(bare_write(into / "bare", layer))
                print(json.dumps({"bare durable write": given.mib, "seconds": round(bare[-1], 3)}), flush=True)
                if port is not None:
                    theirs.append(push_v2(port, layer, number))
                    line = {"server": "docker-registry", "mib": given.mib, "seconds": round(theirs[-1], 3)}
                    print(json.dumps(line), flush=True)
        server.stop()
    medians = statistics.median(ours), statistics.median(theirs) if theirs else None
    ratio = round(medians[1] / medians[0], 2) if medians[1] else None
    row = {"median_cas_s": medians[0], "median_docker_registry_s": medians[1], "times_faster": ratio}
    print(json.dumps(row | {"median_bare_durable_write_s": statistics.median(bare)}))


def bare_write(path: Path, layer: Path) -> float:
    """Write the same bytes in order, syncing as often as the engine does: what the disk allows anybody durable."""
    os.sync()
    began = time.monotonic()
    with path.open("wb", buffering=0) as file:
        for number, block in enumerate(blocks(layer), 1):
            file.write(block)
            if number % 32 == 0:
                os.fdatasync(file.fileno())
    spent = time.monotonic() - began
    path.unlink()
    return spent


def random_file(path: Path, mib: int) -> Path:
    """Write fresh random bytes, so that no round can reuse another's."""
    with path.open("wb") as file:
        for _ in range(mib):
            file.write(os.urandom(MIB))
    return path


def push_v1(port: int, layer: Path, number: int) -> float:
    """Push as an engine does, the layer's bytes by curl: a client that costs little of the two cores."""
    image = hashlib.sha256(os.urandom(8)).hexdigest()
    content = json.dumps({"id": image}).encode()
    running = hashlib.sha256(content + b"\n")
    for block in blocks(layer):
        running.update(block)
    os.sync()
    began = time.monotonic()
    talk(port, "PUT", f"/v1/images/{image}/json", content, 200)
    curl(port, "PUT", f"/v1/images/{image}/layer", layer, 200)
    headers = {"X-Docker-Checksum-Payload": f"sha256:{running.hexdigest()}"}
    talk(port, "PUT", f"/v1/images/{image}/checksum", b"", 200, headers)
    talk(port, "PUT", f"/v1/repositories/bench/push{number}/tags/latest", json.dumps(image).encode(), 200)
    return time.monotonic() - began


def push_v2(port: int, layer: Path, number: int) -> float:
    """Push a blob as docker does: POST, one PATCH with a chunked body, PUT."""
    running = hashlib.sha256()
    for block in blocks(layer):
        running.update(block)
    os.sync()
    began = time.monotonic()
    location = talk(port, "POST", f"/v2/bench/push{number}/blobs/uploads/", b"", 202)
    location = curl(port, "PATCH", location, layer, 202)
    talk(port, "PUT", f"{location}&digest=sha256:{running.hexdigest()}", b"", 201)
    return time.monotonic() - began


def blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(MIB):
            yield block


def talk(port: int, method: str, path: str, body: bytes, status: int, headers: dict[str, str] | None = None) -> str:
    """Make one small request; return the Location of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request(method, path, body, headers or {})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    assert answer.status == status, (answer.status, content)
    return local(answer.headers.get("Location", ""), port)


def curl(port: int, method: str, path: str, body: Path, status: int) -> str:
    """Send a file as a chunked body; return the Location of the answer."""
    flags = ["-H", "Transfer-Encoding: chunked", "-H", "Expect:", "-H", "Content-Type: application/octet-stream"]
    want = ["-o", "/dev/null", "-w", "%{http_code} %header{location}"]
    url = f"http://127.0.0.1:{port}{path}"
    command = ["curl", "-s", "-X", method, *flags, *want, "-T", str(body), url]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    code, _, location = answer.partition(" ")
    assert int(code) == status, answer
    return local(location, port)


def local(location: str, port: int) -> str:
    return location.removeprefix(f"http://127.0.0.1:{port}")


@contextmanager
def docker_registry(into: Path) -> Iterator[int | None]:
    """Run Debian's registry on a free port; yield None where it is not installed."""
    if shutil.which("docker-registry") is None:
        print(json.dumps({"note": "docker-registry is not installed: apt-get install docker-registry"}), flush=True)
        yield None
        return
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    config = into / "docker-registry.yml"
    config.write_text(_CONFIG.format(root=into / "docker-registry", port=port))
    process = subprocess.Popen(["docker-registry", "serve", str(config)], stderr=subprocess.DEVNULL)
    try:
        wait_for(port)
        yield port
    finally:
        process.terminate()
        process.wait()


def wait_for(port: int) -> None:
    """Wait until somebody listens."""
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < deadline, "the peer did not start"


if __name__ == "__main__":
    main()
