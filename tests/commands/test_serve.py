"""`cas serve` as operators meet it: what it says, what it refuses, and how it ends."""

from __future__ import annotations

import contextlib
import errno
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from cas import Store
from tests.support.serving import (
    Server,
    StartServer,
    reserved_port,
    run_cas,
    serve_process,
    without_privileges,
)
from tools.version import VERSION

PING = "/v1/_ping"


def make_store(root: Path) -> Path:
    Store.open(root, create=True).close()
    return root


def test_one_line_on_stdout_tells_where(server: StartServer, tmp_path: Path) -> None:
    """The line is complete, true, and the only one."""
    running = server(tmp_path / "root", workers=2)
    assert running.ready_line == f"cas {VERSION} serving {tmp_path / 'root'} at {running.url}\n"
    assert running.get(PING)[0] == 200
    assert running.stop() == 0
    assert running.process.stdout is not None
    assert running.process.stdout.read() == b""
    assert running.log() == "", "quiet by default"


def test_a_root_that_does_not_exist_is_made(server: StartServer, tmp_path: Path) -> None:
    """With the folders above it, and data in packs/ and index/."""
    server(tmp_path / "a" / "b")
    assert {"store.json", "packs", "index"} <= {path.name for path in (tmp_path / "a" / "b").iterdir()}


def test_a_relative_root_works_from_where_the_operator_stands(tmp_path: Path) -> None:
    """Without --root the store is ./data; the file's own settings are found, a folder named tools/ is not."""
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "__init__.py").write_text("raise SystemExit('somebody else’s code')")
    with serve_process(None, "--workers", "1", cwd=tmp_path) as (_, stdout, _):
        assert b" serving data at http://127.0.0.1:" in stdout.readline()
        assert (tmp_path / "data" / "store.json").exists()


def test_ipv6_is_written_in_brackets(server: StartServer) -> None:
    """And is reachable."""
    running = server(bind="[::1]:0")
    assert running.url.startswith("http://[::1]:")
    assert running.get(PING)[0] == 200


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_stop_signal_ends_every_process_with_success(server: StartServer, signum: signal.Signals) -> None:
    """TERM from a service manager, INT from a terminal, HUP from one that closed."""
    running = server(workers=2)
    assert running.stop(signum) == 0
    with socket.socket() as probe:
        assert probe.connect_ex((running.host, running.port)) != 0


def test_ctrl_c_reaches_all_processes_and_still_ends_gracefully(tmp_path: Path) -> None:
    """A terminal signals the whole group; workers leave the decision to the supervisor."""
    with serve_process(tmp_path / "root", "--workers", "2", process_group=0) as (process, stdout, stderr):
        stdout.readline()
        for each in [*psutil.Process(process.pid).children(), psutil.Process(process.pid)]:
            each.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert stderr.read() == b"", "no KeyboardInterrupt from anybody"


def test_stopping_before_it_is_ready_is_no_failure(tmp_path: Path) -> None:
    """A service manager may change its mind at any moment."""
    with serve_process(tmp_path / "root", "--log-level", "info") as (process, stdout, stderr):
        while b"started as process" not in stderr.readline():
            assert process.poll() is None
        process.terminate()
        assert process.wait(60) == 0
        said = stdout.read()
        assert not said or said.endswith(b"\n"), "ready or not, never half a line"


def test_a_killed_worker_is_replaced_and_requests_go_on(server: StartServer) -> None:
    """I7: the others serve, the supervisor says so, and a new one takes its place."""
    running = server(workers=2)
    first, second = running.workers()
    for pid in (first, second):
        worker = psutil.Process(pid)
        worker.kill()
        # While nobody accepts, the kernel keeps connections in the listening queue.
        assert {running.get(PING)[0] for _ in range(10)} == {200}
        worker.wait(60)
    assert not {first, second} & set(running.workers())
    assert running.stop() == 0
    assert running.log().count("was killed by SIGKILL; another takes its place") == 2


