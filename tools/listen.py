"""Listening sockets from an address: bound once, before anything else starts; a mistake is one line.

Layer: tools. Knows addresses and sockets; refuses to know who will serve on them.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from tools.errors import AddressForbidden, AddressInUse, BadAddress, CommandError

_LAST_PORT = 65535
_ABSENT = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen; port 0 means any free one."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read HOST:PORT; an IPv6 host stands in brackets, as in a URL."""
        host, colon, port = text.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        bare = host[1:-1] if bracketed else host
        if not colon or not bare or (":" in bare and not bracketed):
            raise BadAddress(f"{text!r} is not HOST:PORT, such as 127.0.0.1:5000, 0.0.0.0:5000 or [::1]:5000")
        if not (port.isascii() and port.isdecimal() and int(port) <= _LAST_PORT):
            raise BadAddress(f"{text!r} ends in no port: a port is a number from 0 (any free one) to 65535")
        return cls(bare, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def listen(address: Address, *, backlog: int) -> list[socket.socket]:
    """Listen on every address the host stands for (`localhost` may be two), all on one port."""
    with ExitStack() as opened:
        sockets: list[socket.socket] = []
        absent: OSError | None = None
        for family, host, link in _resolve(address):
            port = sockets[0].getsockname()[1] if sockets else address.port
            try:
                sockets.append(opened.enter_context(_bound(family, (host, port, *link), backlog)))
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise refusal(address, error) from error
                absent = error
        if not sockets:
            assert absent is not None, "a name that resolves to nothing was refused before"
            raise refusal(address, absent) from absent
        opened.pop_all()
        return sockets


def url(address: Address, sockets: list[socket.socket], *, scheme: str = "http") -> str:
    """Give the address a client can use, with the real port."""
    return f"{scheme}://{Address(address.host, sockets[0].getsockname()[1])}"


def is_public(sockets: list[socket.socket]) -> bool:
    """Tell whether others than this machine may reach one of them."""
    return not all(ipaddress.ip_address(sock.getsockname()[0].partition("%")[0]).is_loopback for sock in sockets)


def _resolve(address: Address) -> list[tuple[socket.AddressFamily, str, tuple[int, ...]]]:
    """Give families and addresses, and of IPv6 on which link that is, where an address alone does not say."""
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise BadAddress(f"cannot listen on {address}: no address is known for {address.host!r}") from error
    return list(dict.fromkeys((family, str(place[0]), place[2:]) for family, _, _, _, place in found))


def _bound(family: socket.AddressFamily, place: tuple[Any, ...], backlog: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A restart must not wait for the last server's connections to be forgotten by the kernel.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and place[0] != "::":
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(place)
        sock.listen(backlog)
        sock.settimeout(0)
    except OSError:
        sock.close()
        raise
    return sock


def refusal(address: Address, error: OSError) -> CommandError:
    """Turn the system's complaint into a sentence about the address that was asked for."""
    told = f"cannot listen on {address}"
    match error.errno:
        case errno.EADDRINUSE:
            return AddressInUse(f"{told}: the port is in use; stop its owner or choose another")
        case errno.EACCES | errno.EPERM:
            return AddressForbidden(
                f"{told}: this user may not; choose a port above 1023, or give it the capability "
                "CAP_NET_BIND_SERVICE, as AmbientCapabilities= of a systemd unit does"
            )
        case errno.EADDRNOTAVAIL:
            return BadAddress(f"{told}: this machine does not have that address")
        case _:
            return BadAddress(f"{told}: {error.strerror or error}")
