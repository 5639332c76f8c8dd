"""What imports and exports are tried with: folders that other registries made, and runs that end in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from api.content.repositories import Access
from api.content.repository import Repository
from api.porting import distribution, oci, outgoing, v1
from api.porting.folder import Folder
from api.porting.report import Report, Skipped
from api.porting.terms import Terms
from api.v1.settings import V1Settings
from cas import Store
from tests.support.endpoint import Endpoint
from tests.support.peers import path_of
from tests.support.processes import run_to_its_death

READY_WITHIN_S = 60
NOW = 1_800_000_000.0
LIST_BYTES = 4 << 20


@dataclass(slots=True)
class Run:
    """One import or export: what it counted, and what it left out."""

    left: list[Skipped] = field(default_factory=list)
    report: Report = field(default_factory=Report)

    def __post_init__(self) -> None:
        self.report.left_out = self.left.append

    def said(self) -> str:
        return "\n".join(f"{each.what}: {each.why}" for each in self.left)


def terms(now: float = NOW, access: Access = Access.PRIVATE) -> Terms:
    return Terms(access, lambda: now, LIST_BYTES, LIST_BYTES, V1Settings())


def bring(
    kind: str, folder: Path, store: Store, given: Terms | None = None, moved: Callable[[Report], object] = bool
) -> Run:
    """Import a folder; a layout goes into `acme/app`."""
    run, given = Run(), given or terms()
    run.report.moved = moved
    with Folder(folder) as opened:
        if kind == "oci":
            oci.read(opened, Repository.of("acme/app"), store, given, run.report)
        else:
            {"distribution": distribution.read, "v1": v1.read}[kind](opened, store, given, run.report)
    return run


def take(
    store: Store, repository: str, folder: Path, tag: str | None = None, moved: Callable[[Report], object] = bool
) -> Run:
    """Export a repository."""
    run = Run()
    run.report.moved = moved
    outgoing.write(store, Repository.of(repository), tag, folder, LIST_BYTES, run.report)
    return run


def dying(after: int) -> Callable[[Report], None]:
    """Give a listener that kills its own process at the so-manieth word."""
    left = after

    def moved(_: Report) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return moved


def die_in(code: str, *arguments: str | Path) -> None:
    """Run a line of Python to its death; it finds everything of this module, and its arguments in `a`."""
    run_to_its_death(f"import sys; from tests.support.porting import *; a = sys.argv[1:]; {code}", *arguments)


@contextmanager
def docker_registry(root: Path) -> Iterator[Endpoint]:
    """Run Debian's distribution on a folder."""
    config = root.with_name(f"{root.name}.yml")
    config.write_text(
        "version: 0.1\nlog: {accesslog: {disabled: true}, level: info}\n"
        f"storage: {{filesystem: {{rootdirectory: {root}}}, delete: {{enabled: true}}}}\n"
        "http: {addr: '127.0.0.1:0'}\n",
        encoding="utf-8",
    )
    with subprocess.Popen(
        [path_of("docker-registry"), "serve", config], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        address: list[str] = []
        ready = threading.Event()
        reader = threading.Thread(target=_listen, args=(process, address, ready))
        reader.start()
        try:
            assert ready.wait(READY_WITHIN_S), "it does not start"
            assert address, "it ended"
            yield Endpoint(address[0])
        finally:
            process.terminate()
            reader.join(READY_WITHIN_S)


def _listen(process: subprocess.Popen[str], address: list[str], ready: threading.Event) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if "listening on " in line and not address:
            address.append(line.partition("listening on ")[2].partition('"')[0].strip())
            ready.set()
    ready.set()
