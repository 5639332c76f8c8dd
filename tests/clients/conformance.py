"""The upstream conformance program of the OCI distribution specification, run against a server of ours.

`python -m tests.clients.conformance` runs every round with a fresh server, prints each summary, and fails unless
nothing failed and nothing was skipped. Reports stay in `.clients/`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support import registry
from tests.support.certificates import loopback_authority
from tests.support.endpoint import Endpoint
from tests.support.peers import BUILT, install, path_of

# (version of the specification, transport, mode)
ROUNDS = (("1.1", "plain", "open"), ("dev", "plain", "open"), ("1.1", "tls", "auth"), ("dev", "tls", "auth"))
# A mount that names no source finds what its token may pull; no client can ask for a token of what it cannot name.
PUBLIC = ("--default-access", "public")
_COUNT = re.compile(r"^  (Pass|FAIL|Error|Skip|Disabled|Total)\.+: +(\d+)$", re.MULTILINE)
_BAD = re.compile(r"^ *(OCI Conformance Test/.*): (FAIL|Error|Skip)$\n((?: *- .*\n)?)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the program counted, and each test that did not pass, with its first reason."""

    counts: Mapping[str, int]
    bad: tuple[str, ...]

    @property
    def clean(self) -> bool:
        return self.counts["Pass"] > 0 and not self.bad and not any(self.counts[at] for at in ("FAIL", "Error", "Skip"))

    def __str__(self) -> str:
        return ", ".join(f"{count} {name.lower()}" for name, count in self.counts.items())


def run(at: Endpoint, version: str, results: Path) -> Outcome:
    """Run the whole program against a registry; its reports go to a folder."""
    settings = {
        "OCI_VERSION": version,
        "OCI_REGISTRY": at.address,
        "OCI_TLS": "enabled" if at.ca else "disabled",
        "OCI_REPO1": "bob/one",
        "OCI_REPO2": "bob/two",
        "OCI_RESULTS_DIR": str(results),
    }
    if at.ca:
        settings["SSL_CERT_FILE"] = str(at.ca)
    if at.account:
        settings |= {"OCI_USERNAME": at.account.name, "OCI_PASSWORD": at.account.password}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OCI_")}
    ended = subprocess.run(
        [path_of("conformance")],
        env={**inherited, **settings},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    counts = {name: int(count) for name, count in _COUNT.findall(ended.stdout)}
    assert "Total" in counts, ended.stdout[-2000:] + ended.stderr[-2000:]
    bad = tuple(f"{name}: {state} {reason.strip()}" for name, state, reason in _BAD.findall(ended.stdout))
    return Outcome(counts, bad)


def main() -> int:
    """Run every round; give the exit code."""
    install()
    code = 0
    for version, transport, mode in ROUNDS:
        with TemporaryDirectory(prefix="cas-") as name:
            authority = loopback_authority(Path(name) / "authority")
            with registry.running(Path(name), authority, transport, mode, *PUBLIC) as at:
                outcome = run(at, version, BUILT / f"results-{version}-{transport}-{mode}")
        code |= not outcome.clean
        print(*outcome.bad, f"OCI {version}, {transport}, {mode}: {outcome}", sep="\n")  # noqa: T201
    return code


if __name__ == "__main__":
    sys.exit(main())
