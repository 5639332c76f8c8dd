"""Whether what a server was told to do can be done safely: who may come, what travels in the clear, what is logged.

Layer: tools. Decides before anything is served, and says how to go on; never asks anybody.
"""

from __future__ import annotations

import logging
import os
import socket
import stat
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from api.access import grants, htpasswd, users
from api.access.settings import Mode
from api.access_log import LOG_MODE
from api.content import repositories
from api.tls import Files, complaint
from cas import Store
from tools.errors import CannotLog, Contradiction, OpenToAll
from tools.listen import Address, is_public
from tools.settings import Settings, was_said

OUTPUT: Final = "-"
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


def access_log(settings: Settings, opened: ExitStack) -> str | int | None:
    """Return where workers write a line a request: a file, proven to take one, or a descriptor of standard output.

    Raises:
        CannotLog: it takes none.
    """
    if settings.access_log is None:
        return None
    if settings.access_log == OUTPUT:
        if sys.stdout is None:  # what has its number by now is something else
            raise CannotLog("standard output is closed and takes no access log; name a file with --access-log")
        output = os.dup(1)
        opened.callback(os.close, output)
        return output
    try:
        path = os.path.abspath(settings.access_log)  # noqa: PTH100 - a worker opens the name as it is
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, LOG_MODE)
        try:
            is_file = stat.S_ISREG(os.fstat(fd).st_mode)
        finally:
            os.close(fd)
    except OSError as error:
        raise CannotLog(
            f"the access log {settings.access_log} cannot be written: {error.strerror}; make its folder, let this user "
            "write there, or name another file with --access-log"
        ) from error
    if not is_file:
        raise CannotLog(f"the access log {settings.access_log} is no file; name one, or - for standard output")
    return path


def check(settings: Settings, address: Address, sockets: list[socket.socket]) -> None:
    """Refuse what would give the store away, and warn of what would give passwords away; all before there is a store.

    Raises:
        BadPasswordFile: the password file cannot be used.
        OpenToAll: anybody could reach a server that asks nobody who they are, or accounts would be asked for by nobody.
        Contradiction: the mode needs a setting that is missing.
    """
    if settings.access.htpasswd is not None:
        htpasswd.read(Path(settings.access.htpasswd))
        _check_is_meant(settings, settings.access.htpasswd)
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
    """Refuse to open to all what has accounts, and say how to go on where nobody can log in yet, or anybody may.

    Raises:
        OpenToAll: the store has accounts, which nobody would be asked for.
    """
    mode = settings.access.mode
    accounts = store.read(users.list_all)
    granted = store.read(grants.are_any)  # accounts of a password file have nothing else here
    if accounts or granted:
        _check_is_meant(settings, settings.root)
    if mode is Mode.AUTH and settings.access.htpasswd is None and not accounts:
        logger.warning("there is no account yet; make one: cas user add NAME --admin --root %s", settings.root)
    if mode is Mode.OPEN and not settings.allow_open and store.read(repositories.any_private):
        logger.warning(
            "in open mode everybody may pull what is private in %s, and push there and delete it: say --mode auth, "
            "or --allow-open if that is what you want",
            settings.root,
        )
    if mode is Mode.AUTH and settings.access.signup and not was_said("signup"):
        logger.warning(
            "anybody who reaches this server may make an account of their own: --signup false ends that, "
            "--signup true says that it is meant"
        )


def _check_is_meant(settings: Settings, place: object) -> None:
    if settings.access.mode is Mode.OPEN and not settings.allow_open:
        raise OpenToAll(
            f"{place} has accounts, and in open mode nobody is asked for one: whoever reaches the port may push and "
            "delete everything; say --mode auth, or --allow-open if that is what you want"
        )
