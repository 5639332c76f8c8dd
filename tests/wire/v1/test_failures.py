"""What goes wrong on our side or is too much: each has its status and its words, and leaves nothing half done."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import cas
from api.config import HttpSettings
from cas import DiskFailed, NoSpace
from cas.disk import Disk
from tests.support.powercut import ForgetfulDisk
from tests.wire.v1.talk import Registry, image_json, new_id, new_repository, payload, refusal, running

BIG = random.Random(7).randbytes(3_000_000)
SMALL_LIMITS = HttpSettings(max_json_bytes=1000, max_layer_bytes=100_000)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry with low limits."""
    with running(tmp_path_factory.mktemp("small") / "root", SMALL_LIMITS) as registry:
        yield registry


def endless(piece: bytes) -> Iterator[bytes]:
    """Much more than any limit, but not for ever."""
    for _ in range(200):
        yield piece


# --- too much ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "images/{id}/json",
        "repositories/a/b/",
        "repositories/a/b/images",
        "repositories/a/b/tags/x",
        "repositories/a/b/properties",
    ],
)
def test_a_json_body_over_the_limit_is_413(small: Registry, path: str) -> None:
    """Announced or not."""
    target = f"/v1/{path.format(id=new_id())}"
    for body in (b"[" + b" " * 1000, endless(b" " * 100)):
        answer = small.ask("PUT", target, body)
        assert (answer.status, answer.body) == (413, refusal("The body is larger than 1000 bytes."))


def test_a_json_body_of_the_limit_is_taken(small: Registry) -> None:
    """The limit itself is still good."""
    image_id = new_id()
    body = image_json(image_id)
    assert small.put_json(image_id, body + b" " * (1000 - len(body))).status == 200


def test_a_layer_over_the_limit_is_413_and_leaves_nothing(small: Registry) -> None:
    """Announced, or found out on the way."""
    image_id = new_id()
    body = image_json(image_id)
    small.put_json(image_id, body)
    before = small.store.stats()
    for layer in (b"x" * 100_001, endless(b"x" * 1000)):
        answer = small.ask("PUT", f"/v1/images/{image_id}/layer", layer)
        assert (answer.status, answer.body) == (413, refusal("The body is larger than 100000 bytes."))
    assert small.store.stats().blobs == before.blobs
    assert small.put_checksum(image_id, payload(body, b"x" * 100_001)).status == 400
    assert small.put_layer(image_id, b"x" * 100_000).status == 200


def test_a_layer_known_to_be_too_long_is_refused_before_it_comes(small: Registry) -> None:
    """The sender need not send a gigabyte to hear no."""
    image_id = new_id()
    small.put_json(image_id)
    with closing(small.server.connect()) as sock:
        head = f"PUT /v1/images/{image_id}/layer HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n"
        sock.sendall(head.encode())
        assert sock.recv(1 << 16).startswith(b"HTTP/1.1 413 ")


def test_huge_headers_are_refused_and_others_are_served_on(registry: Registry) -> None:
    """431, before any route is looked for."""
    raw = registry.raw(b"GET /v1/_ping HTTP/1.1\r\nHost: x\r\nX-A: " + b"a" * 200_000 + b"\r\n\r\n")
    assert raw.startswith(b"HTTP/1.1 431 ")
    assert registry.ask("GET", "/v1/_ping").status == 200


def test_a_tls_hello_does_not_wedge_a_plain_port(registry: Registry) -> None:
    """Every push to an insecure host begins with one."""
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + random.Random(5).randbytes(500)
    registry.raw(hello)
    assert registry.ask("GET", "/v1/_ping").status == 200


def test_bodies_where_none_is_wanted_are_ignored(registry: Registry) -> None:
    """On GET and DELETE, and on the checksum."""
    image_id = new_id()
    body = image_json(image_id)
    registry.put_json(image_id, body)
    registry.put_layer(image_id, b"layer")
    headers = {"X-Docker-Checksum-Payload": payload(body, b"layer")}
    assert registry.ask("PUT", f"/v1/images/{image_id}/checksum", b"x" * 100_000, headers).status == 200
    assert registry.ask("GET", f"/v1/images/{image_id}/layer", b"x" * 100_000).body == b"layer"


# --- a disk that fails ------------------------------------------------------------------------------------


@pytest.fixture
def disk() -> ForgetfulDisk:
    return ForgetfulDisk(seed=1)


@pytest.fixture
def frail(tmp_path: Path, disk: ForgetfulDisk) -> Iterator[Registry]:
    """A registry on a disk that a test can make fail."""
    with running(tmp_path / "root", disk=disk) as registry:
        yield registry


def test_a_full_disk_is_507_and_leaves_nothing_half_visible(frail: Registry, disk: ForgetfulDisk) -> None:
    """Reads go on, and once there is room the push is simply repeated."""
    kept = frail.image(BIG[:200_000])
    image_id = new_id()
    body = image_json(image_id)
    frail.put_json(image_id, body)
    disk.failure, disk.fail_after = NoSpace, 0
    answer = frail.put_layer(image_id, BIG)
    assert answer.status == 507
    assert list(answer.value) == ["error"]
    assert frail.put_checksum(image_id, payload(body, BIG)).status == 400
    assert frail.ask("GET", f"/v1/images/{kept}/layer").body == BIG[:200_000]
    assert frail.put_layer(image_id, BIG).status == 200
    assert frail.put_checksum(image_id, payload(body, BIG)).status == 200
    assert frail.ask("GET", f"/v1/images/{image_id}/layer").body == BIG


