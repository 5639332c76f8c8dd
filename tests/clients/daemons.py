"""dockerd and containerd as tests need them: in folders of their own, without network, beside any of the machine's."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from tests.support.peers import path_of

READY_WITHIN_S = 60.0
_ASKED_AGAIN_AFTER_S = 0.05


@contextmanager
def dockerd(folder: Path, ca: Path) -> Iterator[str]:
    """Run an engine that trusts our authority; give what DOCKER_HOST must say."""
    socket, config = folder / "docker.sock", folder / "daemon.json"
    config.write_text("{}", encoding="utf-8")
    flags = [
        f"--config-file={config}",
        f"--data-root={folder / 'data'}",
        f"--exec-root={folder / 'exec'}",
        f"--pidfile={folder / 'pid'}",
        f"--host=unix://{socket}",
        "--iptables=false",
        "--ip6tables=false",
        "--bridge=none",
        "--storage-driver=vfs",
    ]
    host = f"unix://{socket}"
    ready = partial(_succeeds, ["docker", "--host", host, "version"])
    with running(["dockerd", *flags], folder / "log", {"SSL_CERT_FILE": str(ca)}, ready):
        yield host


@contextmanager
def containerd(folder: Path) -> Iterator[Path]:
    """Run a containerd with nothing but what moves images; give its socket."""
    socket, config = folder / "containerd.sock", folder / "config.toml"
    lines = [
        "version = 2",
        f'root = "{folder / "root"}"',
        f'state = "{folder / "state"}"',
        'disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]',
        f'[grpc]\naddress = "{socket}"\n[ttrpc]\naddress = "{socket}.ttrpc"',
    ]
    config.write_text("\n".join(lines) + "\n", encoding="utf-8")
    ready = partial(_succeeds, ["ctr", "--address", str(socket), "version"])
    with running(["containerd", "--config", str(config)], folder / "log", {}, ready):
        yield socket


@contextmanager
def running(
    command: Sequence[str], log: Path, extra: dict[str, str], ready: Callable[[], bool]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a daemon until left, from when it is ready."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", path_of(command[0]), *command[1:]],
            env={**os.environ, **extra},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        _wait_ready(process, ready, log)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(READY_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_ready(process: subprocess.Popen[bytes], is_ready: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while not is_ready():
        with suppress(subprocess.TimeoutExpired):
            code = process.wait(_ASKED_AGAIN_AFTER_S)
            raise AssertionError(f"ended with {code}: {log.read_text(errors='replace')[-3000:]}")
        assert time.monotonic() < deadline, f"not ready: {log.read_text(errors='replace')[-3000:]}"


def _succeeds(command: Sequence[str]) -> bool:
    return (
        subprocess.run([path_of(command[0]), *command[1:]], capture_output=True, timeout=30, check=False).returncode
        == 0
    )