def test_a_killed_supervisor_takes_its_workers_along(server: StartServer) -> None:
    """The kernel closes the pipe that each worker watches, whatever the supervisor died of."""
    running = server(workers=2)
    assert len(running.pids()) == 3
    running.process.kill()
    running.wait_gone()


def test_after_a_kill_of_everything_a_restart_needs_no_repair(server: StartServer, tmp_path: Path) -> None:
    """I7: no lock, lease or port is left behind."""
    with reserved_port() as port:
        server(tmp_path / "root", workers=2, bind=f"127.0.0.1:{port}").kill()
        again = server(tmp_path / "root", workers=2, bind=f"127.0.0.1:{port}")
    assert again.get(PING)[0] == 200
    assert again.stop() == 0
    assert again.log() == ""


def test_two_servers_share_one_store(server: StartServer, tmp_path: Path) -> None:
    """I7: any number of processes."""
    one, other = server(tmp_path / "root"), server(tmp_path / "root")
    assert (one.get(PING)[0], other.get(PING)[0]) == (200, 200)


def test_settings_reach_the_workers(server: StartServer, tmp_path: Path) -> None:
    """A limit told in the file, the environment or by a flag is the one that clients meet."""
    config = tmp_path / "cas.toml"
    config.write_text('v1_max_chain = 7\npublic_url = "https://file.example"\nmax_header_bytes = "2KiB"\n')
    running = server(flags=["--config", config], env={"CAS_MAX_HEADER_BYTES": "4KiB"})
    assert running.get(PING, {"X-Long": "x" * 3000})[0] == 200
    assert running.get(PING, {"X-Long": "x" * 5000})[0] == 431


def test_a_worker_takes_the_descriptors_its_connections_need(server: StartServer) -> None:
    """The usual limit of 1024 is less than 1024 connections, each with a socket and a file."""
    code = "import resource, sys; print(resource.getrlimit(resource.RLIMIT_NOFILE)[1])"
    hard = int(subprocess.check_output([sys.executable, "-c", code]))
    running = server(flags=["--max-connections", "1500"])
    soft, _ = psutil.Process(running.workers()[0]).rlimit(psutil.RLIMIT_NOFILE)
    assert soft >= min(hard, 4500)


def refused(*arguments: str | Path, cwd: Path, code: int) -> str:
    """Run `cas serve` with a mistake, and give the one line it says."""
    ended = run_cas("serve", "--workers", "1", *arguments, cwd=cwd, before=without_privileges())
    assert ended.stdout == ""
    assert ended.returncode == code, ended.stderr
    assert ended.stderr.count("\n") == 1
    return ended.stderr


def test_a_port_in_use_is_one_clear_line(tmp_path: Path) -> None:
    """And no store is made for a server that cannot be."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        bind = f"127.0.0.1:{other.getsockname()[1]}"
        told = refused("--bind", bind, cwd=tmp_path, code=69)
    assert told == f"cas: cannot listen on {bind}: the port is in use; stop its owner or choose another\n"
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("bind", ["5000", "localhost:http", "no.such.host.invalid:5000", "192.0.2.1:0"])
def test_an_address_that_cannot_be_is_one_clear_line(bind: str, tmp_path: Path) -> None:
    """The address as it was typed, and what is wrong with it."""
    assert bind in refused("--bind", bind, cwd=tmp_path, code=2)


def test_a_root_that_is_a_file_is_refused(tmp_path: Path) -> None:
    """The file stays as it is."""
    (tmp_path / "data").write_text("mine")
    assert "is a file" in refused("--bind", "127.0.0.1:0", cwd=tmp_path, code=66)
    assert (tmp_path / "data").read_text() == "mine"


def test_a_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    """Nothing is put beside what somebody else keeps there."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "photo.jpg").write_bytes(b"x")
    assert "is not a store" in refused("--bind", "127.0.0.1:0", cwd=tmp_path, code=66)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["photo.jpg"]


