"""Where clients are told to come to, and where they come from: what of a request to believe about either.

Knows `Host`, the headers that proxies set, and which of them to believe. What it returns lands in headers and
tokens, so nothing goes through that could be more than a host and a port.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from functools import cache
from ipaddress import ip_address
from typing import Final

from starlette.datastructures import Headers
from starlette.types import Scope

from api.config import HttpSettings

log = logging.getLogger(__name__)

_LAST_PORT: Final = 65_535
_HOST: Final = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,253})|\[[0-9A-Fa-f:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?")
_FORWARDED: Final = re.compile(r'(?:^|;)[ \t]*(host|proto)=(?:"([^"\\]*)"|([^";, \t]*))', re.IGNORECASE)
_SCHEMES: Final = ("http", "https")


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme and `host[:port]`; as text, the beginning of a URL."""

    scheme: str
    host: str

    @classmethod
    def parse(cls, text: str) -> Origin:
        """Read `http[s]://host[:port]`, with nothing after it but perhaps a slash.

        Raises:
            ValueError: it is something else.
        """
        scheme, _, host = text.removesuffix("/").partition("://")
        if scheme not in _SCHEMES or not is_host(host):
            raise ValueError(f"{text!r} is not http[s]://host[:port]")
        return cls(scheme, host)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}"


def origin(scope: Scope, settings: HttpSettings) -> Origin:
    """Tell where the client of a request is to come to next time."""
    if settings.public_url is not None:
        return Origin.parse(settings.public_url)
    headers = Headers(scope=scope)
    name = headers.get("host", "")
    own = Origin(scope["scheme"], name if is_host(name) else _address(scope))
    proto, host = _forwarded(headers)
    seen = Origin(proto if proto in _SCHEMES else own.scheme, host if is_host(host) else own.host)
    if settings.trust_forwarded:
        return seen
    if seen != own:
        _say_once()
    return own


@cache
def _say_once() -> None:
    """Whoever put a proxy before this and forgot the setting looks for a long time why logins fail."""
    log.warning(
        "a request came with X-Forwarded-... or Forwarded, which nobody said to believe, so its client is told another "
        "address than the one it used: if that was your proxy, say --trust-forwarded true, or --public-url https://..."
    )


def client(scope: Scope, settings: HttpSettings) -> str:
    """Tell the address a request came from: what wrong passwords are counted by.

    Behind a proxy it is the last one in `X-Forwarded-For`: the proxy wrote it, and anything before it anybody may have.
    """
    peer = scope.get("client")
    address = str(peer[0]) if peer else ""
    if not settings.trust_forwarded:
        return address
    told = ",".join(Headers(scope=scope).getlist("x-forwarded-for")).rpartition(",")[2].strip()
    try:
        return str(ip_address(told))
    except ValueError:
        return address


def counted(scope: Scope, settings: HttpSettings) -> None:
    """Say once that a wrong password was counted by the address of a proxy, if that may be so."""
    if not settings.trust_forwarded and "x-forwarded-for" in Headers(scope=scope):
        _say_once_of_addresses()


@cache
def _say_once_of_addresses() -> None:
    """Who guesses passwords keeps others waiting where all have one address."""
    log.warning(
        "a wrong password came with X-Forwarded-For, which nobody said to believe, so it was counted for all who come "
        "that way together: if that was your proxy, say --trust-forwarded true"
    )


def is_host(text: str) -> bool:
    """Tell whether a text is `host[:port]` and nothing else."""
    found = _HOST.fullmatch(text)
    return found is not None and int(found["port"] or 0) <= _LAST_PORT


def _forwarded(headers: Headers) -> tuple[str, str]:
    """Return protocol and host as the proxy nearest to the client saw them; empty where it does not say."""
    if "forwarded" in headers:
        first = headers["forwarded"].partition(",")[0]
        told = {name.lower(): quoted or bare for name, quoted, bare in _FORWARDED.findall(first)}
        return told.get("proto", "").lower(), told.get("host", "")
    proto, host = (headers.get(f"x-forwarded-{name}", "").partition(",")[0].strip() for name in ("proto", "host"))
    return proto.lower(), host


def _address(scope: Scope) -> str:
    address, port = scope.get("server") or ("localhost", None)
    literal = f"[{address}]" if ":" in address else address  # IPv6
    return f"{literal}:{port}" if port else literal
