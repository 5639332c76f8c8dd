"""The numbers of the real command: where they are told, that they are of all workers, and that they never go back."""

from __future__ import annotations

import http.client
import json
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from api.counts import METHODS, PROTOCOLS, STATUSES
from tests.commands.test_stats import push
from tests.support.serving import Server, StartServer, reserved_port, run_cas, until

PING = "/v1/_ping"
PAGE = "/metrics"
OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture
def port() -> Iterator[int]:
    """Give a port for monitors."""
    with reserved_port() as free:
        yield free


def ask(port: int, method: str = "GET", path: str = PAGE) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, headers={"Connection": "close"})
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def samples(port: int) -> Samples:
    """Read the page as a monitor does."""
    status, headers, page = ask(port)
    assert (status, headers["Content-Type"].partition(";")[0]) == (200, "text/plain")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def total(port: int, name: str = "cas_requests_total", **labels: str) -> float:
    """Add up all samples of a name that have these labels."""
    return sum(
        value for (said, of), value in samples(port).items() if said == name and labels.items() <= dict(of).items()
    )


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Let a process do nothing for a while."""
    process = psutil.Process(pid)
    process.suspend()
    try:
        yield
    finally:
        process.resume()


def test_without_the_setting_nothing_is_counted_and_nothing_is_told(server: StartServer) -> None:
    """No second port, no memory for counts, and the registry knows no such page."""
    running = server()
    assert running.get(PAGE)[0] == 404
    (worker,) = (psutil.Process(pid) for pid in running.workers())
    listening = {each.laddr.port for each in worker.net_connections() if each.status == psutil.CONN_LISTEN}
    assert listening == {running.port}
    links = [str(each.readlink()) for each in Path(f"/proc/{worker.pid}/fd").iterdir()]
    assert any("cas-evenly" in link for link in links)
    assert not any("cas-counts" in link for link in links)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", PAGE, 200),
        ("HEAD", PAGE, 200),
        ("GET", f"{PAGE}?x=y", 200),
        ("POST", PAGE, 405),
        ("DELETE", PAGE, 405),
        ("GET", "/", 404),
        ("GET", f"{PAGE}/", 404),
        ("GET", f"/{PAGE}", 404),
        ("GET", PING, 404),
        ("GET", "/v2/", 404),
        ("PUT", "/v2/a/manifests/b", 404),
    ],
)
def test_the_address_answers_the_page_and_nothing_else(
    server: StartServer, port: int, method: str, path: str, status: int
) -> None:
    """And the registry's own has no such page; both by the environment as well as by flags."""
    running = server(env={"CAS_METRICS": f"127.0.0.1:{port}"})
    got, headers, body = ask(port, method, path)
    assert got == status
    assert bool(body) is (method != "HEAD")
    assert set(headers.get("Allow", "").split(", ")) == ({"GET", "HEAD"} if status == 405 else {""})
    assert running.get(PAGE)[0] == 404
    assert running.stop() == 0
    assert running.log() == ""


def test_every_worker_tells_what_all_of_them_counted(server: StartServer, port: int) -> None:
    """Each answers while the other one cannot."""
    running = server(workers=2, flags=["--metrics", f"127.0.0.1:{port}"])
    one, other = running.workers()
    for number, busy in enumerate((one, other)):
        with stopped(busy):
            for _ in range(3):
                assert running.get(PING)[0] == 200
            until(lambda count=3 * (number + 1): total(port, protocol="v1", code="200") == count)  # type: ignore[misc]
    for busy in (one, other):
        with stopped(busy):
            assert total(port) == total(port, protocol="v1", method="GET") == 6
            assert total(port, "cas_request_duration_seconds_count") == 6
    assert running.stop() == 0


def push_slowly(running: Server) -> socket.socket:
    """Begin a push and leave it under way."""
    sock = socket.create_connection((running.host, running.port), timeout=60)
    sock.sendall(b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
    head = sock.recv(65_536)
    assert head.startswith(b"HTTP/1.1 202"), head
    place = next(line.split(b" ")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"location:"))
    sock.sendall(b"PATCH %s HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" % place)
    return sock


