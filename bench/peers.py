"""Brings the servers that ours is compared with: Debian's packages as root, others by the Go of this machine.

`python -m bench.peers` says what it could not do, and never fails: a peer that is missing has no column.
"""

from __future__ import annotations

import os
import shutil
import sys

from bench.field import BUILT, GO_PROGRAMS, PEERS, ROOT, found
from tests.support.peers import quietly, services_stay_off

PACKAGES = {"docker-registry": "docker-registry", "nginx": "nginx-light"}
# A module each, since neither runs with the versions that the other asks for.
MODULES = ROOT / "bench" / "go"


def install() -> None:
    """Bring what is missing, where this machine lets us."""
    absent = [package for name, package in PACKAGES.items() if found(name) is None]
    if absent and os.geteuid() == 0 and shutil.which("apt-get"):
        quietly("apt-get", "update", "-qq")
        with services_stay_off():
            quietly("apt-get", "install", "-y", "-qq", "--no-install-recommends", *absent)
    for name in GO_PROGRAMS:
        if found(name) is None and shutil.which("go"):
            _build(name)
    for name in PEERS:
        if found(name) is None:
            print(f"bench: no {name} on this machine; it is left out", file=sys.stderr)


def _build(name: str) -> None:
    BUILT.mkdir(exist_ok=True)
    quietly(
        "go", "build", "-mod=readonly", "-trimpath", "-tags=containers_image_openpgp", "-o", str(BUILT / name), "tool",
        cwd=MODULES / name,
    )  # fmt: skip


if __name__ == "__main__":
    install()
