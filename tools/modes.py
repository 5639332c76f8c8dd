"""Whether what a server was told to do is safe to do: who may come, and what travels in the clear.

Layer: tools. Decides before anything is served, and says how to go on; never asks anybody.
"""

from __future__ import annotations

import logging
import socket
from pathlib import Path

from api.access import htpasswd, users
from api.access.settings import Mode
from api.tls import Files, complaint
from cas import Store
from tools.errors import Contradiction, OpenToAll
from tools.listen import Address, is_public
from tools.settings import Settings

logger = logging.getLogger("cas.serve")


def certificate(settings: Settings) -> Files | None:
    """Return the files to speak TLS with, proven to work, if there are any.

    Raises:
        Contradiction: one was named without the other.
        BadCertificate: they do not work.
    """
    cert, key = settings.tls_cert, settings.tls_key
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise Contradiction("--tls-cert and --tls-key go together: name both, or neither to speak plain http")
    files = Files(cert.absolute(), key.absolute())
    wrong = complaint(files)
    if wrong is not None:
        logger.warning("%s; serving it all the same", wrong)
    return files


def check(settings: Settings, address: Address, sockets: list[socket.socket]) -> None:
    """Refuse what would give the store away, and warn of what would give passwords away; all before there is a store.

    Raises:
        BadPasswordFile: the password file cannot be used.
        OpenToAll: anybody could reach a server that asks nobody who they are.
        Contradiction: the mode needs a setting that is missing.
    """
    if settings.access.htpasswd is not None:
        htpasswd.read(Path(settings.access.htpasswd))
    mode, public_url = settings.access.mode, settings.http.public_url or ""
    if mode is Mode.TOKEN and settings.access.index_url is None:
        raise Contradiction("--mode token needs --index-url: the index that vouches for those who come")
    if not is_public(sockets):
        return
    if mode is Mode.OPEN and not settings.allow_open:
        raise OpenToAll(
            f"{address} can be reached from other machines, and in open mode whoever reaches it may push and delete: "
            "say --mode auth (and make the first account with `cas user add NAME --admin`), "
            f"or --allow-open if that is what you want, or --bind 127.0.0.1:{address.port}"
        )
    if mode is Mode.AUTH and settings.tls_cert is None and not public_url.startswith("https://"):
        logger.warning(
            "passwords travel in the clear to %s: say --tls-cert and --tls-key, "
            "or --public-url https://… if a proxy speaks TLS",
            address,
        )


def check_accounts(settings: Settings, store: Store) -> None:
    """Say how to go on where nobody can log in yet."""
    if settings.access.htpasswd is not None or settings.access.mode is not Mode.AUTH:
        return
    if not store.read(users.list_all):
        logger.warning("there is no account yet; make one: cas user add NAME --admin --root %s", settings.root)