def test_what_was_counted_stays_when_workers_are_killed(server: StartServer, port: int) -> None:
    """All of them by SIGKILL, in the middle of a transfer, which nothing says is under way any more."""
    running = server(workers=2, flags=["--metrics", f"127.0.0.1:{port}"])
    with push_slowly(running):
        for _ in range(5):
            assert running.get(PING)[0] == 200
        until(lambda: total(port) == 6)
        assert total(port, "cas_requests_in_progress", method="PATCH") == 1
        before = samples(port)
        for pid in running.workers():
            worker = psutil.Process(pid)
            worker.kill()
            worker.wait(60)
    until(lambda: len(running.workers()) == 2)
    until(lambda: total(port, "cas_requests_in_progress") == 0)
    after = samples(port)
    for (name, labels), value in before.items():
        if name.startswith("cas_request") and not name.endswith("in_progress"):
            assert after[name, labels] == value
    assert running.get(PING)[0] == 200
    until(lambda: total(port) == 7)
    assert running.stop() == 0


def test_what_a_dead_worker_had_under_way_is_forgotten_before_another_takes_its_place(
    server: StartServer, port: int
) -> None:
    """That one may be long in coming: one that keeps dying is started later and later."""
    running = server(workers=2, flags=["--metrics", f"127.0.0.1:{port}"])
    one, other = running.workers()
    with stopped(other):
        push = push_slowly(running)
        until(lambda: total(port, "cas_requests_in_progress", method="PATCH") == 1)
    with push:
        psutil.Process(one).kill()
        until(lambda: bool({*running.workers()} - {one, other}))
        (heir,) = {*running.workers()} - {one, other}
        with stopped(heir):
            assert total(port, "cas_requests_in_progress") == 0
    assert running.stop() == 0


def test_the_page_agrees_with_the_command(server: StartServer, port: int, tmp_path: Path) -> None:
    """What `cas stats --json` says, each number under its name."""
    push(tmp_path / "root", 1, 1, 2)
    running = server(tmp_path / "root", flags=["--metrics", f"127.0.0.1:{port}"])
    page = samples(port)
    told = json.loads(run_cas("stats", "--json", "--root", running.root).stdout)

    def said(name: str, **labels: str) -> float:
        return page[name, tuple(labels.items())]

    assert said("cas_store_readable") == 1
    assert said("cas_pushed_bytes") == told["logical_bytes"] > 0
    assert said("cas_stored_bytes", folder="packs") == told["pack_bytes"] > 0
    assert said("cas_stored_bytes", folder="index") == told["index_bytes"] > 0
    assert said("cas_packs") == told["packs"] > 0
    assert said("cas_blobs") == told["blobs"] == 2
    assert said("cas_chunks") == told["chunks"] > 0
    assert said("cas_names") == told["names"]
    assert (said("cas_doubted_packs"), said("cas_lost_blobs")) == (told["doubted"], told["lost"]) == (0, 0)
    assert said("cas_unchecked_packs") == told["unchecked_packs"] > 0
    assert said("cas_checked_timestamp_seconds") == told["checked"] > 0
    assert said("cas_disk_free_bytes", folder="packs") > 0
    assert said("cas_disk_free_bytes", folder="index") > 0
    assert any(name == "cas_build_info" for name, _ in page)
    assert running.stop() == 0


def test_every_number_is_documented_as_it_is(server: StartServer, port: int, tmp_path: Path) -> None:
    """Name, kind and labels; also of those that may be missing."""
    push(tmp_path / "root", 1)
    assert run_cas("gc", "--root", tmp_path / "root").returncode == 0
    running = server(tmp_path / "root", flags=["--metrics", f"127.0.0.1:{port}"])
    assert running.get(PING)[0] == 200
    until(lambda: total(port) == 1)
    found = {}
    for family in text_string_to_metric_families(ask(port)[2].decode()):
        name = family.name + "_total" * (family.type == "counter")
        found[name] = family.type, set(family.samples[-1].labels) - {"le"}
    rows = re.findall(r"^\| `(cas_\w+)` \| (\w+) \|(.*?)\| .+ \|$", OPERATIONS.read_text(), re.MULTILINE)
    assert {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows} == found


