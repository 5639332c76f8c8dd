"""The registry that real clients speak to: a `cas serve` of two workers, plain or TLS, open or with accounts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.certificates import Authority
from tests.support.endpoint import Account, Endpoint
from tests.support.serving import run_cas, starting

BOB = Account("bob", "bob's secret")
EVE = Account("eve", "eve's secret")
OLGA = Account("olga", "olga's secret")


@contextmanager
def running(folder: Path, authority: Authority, transport: str, mode: str, *flags: str) -> Iterator[Endpoint]:
    """Serve `folder/root` until left; with accounts the endpoint comes as BOB, and EVE and OLGA are there too.

    At the end the server must stop in good order, and have had nothing to complain of.
    """
    told: list[str | Path] = ["--mode", mode, "--signup", "true", *flags]
    if transport == "tls":
        told += ["--tls-cert", authority.certificate, "--tls-key", authority.key]
    with starting(folder) as start:
        server = start(workers=2, flags=told)
        account = None
        if mode == "auth":
            for each in (BOB, EVE, OLGA):
                cas(server.root, "user", "add", each.name, "--password-stdin", stdin=f"{each.password}\n")
            account = BOB
        yield Endpoint(f"{server.host}:{server.port}", authority.ca if transport == "tls" else None, account)
        assert server.stop() == 0, server.log()
        troubles = [line for line in server.log().splitlines() if "there is no account yet" not in line]
        assert not troubles, troubles


def publish(folder: Path, repository: str) -> None:
    """Let everybody pull a repository of the server that runs in a folder."""
    cas(folder / "root", "repo", "set", repository, "--public")


def cas(root: Path, *arguments: str, stdin: str = "") -> None:
    """Run an operator's command beside the server; it must succeed."""
    ended = run_cas(*arguments, "--root", root, stdin=stdin)
    assert ended.returncode == 0, f"{ended.args}\n{ended.stderr}"
