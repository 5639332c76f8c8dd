"""The configurations of proxies in docs/operations.md fit the server's own limits."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from api.config import HttpSettings

OPERATIONS = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
SECTION = OPERATIONS.partition("\n### Behind a proxy\n")[2].partition("\n### ")[0]
SETTINGS = HttpSettings()


def seconds(proxy: str, directive: str) -> int:
    """What a proxy's configuration says of a time: `900`, `900s` or `15m`."""
    block = SECTION.partition(f"\n**{proxy}**")[2].partition("\n**")[0]
    found = re.search(rf"^ .*?(?<![\w-]){directive}[ =]+(\d+)(s|m|)(?=[; \n])", block, re.MULTILINE)
    assert found is not None, f"{proxy} is not told {directive}"
    return int(found[1]) * (60 if found[2] == "m" else 1)


@pytest.mark.parametrize(
    ("proxy", "directive"),
    [
        ("nginx", "client_body_timeout"),
        ("nginx", "send_timeout"),
        ("nginx", "proxy_read_timeout"),
        ("nginx", "proxy_send_timeout"),
        ("Caddy", "read_body_idle"),
        ("Caddy", "write_idle"),
        ("HAProxy", "timeout client"),
        ("HAProxy", "timeout server"),
        ("Apache httpd", "Timeout"),
    ],
)
def test_a_proxy_lets_a_transfer_be_silent_for_as_long_as_the_server_does(proxy: str, directive: str) -> None:
    """Builders pause in the middle of a push; a proxy's own patience is a minute or less."""
    assert seconds(proxy, directive) > SETTINGS.stall_s


@pytest.mark.parametrize(
    ("proxy", "directive"), [("Caddy", "keepalive"), ("HAProxy", "timeout http-keep-alive"), ("Apache httpd", "ttl")]
)
def test_a_proxy_gives_up_idle_connections_before_the_server_does(proxy: str, directive: str) -> None:
    """Else it may send a push on one that is being closed, and can only fail it."""
    assert seconds(proxy, directive) < SETTINGS.keep_alive_s


@pytest.mark.parametrize("proxy", ["Apache httpd", "Traefik"])
def test_a_proxy_that_bounds_the_time_of_a_whole_request_is_told_not_to(proxy: str) -> None:
    """A large layer on a slow line takes as long as it takes."""
    assert seconds(proxy, {"Traefik": "readTimeout:", "Apache httpd": "RequestReadTimeout body"}[proxy]) == 0
