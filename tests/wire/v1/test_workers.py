"""The whole server, as it is run: several processes, one registry, and no farewell."""

from __future__ import annotations

import random
from pathlib import Path

from tests.support.serving import StartServer
from tests.v1client import Client, chain

LAYERS = [random.Random(seed).randbytes(size) for seed, size in enumerate((100, 4_000_000, 70_000))]


def test_a_chain_is_pulled_back_after_kill_9_of_the_whole_server(server: StartServer, tmp_path: Path) -> None:
    """Pushed through two workers, killed, started again: byte for byte."""
    images = chain(LAYERS)
    first = server(workers=2)
    Client(first.host, first.port).push("foo/bar", images, ["latest"])
    first.kill()
    second = server(first.root, workers=2)
    client = Client(second.host, second.port)
    pulled = client.pull("foo/bar", "latest", tmp_path)
    assert [(image.id, image.json) for image in pulled] == [(image.id, image.json) for image in images]
    assert [(tmp_path / f"{image.id}.layer").read_bytes() for image in images] == LAYERS
    assert client.push("foo/bar", images, ["again"]) == []


def test_a_token_of_one_worker_is_good_at_every_other(server: StartServer) -> None:
    """And after a restart: the key is the store's."""
    running = server(workers=2)
    client = Client(running.host, running.port)
    client.push("foo/bar", chain([b"layer"]), ["latest"])
    token = client.index("DELETE", "/v1/repositories/foo/bar/").headers["X-Docker-Token"]
    running.stop()
    again = server(running.root, workers=2)
    for _ in range(10):
        client = Client(again.host, again.port)
        client.token = token
        assert client.registry("DELETE", "/v1/repositories/foo/bar/").status == 200
