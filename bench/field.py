"""The servers that are compared: ours, three other registries, nginx; how each starts, what it used.

All of them serve one loopback address with what this machine has, from folders beside each other on one disk.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

import psutil

from bench.load import MIB, Address
from tests.support.certificates import Authority
from tests.support.serving import starting

ROOT = Path(__file__).parents[1]
BUILT = ROOT / ".clients"
REGISTRIES = ("docker-registry", "distribution", "zot")
PEERS = (*REGISTRIES, "nginx")
GO_PROGRAMS = ("distribution", "zot")
WORKERS = 2
_DISTRIBUTION = """version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage:
  filesystem: {{rootdirectory: {data}}}
  cache: {{blobdescriptor: inmemory}}
  delete: {{enabled: true}}
http:
  addr: 127.0.0.1:{port}
{tls}"""
_ZOT = {"distSpecVersion": "1.0.1-dev", "log": {"level": "error"}}
_NGINX = """{user}
worker_processes {workers};
daemon off;
error_log stderr error;
pid {folder}/nginx.pid;
events {{ worker_connections 256; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{ listen 127.0.0.1:{port}; root {data}; }}
}}
"""


@dataclass(slots=True)
class Runner:
    """A server that runs: where, as which processes, and where its bytes lie."""

    name: str
    address: Address
    data: Path
    processes: Callable[[], list[int]]

    def called(self, name: str) -> Runner:
        """Return the same server under another name."""
        return replace(self, name=name)

    def cpu_s(self) -> float:
        """CPU-seconds of all its processes so far."""
        times = [psutil.Process(pid).cpu_times() for pid in self.processes()]
        return sum(spent.user + spent.system for spent in times)

    def forget_peak(self) -> None:
        """Let the kernel begin anew with the highest resident set."""
        for pid in self.processes():
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def forget_files(self) -> None:
        """Let what its files hold leave the page cache; it must have been written to the disk."""
        for path in self.data.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def peak_rss_mib(self) -> float:
        """The highest resident sets of its processes, added up; pages they share count in each."""
        return sum(status_kib(pid, "VmHWM") for pid in self.processes()) / 1024

    def disk_bytes(self) -> int:
        """What its files take on disk."""
        return sum(path.lstat().st_blocks * 512 for path in self.data.rglob("*") if path.is_file())


@dataclass(slots=True)
class Field:
    """Starts servers in a folder of its own; at leaving all of them end, and the folder goes."""

    below: Path
    authority: Authority | None = None
    _stack: ExitStack = field(default_factory=ExitStack)
    _folder: Path = field(default_factory=Path)
    _started: int = 0

    def __enter__(self) -> Self:
        self._folder = Path(self._stack.enter_context(TemporaryDirectory(dir=self.below)))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self, name: str, *flags: str) -> Runner:
        """Start one by its name; `flags` are for ours alone."""
        self._started += 1
        folder = self._folder / f"{self._started}-{name}"
        folder.mkdir()
        how = {"cas": self._cas, "nginx": self._nginx, "zot": self._zot}.get(name, self._distribution)
        return how(name, folder, flags)

    def beside(self, runner: Runner, *flags: str) -> Runner:
        """Start another one of ours, on the store of one that runs."""
        return self._cas(runner.name, runner.data.parent, flags)

    def _enter(self, process: AbstractContextManager[subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
        return self._stack.enter_context(process)

    def _cas(self, name: str, folder: Path, flags: Sequence[str]) -> Runner:
        tls = ("--tls-cert", self.authority.certificate, "--tls-key", self.authority.key) if self.authority else ()
        server = self._stack.enter_context(starting(folder))(
            folder / "data", workers=WORKERS, flags=["--mode", "open", *tls, *flags]
        )
        return Runner(name, Address(server.port, self._context()), folder / "data", server.pids)

    def _distribution(self, name: str, folder: Path, _: Sequence[str]) -> Runner:
        port, config, tls = _free_port(), folder / "config.yml", ""
        if self.authority:
            tls = f"  tls: {{certificate: {self.authority.certificate}, key: {self.authority.key}}}\n"
        config.write_text(_DISTRIBUTION.format(data=folder / "data", port=port, tls=tls))
        return self._one_process(name, folder, config, port)

    def _zot(self, name: str, folder: Path, _: Sequence[str]) -> Runner:
        port, config, tls = _free_port(), folder / "config.json", {}
        if self.authority:
            tls = {"tls": {"cert": str(self.authority.certificate), "key": str(self.authority.key)}}
        storage = {"rootDirectory": str(folder / "data"), "gc": False}  # the others collect nothing by themselves
        config.write_text(
            json.dumps(_ZOT | {"storage": storage, "http": {"address": "127.0.0.1", "port": str(port), **tls}})
        )
        return self._one_process(name, folder, config, port)

    def _one_process(self, name: str, folder: Path, config: Path, port: int) -> Runner:
        (folder / "data").mkdir()
        program = found(name)
        assert program is not None, name
        process = self._enter(_running([program, "serve", str(config)], port, OTEL_TRACES_EXPORTER="none"))
        return Runner(name, Address(port, self._context()), folder / "data", lambda: [process.pid])

    def _nginx(self, name: str, folder: Path, _: Sequence[str]) -> Runner:
        port, config, data = _free_port(), folder / "nginx.conf", folder / "data"
        data.mkdir()
        user = "user root;" if os.geteuid() == 0 else ""
        config.write_text(_NGINX.format(user=user, workers=WORKERS, folder=folder, data=data, port=port))
        program = found(name)
        assert program is not None, name
        process = self._enter(_running([program, "-p", str(folder), "-e", "stderr", "-c", str(config)], port))
        family = psutil.Process(process.pid)
        return Runner(name, Address(port), data, lambda: [process.pid, *(child.pid for child in family.children())])

    def _context(self) -> ssl.SSLContext | None:
        return ssl.create_default_context(cafile=self.authority.ca) if self.authority else None


def found(name: str) -> str | None:
    """Give the path of a peer's program, where it is on this machine."""
    if name in GO_PROGRAMS:
        built = BUILT / name
        return str(built) if built.exists() else None
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"]))


@contextmanager
def _running(command: list[str], port: int, **extra: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        command,
        env={**os.environ, **extra},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        _wait_for(port, process)
        yield process
    finally:
        process.terminate()
        try:
            process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert process.poll() is None, f"{process.args!r} ended: {process.communicate()[1]!r}"
            assert time.monotonic() < deadline, f"{process.args!r} did not start"
            time.sleep(0.02)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


def status_kib(pid: int, name: str) -> int:
    """Give a figure of a process from the kernel, in KiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    return 0


def room_bytes(folder: Path) -> int:
    """Free bytes of the disk that is measured, a GiB kept back."""
    return max(0, shutil.disk_usage(folder).free - 1024 * MIB)
