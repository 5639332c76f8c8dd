"""What each request costs, in work that can be counted: bounds that hold on a machine of any speed."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx2
import pytest

from api.ahead import Ahead
from api.intake import received
from api.threads import Threads
from api.zerocopy import sent
from tests.support.counting import IndexWork, counted_crossings, counted_index
from tests.wire.harness import PATIENCE_S
from tests.wire.v2.pushing import MIB, Client, Pushed, new_data, new_repository, sha256

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
SIZE = 8 * MIB
ROUNDS = 5
SLOWER_THAN_BARE = 4


@dataclass(frozen=True)
class Image:
    """What was pushed: a repository with the tag v1 of an image of one layer."""

    repository: str
    config: str
    layer: str
    manifest: str

    @property
    def base(self) -> str:
        return f"/v2/{self.repository}"


@pytest.fixture
def image(client: Client) -> Image:
    repository = new_repository()
    config, layer = client.push(repository, new_data(4096)), client.push(repository, new_data(SIZE))
    said = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 4096},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer, "size": SIZE}],
    }
    body = json.dumps(said).encode()
    answer = client.ask("PUT", f"/v2/{repository}/manifests/v1", body, content_type=MANIFEST)
    assert answer.status_code == 201, answer.text
    return Image(repository, config, layer, sha256(body))


def cost(client: Client, work: Callable[[], httpx2.Response], status: int = 200) -> tuple[IndexWork, dict[str, int]]:
    """Make a request; give what it asked of the index and how its bytes went in and out."""
    before = asdict(sent) | asdict(received)
    with counted_index() as index:
        answer = work()
    assert answer.status_code == status, answer.text
    # The last bytes are counted after they went out. On one connection the next answer begins only then.
    assert client.ask("HEAD", "/v2/").status_code == 200
    after = asdict(sent) | asdict(received)
    return index, {name: after[name] - before[name] for name in before}


def test_no_byte_of_a_layer_goes_out_through_python(client: Client, image: Image) -> None:
    """All of them by `sendfile`, at most three calls a MiB, and one look at the index (I6)."""
    index, moved = cost(client, lambda: client.blob(image.repository, image.layer))
    assert (moved["sendfile_bytes"], moved["body_bytes"]) == (SIZE, 0)
    assert moved["sendfile_calls"] <= 3 * SIZE // MIB
    assert (index.reads, index.look_ups) == (1, 3)
    assert (index.writes, index.changes) == (0, 0)


def test_what_is_kept_compressed_goes_from_the_thread_that_decodes_it_to_the_socket(registry: Pushed) -> None:
    """One write of the loop, for the head, and two crossings for 8 MiB; all pieces by message would be 64 of each.

    A slow client takes more of them; a busy machine may make one of ours slow, but not for each piece.
    """
    size = 32 * MIB
    with closing(registry.client()) as client:
        digest = client.push(repository := new_repository(), new_data(size // 2).hex().encode())
        before, begin, begun = asdict(sent), Threads.begin_long, list[str]()

        def counting(self: Threads, step: Callable[..., Any], *args: Any) -> Any:
            begun.append(step.__name__)
            return begin(self, step, *args)

        with patch.object(Threads, "begin_long", counting), patch.object(Ahead, "pieces", None):
            pulled(registry.server.address, f"/v2/{repository}/blobs/{digest}", size)
    moved = {name: count - before[name] for name, count in asdict(sent).items()}
    assert (moved["body_bytes"], moved["sendfile_bytes"]) == (size, 0)
    assert moved["writes"] == 1
    assert begun.count("_work") <= size // MIB


def test_a_range_of_a_layer_sends_its_own_bytes_and_no_more(client: Client, image: Image) -> None:
    """One byte from the middle of 8 MiB is one byte by `sendfile`."""
    target = f"{image.base}/blobs/{image.layer}"
    _, moved = cost(client, lambda: client.ask("GET", target, range="bytes=5000000-5000000"), 206)
    assert (moved["sendfile_bytes"], moved["body_bytes"]) == (1, 0)


def test_every_byte_of_a_push_goes_in_past_the_parser(client: Client, image: Image) -> None:
    """Threads read it from the socket: one crossing begins the upload and takes it to its end.

    Of a client whose body is not there when its head was read, one begins it. A slow client takes more of them; a busy
    machine may make one of ours slow, but not for each block.
    """
    data = new_data(SIZE)
    place = client.open(image.repository)
    with counted_crossings() as steps:
        index, moved = cost(client, lambda: client.put(place, sha256(data), data), 201)
    assert moved["direct_bytes"] == SIZE
    assert moved["lent_bytes"] >= SIZE - 128 * 1024
    assert set(steps) <= {"_write", "_draw"}
    assert "_write" not in steps[1:]
    assert len(steps) <= SIZE // MIB
    assert index.writes <= 2
    assert index.reads <= 8 + 2 * (SIZE // (4 * MIB) + len(steps))  # two a block, and for each step a short one
    assert index.look_ups <= 80
    assert client.blob(image.repository, sha256(data), "HEAD").status_code == 200


def test_every_byte_of_a_push_in_chunks_goes_in_past_the_parser_too(client: Client, image: Image) -> None:
    """As docker pushes: threads read all but the first few from the socket, and take them out of their chunks."""
    data = new_data(SIZE)
    place = client.open(image.repository)
    chunks = (data[at : at + 32_768] for at in range(0, SIZE, 32_768))
    index, moved = cost(client, lambda: client.patch(place, chunks, content_type="application/octet-stream"), 202)
    assert moved["direct_bytes"] == SIZE
    assert moved["lent_bytes"] >= SIZE - 128 * 1024
    assert index.writes <= 2
    assert client.put(place, sha256(data)).status_code == 201


def test_a_small_push_is_one_sync_and_one_commit(client: Client, registry: Pushed) -> None:
    """Opening the upload stores nothing; closing it stores blob and link together."""
    repository, data = new_repository(), new_data(4096)
    client.push(repository, new_data(100))
    counts = registry.store._parts.disk.counts  # noqa: SLF001 - the one disk of this store
    syncs = counts.syncs
    with counted_index() as index:
        client.push(repository, data)
    assert counts.syncs - syncs == 1
    assert index.writes == 1
    assert index.look_ups <= 18
    assert index.changes <= 12


@pytest.mark.usefixtures("all_in_memory")
def test_a_request_crosses_to_a_thread_once(client: Client, image: Image) -> None:
    """A small push, and each question, whatever goes out; a crossing costs as much as most of them do.

    To open an upload takes none, if anybody did in the last minute.
    """
    data, other = new_data(4096), {"other": "word"}  # else the answer would be known by heart
    client.open(image.repository)
    with counted_crossings() as steps:
        client.push(image.repository, data)
        assert steps == ["close"]
        for target in (f"blobs/{image.config}", "manifests/v1"):
            client.ask("GET", f"{image.base}/{target}", None, **other)
        for method in ("HEAD", "GET"):
            client.ask(method, f"{image.base}/blobs/{image.layer}", None, **other)
        assert steps == ["close", *["_open"] * 4]


@pytest.mark.parametrize(
    ("method", "target", "reads", "look_ups"),
    [
        ("GET", "/v2/", 0, 0),
        ("GET", "{base}/manifests/v1", 1, 2),
        ("HEAD", "{base}/manifests/v1", 1, 2),
        ("GET", "{base}/manifests/{manifest}", 1, 1),
        ("HEAD", "{base}/blobs/{layer}", 1, 2),
        ("GET", "{base}/blobs/{config}", 1, 2),
        ("GET", "{base}/blobs/{layer}", 1, 3),
        ("GET", "{base}/tags/list", 1, 4),
        ("GET", "/v2/_catalog", 1, 12),
    ],
)
def test_a_question_is_a_few_look_ups_and_no_write(
    client: Client, image: Image, method: str, target: str, reads: int, look_ups: int
) -> None:
    """At most so many reads of the index and look-ups within them; the numbers are what clients wait for."""
    path = target.format(base=image.base, manifest=image.manifest, layer=image.layer, config=image.config)
    client.ask(method, path)
    index, _ = cost(client, lambda: client.ask(method, path, other="word"))  # else it would be answered by heart
    assert index.reads <= reads
    assert index.look_ups <= look_ups
    assert (index.writes, index.changes) == (0, 0)


def test_a_pull_is_not_far_from_a_bare_loop_of_sendfile(registry: Pushed, tmp_path: Path) -> None:
    """The best of five each, in turns: whoever waits where nothing is to be waited for is further away."""
    data = new_data(32 * MIB)
    with closing(registry.client()) as client:
        digest = client.push(repository := new_repository(), data)
    (tmp_path / "file").write_bytes(data)
    ours, bare = [], []
    with bare_server(tmp_path / "file") as address:
        for _ in range(ROUNDS):
            ours.append(pulled(registry.server.address, f"/v2/{repository}/blobs/{digest}", len(data)))
            bare.append(pulled(address, "/", len(data)))
    assert min(ours) < SLOWER_THAN_BARE * min(bare)


def pulled(address: tuple[str, int], target: str, size: int) -> float:
    """Seconds until the last byte of a body; none of them is copied here."""
    buffer, began = bytearray(MIB), time.perf_counter()
    with socket.create_connection(address, timeout=PATIENCE_S) as sock:
        sock.sendall(f"GET {target} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n".encode())
        taken = 0
        while got := sock.recv_into(buffer, MIB, socket.MSG_TRUNC):
            taken += got
    assert size < taken < size + 4096
    return time.perf_counter() - began


@contextmanager
def bare_server(path: Path) -> Iterator[tuple[str, int]]:
    """Answer a few connections, one after the other, with a file."""
    size = path.stat().st_size

    def serve() -> None:
        with path.open("rb") as file:
            for _ in range(ROUNDS):
                peer, _address = listening.accept()
                with peer:
                    peer.settimeout(None)
                    peer.recv(4096)
                    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
                    at = 0
                    while at < size:
                        at += os.sendfile(peer.fileno(), file.fileno(), at, size - at)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(PATIENCE_S)
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[:2]
        thread.join(PATIENCE_S)
    assert not thread.is_alive()
