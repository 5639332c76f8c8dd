"""A real `cas serve` for tests: on a free port, spoken to over sockets, ended in every way there is."""

from __future__ import annotations

import http.client
import os
import re
import selectors
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Protocol

import psutil

CAS = str(Path(sys.executable).with_name("cas"))
READY_WITHIN_S = 60.0
STOP_WITHIN_S = 60.0
_READY = re.compile(r"cas \S+ serving (?P<root>.+) at (?P<scheme>https?)://(?P<host>.+):(?P<port>\d+)\n")


def clean_environment(**extra: str) -> dict[str, str]:
    """This process's environment without any CAS_ setting of the machine."""
    return {name: value for name, value in os.environ.items() if not name.startswith("CAS_")} | extra


def without_privileges() -> list[str]:
    """Give what to put before a command so that file permissions bind it even where tests run as root."""
    everything = "-dac_override,-dac_read_search"
    return ["setpriv", "--bounding-set", everything, "--inh-caps", everything] if os.geteuid() == 0 else []


def run_cas(
    *arguments: str | Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    before: Sequence[str] = (),
    stdin: str = "",
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; `before` is another command that runs it."""
    return subprocess.run(
        [*before, CAS, *map(str, arguments)],
        cwd=cwd,
        env=clean_environment(**(env or {})),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@contextmanager
def reserved_port() -> Iterator[int]:
    """Give a port that the kernel gives to nobody meanwhile; until a server listens there it refuses."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


@contextmanager
def serve_process(
    root: Path | None, *flags: str, cwd: Path | None = None, process_group: int | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes], IO[bytes]]]:
    """Begin `cas serve` on a free port, ready or not; give its process and what it says on stdout and stderr."""
    with subprocess.Popen(
        [CAS, "serve", *([] if root is None else ["--root", str(root)]), "--bind", "127.0.0.1:0", *flags],
        cwd=cwd,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        process_group=process_group,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            yield process, process.stdout, process.stderr
        finally:
            process.terminate()


class Server:
    """One running server: a supervisor and its workers."""

    def __init__(self, process: subprocess.Popen[bytes], ready_line: str, log: Path) -> None:
        found = _READY.fullmatch(ready_line)
        assert found is not None, f"not a ready line: {ready_line!r}"
        self.process, self.ready_line, self.log_file = process, ready_line, log
        self.root = Path(found["root"])
        self.host, self.port = found["host"].strip("[]"), int(found["port"])
        self.scheme = found["scheme"]
        self.url = f"{self.scheme}://{found['host']}:{self.port}"
        self._seen: dict[int, psutil.Process] = {}
        self.pids()

    @property
    def pid(self) -> int:
        """The supervisor's."""
        return self.process.pid

    def pids(self) -> list[int]:
        """Supervisor first, then its workers, oldest first."""
        return [self.pid, *self.workers()]

    def workers(self) -> list[int]:
        try:
            children = psutil.Process(self.pid).children()
        except psutil.NoSuchProcess:
            return []
        self._seen |= {child.pid: child for child in children}
        return [child.pid for child in sorted(children, key=lambda child: child.create_time())]

    def log(self) -> str:
        """What it wrote on stderr so far."""
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def connection(self, timeout: float = 30.0) -> http.client.HTTPConnection:
        """Connect; over TLS, whatever the certificate says."""
        if self.scheme == "http":
            return http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return http.client.HTTPSConnection(self.host, self.port, timeout=timeout, context=context)

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
        """One GET on a connection of its own."""
        connection = self.connection()
        try:
            connection.request("GET", path, headers={"Connection": "close", **(headers or {})})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def kill(self) -> None:
        """`kill -9` of the whole server at once: supervisor first, so that it replaces nobody."""
        for pid in self.pids():
            _kill(pid)
        self.wait_gone()

    def stop(self, signum: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to stop, wait until every process is gone, and give the exit code."""
        self.pids()
        self.process.send_signal(signum)
        code = self.process.wait(STOP_WITHIN_S)
        self.wait_gone()
        return code

    def wait_gone(self) -> None:
        """Wait until the supervisor and every worker ever seen have ended."""
        self.process.wait(STOP_WITHIN_S)
        _, alive = psutil.wait_procs(list(self._seen.values()), timeout=STOP_WITHIN_S)
        assert not alive, f"still running: {alive}\n{self.log()}"


class StartServer(Protocol):
    """The fixture `server`."""

    def __call__(
        self,
        root: Path | None = None,
        *,
        workers: int = 1,
        bind: str = "127.0.0.1:0",
        flags: Sequence[str | Path] = (),
        env: Mapping[str, str] | None = None,
    ) -> Server: ...


@contextmanager
def starting(tmp_path: Path) -> Iterator[StartServer]:
    """Give a function that starts servers, and end at leaving whatever of them is left."""
    started: list[tuple[subprocess.Popen[bytes], Server | None]] = []

    def start(
        root: Path | None = None,
        *,
        workers: int = 1,
        bind: str = "127.0.0.1:0",
        flags: Sequence[str | Path] = (),
        env: Mapping[str, str] | None = None,
    ) -> Server:
        log = tmp_path / f"server-{len(started)}.log"
        command = [CAS, "serve", "--root", str(root or tmp_path / "root"), "--bind", bind]
        command += ["--workers", str(workers), *map(str, flags)]
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=clean_environment(**(env or {})),
            )
        started.append((process, None))
        server = Server(process, _ready_line(process, log), log)
        started[-1] = (process, server)
        return server

    try:
        yield start
    finally:
        for process, server in started:
            _end(process, server)


def until(is_so: Callable[[], bool]) -> None:
    """Wait for what must come, with a little patience between looks."""
    between = threading.Event()
    for _ in range(600):
        if is_so():
            return
        between.wait(0.1)
    raise AssertionError("it did not come")


def _ready_line(process: subprocess.Popen[bytes], log: Path) -> str:
    assert process.stdout is not None
    deadline = time.monotonic() + READY_WITHIN_S
    line = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not line.endswith(b"\n"):
            left = deadline - time.monotonic()
            assert left > 0, f"not ready within {READY_WITHIN_S} s\n{log.read_text()}"
            if selector.select(left):
                piece = os.read(process.stdout.fileno(), 4096)
                assert piece, f"ended with exit code {process.wait()} before it was ready\n{log.read_text()}"
                line += piece
    return os.fsdecode(line)


def _end(process: subprocess.Popen[bytes], server: Server | None) -> None:
    try:
        family = [process.pid, *(child.pid for child in psutil.Process(process.pid).children())]
    except psutil.NoSuchProcess:
        family = [process.pid] if process.poll() is None else []
    for pid in family:
        _kill(pid)
    process.wait(STOP_WITHIN_S)
    assert process.stdout is not None
    process.stdout.close()
    if server is not None:
        server.wait_gone()


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
