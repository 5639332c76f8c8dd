"""Addresses: what is understood, and what is said about the rest."""

from __future__ import annotations

import errno
import socket
from contextlib import ExitStack

import psutil
import pytest

from tools.errors import AddressForbidden, AddressInUse, BadAddress
from tools.listen import Address, listen, refusal, url


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:5000", "127.0.0.1", 5000),
        ("localhost:0", "localhost", 0),
        ("[::1]:65535", "::1", 65535),
        ("[::]:5000", "::", 5000),
    ],
)
def test_an_address_is_read_and_written_the_same(text: str, host: str, port: int) -> None:
    """IPv6 stands in brackets, as in a URL."""
    assert Address.parse(text) == Address(host, port)
    assert str(Address.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "5000", ":5000", "localhost", "localhost:", "::1:5000", "[]:5000", "h:65536", "h:-1", "h:+5", "h:५"],
)
def test_what_is_no_address_is_refused_with_an_example(text: str) -> None:
    """Nothing is guessed: `:5000` might mean one machine or the whole world."""
    with pytest.raises(BadAddress, match=r"is not HOST:PORT, such as|ends in no port"):
        Address.parse(text)


def test_a_name_with_two_addresses_listens_on_both_at_one_port() -> None:
    """A client that tries ::1 first must find us as well as one that tries 127.0.0.1."""
    with ExitStack() as opened:
        sockets = [opened.enter_context(sock) for sock in listen(Address("localhost", 0), backlog=5)]
        ports = {sock.getsockname()[1] for sock in sockets}
        assert len(ports) == 1
        known = {info[4][0] for info in socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)}
        assert {sock.getsockname()[0] for sock in sockets} <= known
        assert url(Address("localhost", 0), sockets) == f"http://localhost:{ports.pop()}"


def test_a_port_in_use_is_named() -> None:
    """The sentence says which address, and what to do."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = Address("127.0.0.1", other.getsockname()[1])
        with pytest.raises(AddressInUse, match=rf"{address}: the port is in use"):
            listen(address, backlog=5)


def test_an_address_of_another_machine_is_refused() -> None:
    """192.0.2.1 is reserved for documentation: nobody has it."""
    with pytest.raises(BadAddress, match="does not have that address"):
        listen(Address("192.0.2.1", 0), backlog=5)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "a..b", "x" * 70, "a\0b"])
def test_a_host_nobody_knows_is_refused(host: str) -> None:
    """Also those that the resolver itself chokes on."""
    with pytest.raises(BadAddress, match="no address is known"):
        listen(Address(host, 0), backlog=5)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.EADDRINUSE, AddressInUse),
        (errno.EACCES, AddressForbidden),
        (errno.EPERM, AddressForbidden),
        (errno.EADDRNOTAVAIL, BadAddress),
        (errno.ENOBUFS, BadAddress),
    ],
)
def test_each_refusal_of_the_system_has_its_sentence(code: int, kind: type[Exception]) -> None:
    """All in terms of the address that was asked for."""
    error = refusal(Address("127.0.0.1", 80), OSError(code, "because"))
    assert type(error) is kind
    assert "127.0.0.1:80" in str(error)
    assert ("CAP_NET_BIND_SERVICE" in str(error)) is (kind is AddressForbidden)


def test_addresses_of_one_link_are_listened_on_there() -> None:
    """All that this machine has. One may stand for others on other links, so the name of its link is a part of it."""
    for name, addresses in psutil.net_if_addrs().items():
        for bare in {each.address.partition("%")[0] for each in addresses if each.address.startswith("fe80:")}:
            host = f"{bare}%{name}"
            with ExitStack() as opened:
                (sock,) = (opened.enter_context(each) for each in listen(Address.parse(f"[{host}]:0"), backlog=1))
                with socket.create_connection((host, sock.getsockname()[1]), timeout=60) as client:
                    assert client.getpeername()[:2] == sock.getsockname()[:2]