def test_a_store_of_a_newer_version_is_refused_with_both_versions(tmp_path: Path) -> None:
    """The remedy is in the sentence."""
    manifest = make_store(tmp_path / "data") / "store.json"
    content = json.loads(manifest.read_text())
    del content["sum"]
    manifest.write_text(json.dumps(content | {"format": content["format"] + 1}))
    told = refused("--bind", "127.0.0.1:0", cwd=tmp_path, code=76)
    assert f"format {content['format'] + 1}" in told
    assert "upgrade" in told


def test_a_store_without_its_index_names_the_remedy(tmp_path: Path) -> None:
    """The index can be made anew; the sentence says by which command."""
    index = make_store(tmp_path / "data") / "index"
    index.rename(tmp_path / "elsewhere")
    assert "cas fsck --rebuild-index --root data" in refused("--bind", "127.0.0.1:0", cwd=tmp_path, code=66)


def test_a_root_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    """Even root cannot make a folder in /proc."""
    told = refused("--root", "/proc/no-such-store", "--bind", "127.0.0.1:0", cwd=tmp_path, code=77)
    assert "cannot be made" in told


def test_a_store_that_cannot_be_written_is_refused_and_stays_as_it_was(tmp_path: Path) -> None:
    """One line that says what to mend."""
    root = make_store(tmp_path / "data")
    before = sorted(root.rglob("*"))
    root.chmod(0o555)
    try:
        told = refused("--bind", "127.0.0.1:0", cwd=tmp_path, code=77)
    finally:
        root.chmod(0o755)
    assert "data belongs to" in told
    assert "mend its permissions: chmod u+rwx data" in told
    assert sorted(root.rglob("*")) == before


def test_a_root_in_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """The sentence names the folder that was to be made."""
    tmp_path.chmod(0o555)
    try:
        told = refused("--root", tmp_path / "new", "--bind", "127.0.0.1:0", cwd=tmp_path, code=77)
    finally:
        tmp_path.chmod(0o755)
    assert "new cannot be made (Permission denied)" in told


BODY = bytes(range(256)) * 256


@contextmanager
def push_under_way(running: Server) -> Iterator[socket.socket]:
    """Begin to push a layer: the server has asked for its body and got half of it."""
    image = "a" * 64
    connection = running.connection()
    connection.request("PUT", f"/v1/images/{image}/json", body=f'{{"id": "{image}"}}')
    assert connection.getresponse().read() == b"true"
    connection.close()
    with socket.create_connection((running.host, running.port), timeout=60) as layer:
        head = f"PUT /v1/images/{image}/layer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BODY)}\r\n"
        layer.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
        assert layer.recv(65536).startswith(b"HTTP/1.1 100"), "the handler waits for the body"
        layer.sendall(BODY[: len(BODY) // 2])
        yield layer


def until_refused(running: Server) -> None:
    """Connect until nobody listens any more."""
    refused = False
    while not refused:
        with socket.socket() as probe:
            refused = probe.connect_ex((running.host, running.port)) == errno.ECONNREFUSED


def test_a_push_under_way_finishes_after_sigterm(server: StartServer) -> None:
    """New connections are refused at once, the transfer is acknowledged, and then the server ends."""
    running = server(workers=2)
    with push_under_way(running) as layer:
        running.process.terminate()
        until_refused(running)
        assert running.process.poll() is None
        layer.sendall(BODY[len(BODY) // 2 :])
        assert layer.recv(65536).startswith(b"HTTP/1.1 200")
    assert running.process.wait(60) == 0
    running.wait_gone()


def test_a_transfer_that_never_ends_is_cut_after_the_grace(server: StartServer) -> None:
    """Half a layer leaves nothing behind but a server that ended with success."""
    running = server(flags=["--grace-s", "0.2"])
    with push_under_way(running) as layer:
        assert running.stop() == 0
        with contextlib.suppress(ConnectionResetError):
            assert layer.recv(65536) == b""


def test_a_second_signal_cuts_transfers_at_once(server: StartServer) -> None:
    """An operator in a hurry does not wait for the grace."""
    running = server(flags=["--grace-s", "3600"])
    with push_under_way(running):
        running.process.terminate()
        until_refused(running)
        assert running.stop() == 0
        assert "transfers under way are cut" in running.log()
