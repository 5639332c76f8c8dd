"""Which client does what: the table that the tests walk through and docs/clients.md shows.

`python -m tests.clients.matrix` writes the document's table anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

DOCUMENT = Path(__file__).parents[2] / "docs" / "clients.md"
VERBS = ("push", "pull", "list", "delete", "search", "login")
# What a client has no command for is absent here, and a dash in the document.
ABLE: Mapping[str, tuple[str, ...]] = {
    "docker": ("push", "pull", "search", "login"),
    "ctr": ("push", "pull"),
    "podman": ("push", "pull", "list", "search", "login"),
    "buildah": ("push", "pull", "login"),
    "skopeo": ("push", "pull", "list", "delete", "login"),
    "crane": ("push", "pull", "list", "delete", "login"),
    "oras": ("push", "pull", "list", "delete", "login"),
    "regctl": ("push", "pull", "list", "delete", "login"),
}
TRANSPORTS = ("plain", "tls")
MODES = ("open", "auth")
# What a client's cells need on the machine beside the client itself.
DAEMONS: Mapping[str, str] = {"docker": "dockerd", "ctr": "containerd"}


def cells(*verbs: str) -> list[tuple[str, str, str, str]]:
    """Give (client, verb, transport, mode) of every cell of these verbs."""
    return [
        (client, verb, transport, mode)
        for client, able in ABLE.items()
        for verb in able
        if verb in verbs
        for transport in TRANSPORTS
        for mode in modes_of(verb)
    ]


def modes_of(verb: str) -> tuple[str, ...]:
    """Nobody logs in where there are no accounts."""
    return ("auth",) if verb == "login" else MODES


def marks_of(client: str) -> list[pytest.MarkDecorator]:
    """Say what must be on the machine for a client's tests."""
    return [pytest.mark.needs(client, *([DAEMONS[client]] if client in DAEMONS else []))]


def table() -> str:
    """Write the matrix as the document shows it."""
    lines = ["| client, over plain http and TLS | " + " | ".join(VERBS) + " |", "| --- |" + " --- |" * len(VERBS)]
    for client, able in ABLE.items():
        shown = (", ".join(modes_of(verb)) if verb in able else "–" for verb in VERBS)
        lines.append(f"| {client} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def with_table(text: str) -> str:
    """Give the document with its table as it should be."""
    before, found, after = text.partition("\n| client, over")
    assert found, "no table of clients in the document"
    rest = after.partition("\n\n")[2]
    return f"{before}\n{table()}\n\n{rest}"


if __name__ == "__main__":
    DOCUMENT.write_text(with_table(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
