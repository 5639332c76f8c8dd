"""What tests with real clients share: four registries, two daemons, and clients that come as somebody."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.clients import daemons
from tests.clients.drivers import CLIENTS, Client
from tests.support import registry
from tests.support.certificates import Authority, loopback_authority
from tests.support.endpoint import Account, Endpoint

# Sockets have at most 108 characters, and podman wants less than 50 for a folder: the usual ones are too long.
_SHORT = "cas-"


@dataclass(slots=True)
class World:
    """Everything long-lived; each part is started when first asked for, once a test process."""

    folder: Path
    authority: Authority
    stack: ExitStack
    _endpoints: dict[tuple[str, str], Endpoint] = field(default_factory=dict)
    _daemons: dict[str, str] = field(default_factory=dict)

    def endpoint(self, transport: str, mode: str) -> Endpoint:
        if (transport, mode) not in self._endpoints:
            folder = self._made(f"{transport}-{mode}")
            running = registry.running(folder, self.authority, transport, mode)
            self._endpoints[transport, mode] = self.stack.enter_context(running)
        return self._endpoints[transport, mode]

    def publish(self, transport: str, mode: str, repository: str) -> None:
        """Let everybody pull a repository."""
        registry.publish(self.folder / f"{transport}-{mode}", repository)

    def daemon_of(self, client: str) -> str:
        """Give the address of the daemon that a client needs, if it needs any."""
        if client == "docker" and client not in self._daemons:
            self._daemons[client] = self.stack.enter_context(daemons.dockerd(self._made("d"), self.authority.ca))
        if client == "ctr" and client not in self._daemons:
            self._daemons[client] = str(self.stack.enter_context(daemons.containerd(self._made("c"))))
        return self._daemons.get(client, "")

    def _made(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir()
        return folder


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    with TemporaryDirectory(prefix=_SHORT) as name, ExitStack() as stack:
        yield World(Path(name), loopback_authority(Path(name) / "authority"), stack)


Connect = Callable[..., Client]


@pytest.fixture
def connect(world: World) -> Iterator[Connect]:
    """Give `connect(name, transport, mode, account=…)`; without an account it comes as the registry's own, if any."""

    def connected(name: str, transport: str, mode: str, account: Account | bool = True) -> Client:
        at = world.endpoint(transport, mode)
        if account is not True:
            at = replace(at, account=account or None)
        home = stack.enter_context(TemporaryDirectory(prefix=_SHORT))
        return CLIENTS[name](at, Path(home), world.daemon_of(name))

    with ExitStack() as stack:
        yield connected