def test_a_failing_disk_is_503_and_says_when_to_come_back(frail: Registry, disk: ForgetfulDisk) -> None:
    """Nothing that was acknowledged is lost."""
    kept = frail.image(BIG[:200_000])
    image_id = new_id()
    frail.put_json(image_id)
    disk.failure, disk.fail_after = DiskFailed, 0
    answer = frail.put_layer(image_id, BIG)
    assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
    assert frail.ask("GET", f"/v1/images/{image_id}/json").status == 400
    assert frail.ask("GET", f"/v1/images/{kept}/layer").body == BIG[:200_000]


def test_a_failure_while_a_name_is_written_changes_no_name(frail: Registry, disk: ForgetfulDisk) -> None:
    """The tag that was there is still the tag."""
    one, two, repository = frail.image(b"one"), frail.image(b"two"), new_repository()
    frail.tag(repository, "latest", one)
    disk.failure, disk.fail_after = NoSpace, 0
    answer = frail.tag(repository, "latest", two)
    assert answer.status == 507
    assert frail.ask("GET", f"/v1/repositories/{repository}/tags/latest").value == one
    assert frail.tag(repository, "latest", two).status == 200


# --- damage and bugs --------------------------------------------------------------------------------------


def test_a_damaged_layer_is_never_served_as_a_whole_one(tmp_path: Path) -> None:
    """Its packs are gone: an error names the blob, and the rest of the registry goes on."""
    with running(tmp_path / "root") as registry:
        image_id, small = registry.image(BIG), registry.image(b"inline")
    for pack in (tmp_path / "root" / "packs").rglob("*.pack"):
        if pack.stat().st_size > 1_000_000:
            pack.chmod(0o600)
            pack.unlink()
    with running(tmp_path / "root") as registry:
        answer = registry.ask("GET", f"/v1/images/{image_id}/layer")
        assert answer.status == 500
        assert "damaged" in answer.value["error"]
        assert answer.headers["Cache-Control"] == "no-cache"
        assert registry.ask("GET", f"/v1/images/{small}/layer").body == b"inline"


def test_a_bug_is_500_in_json_and_the_log_has_the_rest(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The client learns nothing of our insides."""

    def broken(*_: object) -> cas.Record | None:
        raise ZeroDivisionError("insides")

    monkeypatch.setattr(cas.Store, "read", broken)
    answer = registry.ask("GET", "/v1/repositories/a/b/tags")
    assert (answer.status, answer.body) == (500, refusal("Internal error: the server's log says more."))
    assert "insides" in caplog.text


def test_status_says_what_fails(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """503, and the storage's own words."""

    def closed(*_: object) -> cas.Record | None:
        raise cas.Closed("the store is closed")

    monkeypatch.setattr(cas.Store, "get", closed)
    answer = registry.ask("GET", "/v1/_status")
    assert answer.status == 503
    assert answer.value["failures"] == {"storage": "the store is closed"}


def test_status_says_that_the_disk_is_full(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """While pulls go on: who watches is to hear of it before the first push is refused."""
    monkeypatch.setattr(Disk, "free_bytes", lambda *_: (0, 1 << 40))
    answer = registry.ask("GET", "/_status")
    assert answer.status == 503
    assert "free some space" in answer.value["failures"]["storage"]
    monkeypatch.undo()
    assert registry.ask("GET", "/_status").status == 200


def test_status_says_that_the_disk_is_full_before_there_is_nothing_left(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layer that was refused is taken back, and leaves a little more than what is kept: room for nothing usual."""
    whole, settings = 1 << 40, cas.EngineSettings()
    kept = settings.reserve(whole)
    monkeypatch.setattr(Disk, "free_bytes", lambda *_: (kept + settings.run_bytes - 1, whole))
    assert registry.ask("GET", "/_status").status == 503
    monkeypatch.setattr(Disk, "free_bytes", lambda *_: (kept + settings.run_bytes, whole))
    assert registry.ask("GET", "/_status").status == 200


def test_status_says_that_the_store_was_moved_away(tmp_path: Path) -> None:
    """What reads on from what it has open takes no push."""
    root, moved = tmp_path / "root", tmp_path / "moved"
    with running(root) as registry:
        root.rename(moved)
        answer = registry.ask("GET", "/_status")
        moved.rename(root)
        assert answer.status == 503
        assert "start anew" in answer.value["failures"]["storage"]
        assert registry.ask("GET", "/_status").status == 200


def test_clients_that_leave_at_once_leave_nothing_in_the_log(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    """In the middle of a request head, of a body, and of an answer."""
    image_id = registry.image(BIG)
    uploading = new_id()
    registry.put_json(uploading)
    heads = (
        b"GET /v1/_pi",
        f"PUT /v1/images/{uploading}/layer HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc".encode(),
        f"GET /v1/images/{image_id}/layer HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
    )
    for head in heads * 3:
        with closing(registry.server.connect()) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.sendall(head)
            if head.startswith(b"GET /v1/images"):
                assert sock.recv(100)
    assert registry.ask("GET", f"/v1/images/{image_id}/layer").body == BIG
    assert [record.getMessage() for record in caplog.records if record.levelname != "DEBUG"] == []


def test_the_largest_legal_names_fit(registry: Registry) -> None:
    """A repository of 255 characters with a tag of 128."""
    repository, tag = "n" * 127 + "/" + "r" * 127, "t" * 128
    image_id = registry.image()
    assert registry.ask("PUT", f"/v1/repositories/{repository}/", json.dumps([{"id": image_id}]).encode()).status == 200
    assert registry.tag(repository, tag, image_id).status == 200
    assert registry.ask("GET", f"/v1/repositories/{repository}/tags").value == {tag: image_id}
