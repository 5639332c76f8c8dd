"""The programs that tests run against the server: which, where they are found, how they get there.

`python -m tests.support.peers` installs what is missing: Debian packages as root, Go programs by the Go of this
machine, at the versions and checksums of tests/clients/go. It says what it could not do, and never fails.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support import engines

ROOT = Path(__file__).parents[2]
BUILT = ROOT / ".clients"
GO_MODULE = ROOT / "tests" / "clients" / "go"
GO_PROGRAMS = ("conformance", "crane", "oras", "regctl")
# The first package that the distribution knows is taken.
PACKAGES: Mapping[str, tuple[str, ...]] = {
    "buildah": ("buildah",),
    "containerd": ("containerd",),
    "ctr": ("containerd",),
    "curl": ("curl",),
    "docker": ("docker-cli", "docker.io"),
    "docker-registry": ("docker-registry",),
    "dockerd": ("docker.io",),
    "gcc": ("build-essential",),  # with a C library to link statically
    "podman": ("podman",),
    "skopeo": ("skopeo",),
}
# Daemons need root, and so does unpacking images without a user name space.
AS_ROOT = frozenset({"buildah", "containerd", "ctr", "docker", "dockerd", "podman", *engines.PROGRAMS})
POLICY = Path("/usr/sbin/policy-rc.d")
_SEARCHED = os.pathsep.join([str(BUILT), os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def found(program: str) -> str | None:
    """Give the path of a program, built here or installed."""
    return shutil.which(program, path=_SEARCHED)


def path_of(program: str) -> str:
    """Give the path of a program that must be here."""
    path = found(program)
    assert path is not None, f"no {program}: {missing([program])[program]}"
    return path


def missing(programs: Iterable[str]) -> dict[str, str]:
    """Say of each program that cannot be run here what would change that."""
    reasons = {}
    for program in sorted(set(programs)):
        if found(program) is None:
            how = (
                "install Go >= 1.24.2"
                if program in (*GO_PROGRAMS, *engines.PROGRAMS)
                else f"apt-get install {PACKAGES[program][-1]}"
            )
            reasons[program] = f"{how}, then `make test` as before"
        elif program in AS_ROOT and os.geteuid() != 0:
            reasons[program] = "run the tests as root"
    return reasons


def install() -> None:
    """Bring what is missing, where this machine lets us."""
    absent = [program for program in PACKAGES if found(program) is None]
    if absent and os.geteuid() == 0 and shutil.which("apt-get"):
        _install_packages(absent)
    if shutil.which("go") and not _built():
        _build()
    if shutil.which("go"):
        engines.build(BUILT, quietly, _tell)
    for program, how in missing([*PACKAGES, *GO_PROGRAMS, *engines.PROGRAMS]).items():
        _tell(f"no {program}; its tests are left out. To have them: {how}")


def _install_packages(programs: Iterable[str]) -> None:
    _tell("installing " + ", ".join(programs) + " by apt-get")
    quietly("apt-get", "update", "-qq")
    wanted = {next(filter(_known, PACKAGES[program]), PACKAGES[program][-1]) for program in programs}
    with services_stay_off():
        quietly("apt-get", "install", "-y", "-qq", "--no-install-recommends", *sorted(wanted))


def _known(package: str) -> bool:
    told = subprocess.run(["apt-cache", "policy", package], capture_output=True, text=True, check=False).stdout
    return "Candidate: " in told and "Candidate: (none)" not in told


@contextmanager
def services_stay_off() -> Iterator[None]:
    """Keep the packages' daemons from being started: tests start their own, elsewhere."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n", encoding="utf-8")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()


def _built() -> bool:
    programs = [BUILT / program for program in GO_PROGRAMS]
    sources = [GO_MODULE / "go.mod", GO_MODULE / "go.sum"]
    return all(program.exists() for program in programs) and min(
        program.stat().st_mtime_ns for program in programs
    ) >= max(source.stat().st_mtime_ns for source in sources)


def _build() -> None:
    _tell("building " + ", ".join(GO_PROGRAMS))
    BUILT.mkdir(exist_ok=True)
    if quietly("go", "build", "-mod=readonly", "-trimpath", "-o", f"{BUILT}{os.sep}", "tool", cwd=GO_MODULE):
        for program in GO_PROGRAMS:
            (BUILT / program).touch()  # go leaves a program alone that is up to date


def quietly(*command: str, cwd: Path = ROOT) -> bool:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    ended = subprocess.run(
        command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if ended.returncode:
        _tell(f"{' '.join(command)} failed:\n{(ended.stdout + ended.stderr)[-2000:]}")
    return ended.returncode == 0


def _tell(line: str) -> None:
    print(f"clients: {line}", file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    install()
