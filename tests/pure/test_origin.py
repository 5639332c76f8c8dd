"""Where clients are sent: what of a request, or of the settings, is believed."""

from __future__ import annotations

import pytest
from starlette.types import Scope

from api.config import HttpSettings
from api.origin import Origin, client, is_host, origin

PLAIN, TRUSTING = HttpSettings(), HttpSettings(trust_forwarded=True)


def asked(host: str | None = "r.example:5000", scheme: str = "http", **headers: str) -> Scope:
    sent = headers | ({"host": host} if host is not None else {})
    raw = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in sent.items()]
    return {"type": "http", "scheme": scheme, "server": ("127.0.0.1", 5000), "headers": raw}


def test_without_a_setting_clients_go_where_they_came_to() -> None:
    """Scheme from the connection, host from the request."""
    assert str(origin(asked(), PLAIN)) == "http://r.example:5000"
    assert str(origin(asked(scheme="https"), PLAIN)) == "https://r.example:5000"


def test_a_public_url_is_always_told() -> None:
    """Whatever the request or a proxy says."""
    settings = HttpSettings(public_url="https://public.example", trust_forwarded=True)
    assert str(origin(asked(x_forwarded_host="evil.example"), settings)) == "https://public.example"


FORWARDED = {"x_forwarded_proto": "https", "x_forwarded_host": "out.example"}


def test_what_a_proxy_says_counts_only_where_proxies_are_trusted() -> None:
    """Anybody can send these headers."""
    assert str(origin(asked(**FORWARDED), PLAIN)) == "http://r.example:5000"
    assert str(origin(asked(**FORWARDED), TRUSTING)) == "https://out.example"


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ({"x_forwarded_proto": "https"}, "https://r.example:5000"),
        ({"x_forwarded_proto": "HTTPS, http", "x_forwarded_host": "a.example, b.example"}, "https://a.example"),
        ({"x_forwarded_proto": "gopher"}, "http://r.example:5000"),
        ({"x_forwarded_host": "a.example/../x"}, "http://r.example:5000"),
        ({"forwarded": "for=1.2.3.4;host=f.example;proto=https"}, "https://f.example"),
        ({"forwarded": 'proto=https;host="f.example:8443", host=g.example'}, "https://f.example:8443"),
        ({"forwarded": 'host="[::1]:80"; Proto=https'}, "https://[::1]:80"),
        ({"forwarded": "for=1.2.3.4", **FORWARDED}, "http://r.example:5000"),
        ({"forwarded": "host=a b;proto=https"}, "https://a"),
        ({"forwarded": 'xhost=evil.example;host="a,b"'}, "http://r.example:5000"),
    ],
)
def test_of_what_proxies_say_the_first_counts_if_it_makes_sense(headers: dict[str, str], told: str) -> None:
    """`Forwarded` before the older two; nonsense falls back to the request itself."""
    assert str(origin(asked(**headers), TRUSTING)) == told


@pytest.mark.parametrize("host", [None, "", "a b", "a/b", "a,b", 'a"', "a\r\nX: y", "a:99999", "-a", "a:5000:1", "ä"])
def test_a_host_that_is_none_is_never_repeated(host: str | None) -> None:
    """It would land in headers; clients are told the address they reached instead."""
    assert str(origin(asked(host), PLAIN)) == "http://127.0.0.1:5000"


@pytest.mark.parametrize("host", ["a", "r.example", "127.0.0.1:5000", "[::1]", "[fe80::1]:5000", "my_host-1:65535"])
def test_every_kind_of_host_is_known(host: str) -> None:
    """Names, IPv4, IPv6 in brackets; with a port or without."""
    assert is_host(host)
    assert Origin.parse(f"https://{host}/") == Origin("https", host)


@pytest.mark.parametrize(
    "text", ["", "r.example", "ftp://a", "https://", "https://a/b", "https://u:p@a", "https://a?b"]
)
def test_a_public_url_is_an_origin_and_nothing_else(text: str) -> None:
    """A path or a user in it would end up in places nobody thought of."""
    with pytest.raises(ValueError, match=r"is not http\[s\]://host\[:port\]"):
        Origin.parse(text)


def test_an_ipv6_address_without_a_host_stands_in_brackets() -> None:
    """As in every URL."""
    for server, told in ((("::1", 5000), "http://[::1]:5000"), (None, "http://localhost")):
        assert str(origin({**asked(None), "server": server}, PLAIN)) == told


def test_a_client_is_known_by_its_connection_or_by_what_a_trusted_proxy_wrote_last() -> None:
    """Whatever stands before that in the header may come from the client itself; nonsense does not count."""
    scope = {**asked(x_forwarded_for="6.6.6.6, 1.2.3.4"), "client": ("127.0.0.1", 999)}
    assert client(scope, PLAIN) == "127.0.0.1"
    assert client(scope, TRUSTING) == "1.2.3.4"
    assert client({**asked(x_forwarded_for="1.2.3.4, unknown"), "client": ("::1", 1)}, TRUSTING) == "::1"
    assert client(asked(), PLAIN) == ""
