"""What is done about workers that die, and what they are told."""

from __future__ import annotations

import dataclasses
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from api.access.settings import AccessSettings, Mode
from api.config import HttpSettings
from api.content.settings import KeepingSettings
from api.tls import Files
from api.v1.settings import V1Settings
from api.v2.settings import V2Settings
from cas import EngineSettings
from tests.support.serving import serve_process
from tools.order import Order
from tools.supervisor import MOST_DELAY_S, how, restart_delay_s


def test_an_accident_is_mended_at_once() -> None:
    """A worker that served for a while is replaced without delay."""
    assert restart_delay_s(0) == 0


def test_a_worker_that_keeps_dying_is_given_ever_more_time_up_to_a_limit() -> None:
    """No busy loop, and yet a cause that goes away is noticed soon."""
    delays = [restart_delay_s(deaths) for deaths in range(1, 2000)]
    assert delays == sorted(delays)
    assert 0 < delays[0] < 1
    assert delays[-1] == MOST_DELAY_S


HOPELESS = """
import sys
from pathlib import Path
from api.config import HttpSettings
from api.content.settings import KeepingSettings
from api.v1.settings import V1Settings
from cas import EngineSettings
from api.access.settings import AccessSettings
from api.v2.settings import V2Settings
from tools import exits
from tools.order import Order
from tools.supervisor import Supervisor

order = Order(
    root=Path(sys.argv[1]),
    sockets=(),
    log_level="warning",
    engine=EngineSettings(),
    http=HttpSettings(),
    v1=V1Settings(),
    v2=V2Settings(),
    access=AccessSettings(),
    keeping=KeepingSettings(),
)
try:
    Supervisor(order, 2, on_ready=lambda: print("ready"), on_stop=lambda: None).run()
except Exception as error:
    sys.exit(exits.report(error))
"""


def test_workers_that_cannot_start_end_the_server_with_their_own_code(tmp_path: Path) -> None:
    """A store that goes away between the check and the start is no reason to try for ever."""
    ended = subprocess.run(
        [sys.executable, "-c", HOPELESS, str(tmp_path / "gone")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (66, "")
    assert "gone does not exist" in ended.stderr
    assert "a worker ended while starting" in ended.stderr


def test_an_order_reads_back_as_it_was_given() -> None:
    """What a worker is told is what the operator told, `no limit` included."""
    order = Order(
        root=Path("/srv/cas"),
        sockets=(3, 4),
        log_level="info",
        engine=EngineSettings(pack_bytes=1 << 20),
        http=HttpSettings(max_layer_bytes=None, stall_s=0.5),
        v1=V1Settings(max_chain=7),
        v2=V2Settings(tags_page=7),
        access=AccessSettings(mode=Mode.AUTH),
        keeping=KeepingSettings(gc_interval_s=0),
        tls=Files(Path("/etc/cas/cert.pem"), Path("/etc/cas/key.pem")),
        access_log="/var/log/cas/access.log",
        place=1,
        balance=6,
        counts=7,
        monitors=(8, 9),
    )
    assert Order.from_line(order.to_line()) == order
    assert Order.from_line(order.to_line()).access.mode is Mode.AUTH
    plain = dataclasses.replace(order, tls=None, access_log=5)
    assert plain.inherited == (3, 4, 8, 9, 5, 6, 7)
    assert dataclasses.replace(plain, balance=None, counts=None, monitors=()).inherited == (3, 4, 5)
    assert Order.from_line(plain.to_line()) == plain
    assert order.to_line().count(b"\n") == 1


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, "ended with exit code 0"),
        (74, "ended with exit code 74"),
        (-9, "was killed by SIGKILL"),
        (-40, "was killed by signal 40"),
    ],
)
def test_how_a_worker_ended_is_put_in_words(status: int, words: str) -> None:
    """Also for signals that have no name."""
    assert how(status) == words


def test_a_machine_that_is_out_of_descriptors_for_a_moment_costs_no_server(tmp_path: Path) -> None:
    """A worker that cannot be started is tried again, meanwhile nobody waits for it, and again the server is whole."""
    with serve_process(tmp_path / "root", "--workers", "1") as (process, stdout, stderr):
        port = int(stdout.readline().rpartition(b":")[2])
        supervisor = psutil.Process(process.pid)
        _, most = supervisor.rlimit(psutil.RLIMIT_NOFILE)
        memory = next(
            each for each in Path(f"/proc/{process.pid}/fd").iterdir() if "cas-evenly" in str(each.readlink())
        )
        assert any(memory.read_bytes())
        supervisor.rlimit(psutil.RLIMIT_NOFILE, (5, most))
        supervisor.children()[0].kill()
        assert b"was killed by SIGKILL" in stderr.readline()
        assert b"cannot be started (Too many open files)" in stderr.readline()
        assert not any(memory.read_bytes())
        supervisor.rlimit(psutil.RLIMIT_NOFILE, (most, most))
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            connection.sendall(b"GET /v1/_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        process.terminate()
        assert process.wait(60) == 0
