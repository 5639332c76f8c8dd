"""The speed of a push, beside Debian's docker-registry taking the same bytes in the same run.

A random layer (nothing to deduplicate, nothing to compress), alternating, on the same disk. With `--api v1` ours over
Registry v1 (json, layer, checksum, tag), theirs over its own API as docker pushes; with `--api v2` the same calls to
both, as containerd pushes (POST, PUT with the body) and as docker does (POST, PATCH of a chunked body, empty PUT). Ours
is durable when answered. Needs `apt-get install docker-registry` for the other part. One JSON line a push, then the
ratio of the medians.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
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
    options.add_argument("--api", choices=FORMS, default="v1")
    given = options.parse_args()
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # the layer's own bytes are not to load the disk
    with (
        tempfile.TemporaryDirectory(dir=memory) as source_folder,
        tempfile.TemporaryDirectory() as folder,
        starting(Path(folder)) as start,
    ):
        into, source = Path(folder), Path(source_folder)
        server = start(into / "root", workers=2)
        with docker_registry(into) as port:
            for ours, theirs in FORMS[given.api]:
                compare(given.mib, given.rounds, into, source, Side(server.port, ours), Side(port, theirs))
        server.stop()


@dataclass
class Side:
    """A server and how it is pushed to, and what that took each time."""

    port: int | None
    push: Callable[[int, Path, str], float]
    seconds: list[float] = field(default_factory=list)

    def run(self, name: str, mib: int, layer: Path, repository: str) -> None:
        if self.port is not None:
            self.seconds.append(self.push(self.port, layer, repository))
            line = {"server": name, "by": self.push.__name__, "mib": mib, "seconds": round(self.seconds[-1], 3)}
            print(json.dumps(line), flush=True)

    @property
    def median(self) -> float | None:
        return statistics.median(self.seconds) if self.seconds else None


def compare(mib: int, rounds: int, into: Path, source: Path, ours: Side, theirs: Side) -> None:
    """Push the same bytes to both, turn by turn, and print the ratio."""
    bare = []
    for number in range(rounds):
        layer = random_file(source / "layer", mib)
        repository = f"bench/{ours.push.__name__.replace('_', '-')}{number}"
        ours.run("cas", mib, layer, repository)
        bare.append(bare_write(into / "bare", layer))
        print(json.dumps({"bare durable write": mib, "seconds": round(bare[-1], 3)}), flush=True)
        theirs.run("docker-registry", mib, layer, repository)
    ratio = round(theirs.median / ours.median, 2) if theirs.median and ours.median else None
    row = {"median_cas_s": ours.median, "median_docker_registry_s": theirs.median, "times_faster": ratio}
    print(json.dumps(row | {"median_bare_durable_write_s": statistics.median(bare)}), flush=True)


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


def push_v1(port: int, layer: Path, repository: str) -> float:
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
    talk(port, "PUT", f"/v1/repositories/{repository}/tags/latest", json.dumps(image).encode(), 200)
    return time.monotonic() - began


def push_by_patch(port: int, layer: Path, repository: str) -> float:
    """Push a blob as docker does: POST, one PATCH with a chunked body, PUT."""
    digest = digest_of(layer)
    os.sync()
    began = time.monotonic()
    location = talk(port, "POST", f"/v2/{repository}/blobs/uploads/", b"", 202)
    location = curl(port, "PATCH", location, layer, 202)
    talk(port, "PUT", closing(location, digest), b"", 201)
    return time.monotonic() - began


def push_by_put(port: int, layer: Path, repository: str) -> float:
    """Push a blob as containerd does: POST, PUT with the body."""
    digest = digest_of(layer)
    os.sync()
    began = time.monotonic()
    location = talk(port, "POST", f"/v2/{repository}/blobs/uploads/", b"", 202)
    curl(port, "PUT", closing(location, digest), layer, 201, chunked=False)
    return time.monotonic() - began


def digest_of(layer: Path) -> str:
    running = hashlib.sha256()
    for block in blocks(layer):
        running.update(block)
    return f"sha256:{running.hexdigest()}"


def closing(location: str, digest: str) -> str:
    """Add the digest to whatever query a Location has."""
    return f"{location}{'&' if '?' in location else '?'}digest={digest}"


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


def curl(port: int, method: str, path: str, body: Path, status: int, *, chunked: bool = True) -> str:
    """Send a file; return the Location of the answer."""
    flags = ["-H", "Transfer-Encoding: chunked"] if chunked else []
    flags += ["-H", "Expect:", "-H", "Content-Type: application/octet-stream"]
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


FORMS = {"v1": [(push_v1, push_by_patch)], "v2": [(push_by_put, push_by_put), (push_by_patch, push_by_patch)]}

if __name__ == "__main__":
    main()
