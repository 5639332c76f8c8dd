"""A small disk under a live server: what `cas gc` removes makes room for the next pack while it runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.support.engine import MIB, noise
from tests.support.processes import can_mount, run_python
from tests.support.serving import run_cas, starting
from tests.wire.v2.content import CONFIG, LAYER, OCI_MANIFEST, Document, descriptor, document
from tests.wire.v2.pushing import Client, sha256

_CONFIG = b'{"architecture":"amd64"}'
_SIZE = MIB * 3 // 2
_MOST = 24  # images; fewer than that have room
_WITHIN_S = 30.0  # half the time between two ticks of a worker
_REPO = "some/thing"


def layer_of(number: int) -> bytes:
    return noise(_SIZE, number)


def image(number: int) -> Document:
    return document({"config": descriptor(_CONFIG, CONFIG), "layers": [descriptor(layer_of(number), LAYER)]})


def push(client: Client, number: int) -> int:
    """Push one image, by its number; return 201, or how it was refused."""
    for data in (_CONFIG, layer_of(number)):
        opened = client.ask("POST", f"/v2/{_REPO}/blobs/uploads/")
        if opened.status_code != 202:
            return opened.status_code
        status = client.put(str(opened.headers["location"]), sha256(data), data).status_code
        if status != 201:
            return status
    body = image(number).body
    return client.ask("PUT", f"/v2/{_REPO}/manifests/t{number}", body, content_type=OCI_MANIFEST).status_code


def push_until_full(client: Client, first: int) -> list[int]:
    """Push images until one is refused, as by a full disk; return those that were taken."""
    for number in range(first, first + _MOST):
        if (status := push(client, number)) != 201:
            assert status == 503
            return list(range(first, number))
    return list(range(first, first + _MOST))


def pull(client: Client, numbers: list[int]) -> None:
    for number in numbers:
        answer = client.blob(_REPO, sha256(layer_of(number)))
        assert (answer.status_code, answer.content == layer_of(number)) == (200, True)


def gc(root: Path, code: int = 0) -> dict[str, Any]:
    ended = run_cas("gc", "--json", "--grace", "0", "--untagged", "--root", root)
    assert (ended.returncode, ended.stderr) == (code, ""), ended.stdout
    told: dict[str, Any] = json.loads(ended.stdout)
    return told


def free_bytes(root: Path) -> int:
    stat = os.statvfs(root)
    return stat.f_bavail * stat.f_frsize


def wait_for_room(root: Path, size: int) -> None:
    """Wait until so many bytes are free, which is a matter of a second or two and not of a minute."""
    between, deadline = threading.Event(), time.monotonic() + _WITHIN_S
    while free_bytes(root) < size:
        assert time.monotonic() < deadline, f"{free_bytes(root)} bytes are free, and not {size}"
        between.wait(0.05)


def make_room(*, mount: bool) -> None:
    """Run in a process of its own: fill a server's disk, pull all of it, delete every second image, and collect."""
    root = Path(sys.argv[1]) / "root"
    root.mkdir()
    if mount:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "none", root], check=True)
    with starting(Path(sys.argv[1])) as start:
        server = start(root, workers=2)
        with closing(Client(server.url)) as client:
            pushed = push_until_full(client, 0)
            assert len(pushed) > 15
            pull(client, pushed)
            gone, kept = pushed[::2], pushed[1::2]
            for number in gone:
                assert client.ask("DELETE", f"/v2/{_REPO}/manifests/t{number}").status_code == 202
            before = free_bytes(root)
            told = gc(root)
            assert told["left"] == []
            assert told["given_back"] > 0.9 * len(gone) * _SIZE
            if mount:
                given = before + told["given_back"] - 3 * MIB  # the index takes some
                now, owed = free_bytes(root), told["packs"]["owed_bytes"]
                assert now + owed >= given, f"{before} free, {told} given back, {now} free, {owed} owed"
                wait_for_room(root, given)
            pull(client, kept)
            more = push_until_full(client, 100)
            assert len(more) > 0.7 * len(gone)
            pull(client, kept + more)
    sys.stdout.write("kept\n")


def test_what_a_server_has_open_makes_room_while_a_collection_needs_it(tmp_path: Path) -> None:
    """It pulled every image, so each pack is open; what was removed comes free in time for the next one to move.

    On a real small filesystem, where the kernel lets us mount one in a namespace of our own.
    """
    mount = can_mount()
    script = f"from tests.crash.test_small_disk import make_room; make_room(mount={mount})"
    assert run_python(script, tmp_path, mounts=mount).stdout == "kept\n"