def test_the_last_collection_is_told_once_there_was_one(server: StartServer, port: int, tmp_path: Path) -> None:
    """A server makes none before its first day is over."""
    push(tmp_path / "root", 1)
    assert run_cas("gc", "--root", tmp_path / "root").returncode == 0
    running = server(tmp_path / "root", flags=["--metrics", f"127.0.0.1:{port}"])
    assert samples(port)["cas_collected_timestamp_seconds", ()] > 1e9
    assert running.stop() == 0


def test_a_store_that_cannot_be_read_is_told_and_requests_are_counted_on(
    server: StartServer, port: int, tmp_path: Path
) -> None:
    """Its own numbers are missing then, rather than old."""
    running = server(flags=["--metrics", f"127.0.0.1:{port}"])
    (tmp_path / "root" / "packs").rename(tmp_path / "packs")
    assert running.get(PING)[0] == 200
    page = samples(port)
    assert page["cas_store_readable", ()] == 0
    assert ("cas_packs", ()) not in page
    until(lambda: total(port) == 1)
    (tmp_path / "packs").rename(tmp_path / "root" / "packs")


def test_no_word_of_a_client_gets_onto_the_page(server: StartServer, port: int) -> None:
    """Whatever methods, paths and queries there are: labels have values of short lists."""
    running = server(flags=["--metrics", f"127.0.0.1:{port}"])
    for method in ("EVIL", "get", "PROPFIND", "GET", "PUT"):
        for path in ("/v2/evil/tags/list", "/v2evil", "/v3/evil", "/v1/evil?evil=evil", "/evil", "//v2/evil"):
            connection = running.connection()
            connection.putrequest(method, path)
            connection.putheader("Content-Length", "0")
            connection.putheader("User-Agent", "evil")
            connection.endheaders()
            connection.getresponse().read()
            connection.close()
    until(lambda: total(port) == 30)
    _, _, page = ask(port)
    assert b"evil" not in page.lower()
    known = {"protocol": set(PROTOCOLS), "method": set(METHODS), "code": set(map(str, STATUSES))}
    for _, labels in samples(port):
        for name, value in labels:
            assert value in known.get(name, {value})


def test_a_port_in_use_is_the_same_clear_line_as_for_the_registry(tmp_path: Path) -> None:
    """Exit code 69, and no store is made; also where it is the registry's own."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        ended = run_cas("serve", "--bind", "127.0.0.1:0", "--metrics", address, cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (69, "")
    assert ended.stderr == f"cas: cannot listen on {address}: the port is in use; stop its owner or choose another\n"
    assert not (tmp_path / "data").exists()
    with reserved_port() as free:
        ended = run_cas("serve", "--bind", f"127.0.0.1:{free}", "--metrics", f"127.0.0.1:{free}", cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (69, "")


@pytest.mark.parametrize(
    "address", ["9101", "localhost:http", "no.such.host.invalid:9101", "192.0.2.1:9101", "127.0.0.1:0", ":9101"]
)
def test_an_address_that_cannot_be_is_one_clear_line(address: str, tmp_path: Path) -> None:
    """Exit code 2, and no store is made."""
    ended = run_cas("serve", "--bind", "127.0.0.1:0", "--metrics", address, cwd=tmp_path)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert ended.stderr.startswith("cas: ")
    assert address in ended.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("none", ["none", ""])
def test_no_address_can_be_said(server: StartServer, none: str) -> None:
    """As where nothing is said."""
    running = server(env={"CAS_METRICS": none})
    assert running.get(PING)[0] == 200
    assert running.stop() == 0
