"""The main job: a real image chain through a push, a pull, `kill -9` and a restart; and the price of its next version.

Layers are tars of files of this machine. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.trees import MIB, files, gzipped, layers
from tests.support.serving import CAS, Server, starting
from tests.v1client import Client, Layer, chain


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--mib", type=int, default=360)
    options.add_argument("--layers", type=int, default=6)
    options.add_argument("--gzip", action="store_true", help="layers as engines send them")
    options.add_argument("--tree", type=Path, action="append", help="default: the interpreter's library, then /usr/lib")
    given = options.parse_args()
    trees = given.tree or [Path(sys.base_prefix, "lib"), Path("/usr/lib")]
    with tempfile.TemporaryDirectory() as folder:
        into = Path(folder)
        found = files(trees, given.mib * MIB)
        versions = [layers(found, given.layers, into, version=version) for version in (1, 2)]
        if given.gzip:
            versions = [list(gzipped(paths)) for paths in versions]
        print(json.dumps({"files": len(found), "gzip": given.gzip} | measure(into, versions)), flush=True)


def measure(into: Path, versions: list[list[Path]]) -> dict[str, Any]:
    """Push and pull the first version, kill the server, pull again, then push the second."""
    with starting(into) as start:
        server = start(into / "root", workers=2)
        empty = stats(into / "root")
        first, second = (chain(paths, seed=str(number)) for number, paths in enumerate(versions))
        push_s = timed(lambda: engine(server).push("bench/chain", first, ["v1"]))
        pull_s = timed(lambda: check(engine(server), first, "v1"))
        one = stats(into / "root")
        server.kill()
        server = start(into / "root", workers=2)
        check(engine(server), first, "v1")
        again_s = timed(lambda: engine(server).push("bench/chain", second, ["v2"]))
        check(engine(server), second, "v2")
        two = stats(into / "root")
        code = server.stop()
    logical, stored = (two[key] - one[key] for key in ("logical_bytes", "stored_bytes"))
    return {
        "layers": len(first),
        "mib": round((one["logical_bytes"] - empty["logical_bytes"]) / MIB, 1),
        "stored_mib": round((one["stored_bytes"] - empty["stored_bytes"]) / MIB, 1),
        "push_s": round(push_s, 2),
        "pull_s": round(pull_s, 2),
        "pulled_equal_after_kill_9": True,
        "second_version_mib": round(logical / MIB, 1),
        "second_version_adds_mib": round(stored / MIB, 1),
        "second_version_adds_percent": round(100 * stored / logical, 2),
        "second_push_s": round(again_s, 2),
        "dedup_ratio": round(two["dedup_ratio"], 3),
        "exit_code": code,
    }


def engine(server: Server) -> Client:
    return Client(server.host, server.port)


def check(client: Client, images: list[Layer], tag: str) -> None:
    """Pull, and compare every byte by its SHA-256."""
    pulled = client.pull("bench/chain", tag)
    for image, back in zip(images, pulled, strict=True):
        assert isinstance(image.layer, Path)
        with image.layer.open("rb") as file:
            assert back.sha256 == hashlib.file_digest(file, "sha256").hexdigest(), image.layer
        assert (back.json, back.payload_checksum) == (image.json, back.announced_checksum)


def stats(root: Path) -> dict[str, Any]:
    """Ask `cas stats`, beside the running server."""
    answer = subprocess.run([CAS, "stats", "--json", "--root", root], check=True, capture_output=True, text=True)
    content: dict[str, Any] = json.loads(answer.stdout)
    return content


def timed(work: Any) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


if __name__ == "__main__":
    main()
