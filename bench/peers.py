"""Brings the servers that ours is compared with: Debian's packages as root, distribution v3 by the Go of this machine.

`python -m bench.peers` says what it could not do, and never fails: a peer that is missing has no column.
"""

from __future__ import annotations

import os
import shutil
import sys

from bench.field import BUILT, GO_MODULE, found
from tests.support.peers import quietly, services_stay_off

PACKAGES = {"docker-registry": "docker-registry", "nginx": "nginx-light"}
PROGRAM = "github.com/distribution/distribution/v3/cmd/registry"
ALL = ("docker-registry", "distribution", "nginx")


def install() -> None:
    """Bring what is missing, where this machine lets us."""
    absent = [package for name, package in PACKAGES.items() if found(name) is None]
    if absent and os.geteuid() == 0 and shutil.which("apt-get"):
        quietly("apt-get", "update", "-qq")
        with services_stay_off():
            quietly("apt-get", "install", "-y", "-qq", "--no-install-recommends", *absent)
    if found("distribution") is None and shutil.which("go"):
        BUILT.mkdir(exist_ok=True)
        quietly("go", "build", "-mod=readonly", "-trimpath", "-o", str(BUILT / "registry"), PROGRAM, cwd=GO_MODULE)
    for name in ALL:
        if found(name) is None:
            print(f"bench: no {name} on this machine; it is left out", file=sys.stderr)


if __name__ == "__main__":
    install()
