"""The access log of the real command: where it goes, who writes to it, and what is said when it cannot be."""

from __future__ import annotations

import threading
from base64 import b64encode
from pathlib import Path

import psutil
import pytest

from tests.support.access_lines import lines, read
from tests.support.endpoint import Account, Endpoint, Witness
from tests.support.registry import BOB, cas
from tests.support.serving import Server, StartServer, run_cas, without_privileges

PING = "/v1/_ping"


def test_without_the_setting_there_is_no_log(server: StartServer, tmp_path: Path) -> None:
    """Neither a line anywhere nor a file."""
    running = server()
    assert running.get(PING)[0] == 200
    assert running.stop() == 0
    assert running.process.stdout is not None
    assert (running.process.stdout.read(), running.log()) == (b"", "")
    assert {path.name for path in tmp_path.iterdir()} == {"root", "server-0.log"}


def test_standard_output_gets_the_lines_of_every_worker(server: StartServer) -> None:
    """Below the ready line; also those of a worker that took a dead one's place."""
    running = server(workers=2, env={"CAS_ACCESS_LOG": "-"})
    assert running.process.stdout is not None
    assert running.get("/one")[0] == 404
    written = running.process.stdout.readline()  # a line comes after its answer, and of a killed worker not at all
    for pid in running.workers():
        worker = psutil.Process(pid)
        worker.kill()
        worker.wait(60)
    assert running.get("/two", {"User-Agent": "probe"})[0] == 404
    assert running.stop() == 0
    found = read((written + running.process.stdout.read()).decode())
    assert [(line.request, line.agent) for line in found] == [
        ("GET /one HTTP/1.1", "-"),
        ("GET /two HTTP/1.1", "probe"),
    ]


def test_lines_of_several_workers_do_not_mix(server: StartServer, tmp_path: Path) -> None:
    """Long ones, from many clients at once, in one file that all workers hold open: each is whole, none is lost."""
    log, clients, each = tmp_path / "access.log", 8, 40
    running = server(workers=2, flags=["--access-log", log])
    agent = "x" * 2000

    def ask(number: int) -> None:
        for at in range(each):
            assert running.get(f"/{number}/{at}", {"User-Agent": agent})[0] == 404

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for pid in running.workers():
        assert str(log) in {file.path for file in psutil.Process(pid).open_files()}
    assert running.stop() == 0
    found = lines(log)
    assert {line.agent for line in found} == {agent}
    wanted = sorted(f"GET /{number}/{at} HTTP/1.1" for number in range(clients) for at in range(each))
    assert sorted(line.request for line in found) == wanted


def as_account(running: Server, account: Account) -> Witness:
    return Witness(Endpoint(f"{running.host}:{running.port}", account=account))


def test_every_worker_begins_a_moved_log_anew_and_accounts_are_named(server: StartServer, tmp_path: Path) -> None:
    """As logrotate moves it: no signal, no restart, no line lost."""
    (tmp_path / "cas.toml").write_text(f'access_log = "{tmp_path}/access.log"\nmode = "auth"\n')
    log, moved = tmp_path / "access.log", tmp_path / "access.log.1"
    running = server(workers=2, flags=["--config", tmp_path / "cas.toml"])
    cas(running.root, "user", "add", BOB.name, "--password-stdin", stdin=f"{BOB.password}\n")
    assert as_account(running, BOB).ask("GET", "/v2/").status == 200
    written = threading.Event()  # a line comes after its answer
    while not lines(log):
        written.wait(0.01)
    log.rename(moved)
    assert as_account(running, Account("bob", "wrong")).ask("GET", "/v2/").status == 401
    for _ in range(20):
        assert as_account(running, BOB).ask("HEAD", "/v2/").status == 200
    assert running.stop() == 0
    assert [line.short for line in lines(moved)] == [("bob", "GET /v2/", 200)]
    found = sorted(line.short for line in lines(log))
    assert found == [("!bob", "GET /v2/", 401)] + 20 * [("bob", "HEAD /v2/", 200)]
    for path in (log, moved):
        assert path.stat().st_mode & 0o777 == 0o640
        assert BOB.basic not in path.read_text()
        assert b64encode(b"wrong").decode() not in path.read_text()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing/access.log", "cannot be written: No such file or directory; make its folder"),
        ("folder", "cannot be written: Is a directory; make its folder, let this user write there, or name another"),
        ("locked/access.log", "cannot be written: Permission denied; make its folder, let this user write there"),
        ("/dev/null", "is no file; name one, or - for standard output"),
    ],
)
def test_a_log_that_cannot_be_written_is_one_line_before_anything_starts(
    tmp_path: Path, name: str, reason: str
) -> None:
    """Exit code 2, and no store is made."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "locked").mkdir(mode=0o555)
    ended = run_cas("serve", "--bind", "127.0.0.1:0", "--access-log", name, cwd=tmp_path, before=without_privileges())
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert ended.stderr.startswith(f"cas: the access log {name} {reason}")
    assert not (tmp_path / "data").exists()


def test_a_worker_takes_a_dead_ones_place_though_its_log_cannot_be_opened(server: StartServer, tmp_path: Path) -> None:
    """Lines are lost and that is told once, but nobody goes without an answer; once it can be opened, it is."""
    folder = tmp_path / "logs"
    folder.mkdir()
    running = server(flags=["--access-log", folder / "access.log"])
    moved = folder.rename(tmp_path / "gone")
    for _ in range(2):
        (pid,) = running.workers()
        worker = psutil.Process(pid)
        worker.kill()
        worker.wait(60)
        assert running.get("/lost")[0] == running.get("/lost")[0] == 404
    assert running.log().count("The access log cannot be written, and lines are lost: ") == 2
    moved.rename(folder)
    assert running.get("/again")[0] == 404
    assert running.stop() == 0
    assert "Traceback" not in running.log()
    # A client has its answer before the line is written: so the last of those before may have found the file.
    assert [line.request for line in lines(folder / "access.log")][-1] == "GET /again HTTP/1.1"


def test_no_standard_output_is_told_as_well(tmp_path: Path) -> None:
    """A service manager may have closed it."""
    shell = ["sh", "-c", 'exec "$@" >&-', "sh"]
    ended = run_cas("serve", "--bind", "127.0.0.1:0", "--access-log", "-", cwd=tmp_path, before=shell)
    assert ended.returncode == 2
    assert ended.stderr.startswith("cas: standard output is closed and takes no access log; name a file")
