"""`cas serve`: check everything that can be wrong, then hand over to the supervisor.

Layer: tools. The order matters: the address is bound and the store opened once here, so that a mistake is
one line on stderr and one exit code instead of the same complaint from every worker.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from contextlib import ExitStack

import click

from api.counts import shared_memory
from cas import Store
from tools import modes
from tools.errors import BadAddress
from tools.listen import Address, listen, url
from tools.order import LOG_FORMAT, Order
from tools.settings import Settings, SettingsCommand, with_settings
from tools.supervisor import Supervisor
from tools.tunables import Section
from tools.version import VERSION


@click.command(cls=SettingsCommand)
@with_settings(*Section)
def serve(settings: Settings) -> None:
    """Serve the registry until told to stop.

    Prints one line on stdout once every worker can answer. SIGTERM or SIGINT lets transfers under way finish
    within --grace-s; a second one cuts them. With --tls-cert, SIGHUP reads the certificate again.

    \b
    Examples:
      cas serve
      cas serve --root /srv/cas --bind 0.0.0.0:5000 --mode auth --signup false --tls-cert cert.pem --tls-key key.pem
      CAS_ROOT=/srv/cas cas serve --config /etc/cas.toml
    """
    logging.basicConfig(level=settings.log_level.upper(), format=LOG_FORMAT, stream=sys.stderr)
    address, tls = Address.parse(settings.bind), modes.certificate(settings)
    with ExitStack() as opened:
        sockets = [opened.enter_context(sock) for sock in listen(address, backlog=settings.http.backlog)]
        monitors = _monitors(settings, opened)
        modes.check(settings, address, sockets)
        access_log = modes.access_log(settings, opened)
        with Store.open(settings.root, settings.engine, create=True) as store:
            modes.check_accounts(settings, store)
        order = Order(
            root=settings.root.absolute(),
            sockets=tuple(sock.fileno() for sock in sockets),
            log_level=settings.log_level,
            engine=settings.engine,
            http=settings.http,
            v1=settings.v1,
            v2=settings.v2,
            access=settings.access,
            keeping=settings.keeping,
            tls=tls,
            access_log=access_log,
            counts=_counts(settings, opened) if monitors else None,
            monitors=tuple(sock.fileno() for sock in monitors),
        )
        ready = f"cas {VERSION} serving {settings.root} at {url(address, sockets, scheme='https' if tls else 'http')}"
        Supervisor(order, settings.workers, on_ready=lambda: click.echo(ready), on_stop=opened.close).run()


def _monitors(settings: Settings, opened: ExitStack) -> list[socket.socket]:
    """Listen where monitors come, if that is anywhere."""
    if settings.metrics is None:
        return []
    address = Address.parse(settings.metrics)
    if not address.port:
        raise BadAddress(
            f"{settings.metrics!r} has no port that monitors could know: name one, such as {address.host}:9101"
        )
    return [opened.enter_context(sock) for sock in listen(address, backlog=settings.http.backlog)]


def _counts(settings: Settings, opened: ExitStack) -> int:
    """Make the memory in which workers count."""
    memory = shared_memory(settings.workers)
    opened.callback(os.close, memory)
    return memory
