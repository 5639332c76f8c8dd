"""Who a server serves, and what it says about that before it does."""

from __future__ import annotations

import shutil
import signal
import socket
import ssl
from pathlib import Path

import pytest

from api.access import grants
from api.access.accounts import Accounts
from api.access.principal import ALL
from api.access.settings import AccessSettings
from api.content import repositories
from api.content.repositories import Access
from api.content.repository import Repository
from cas import Store
from tests.support.certificates import Authority, loopback_authority
from tests.support.serving import Server, StartServer, run_cas, until
from tools.listen import Address, is_public, listen

PING = "/v1/_ping"
PATIENCE_S = 60.0


def refused(*arguments: str | Path, cwd: Path) -> str:
    """Run `cas serve` with a mistake, and give the one line it says."""
    ended = run_cas("serve", "--workers", "1", *arguments, cwd=cwd)
    assert (ended.returncode, ended.stdout) == (2, ""), ended.stderr
    assert ended.stderr.count("\n") == 1
    assert not (cwd / "data").exists(), "nothing was made"
    return ended.stderr


def test_a_password_file_that_cannot_be_used_is_said_before_there_is_a_store(tmp_path: Path) -> None:
    """As with every other mistake on the command line, nothing was made."""
    assert "nowhere" in refused("--mode", "auth", "--htpasswd", "nowhere", "--bind", "127.0.0.1:0", cwd=tmp_path)


@pytest.mark.parametrize("bind", ["0.0.0.0:0", "[::]:0", "0.0.0.0:58731"])
def test_an_open_server_serves_this_machine_only_unless_told_otherwise(bind: str, tmp_path: Path) -> None:
    """Whoever reaches it may delete everything; the refusal says how to go on."""
    told = refused("--bind", bind, cwd=tmp_path)
    port = bind.rpartition(":")[2]
    for way in (bind, "--allow-open", f"--bind 127.0.0.1:{port}\n", "--mode auth", "cas user add NAME --admin"):
        assert way in told


def test_an_operator_may_open_a_server_to_all(server: StartServer) -> None:
    """By a flag, or by a variable; it is not asked again."""
    for more in ({"flags": ["--allow-open"]}, {"env": {"CAS_ALLOW_OPEN": "true"}}):
        running = server(bind="0.0.0.0:0", **more)
        assert running.get(PING)[0] == 200
        assert running.stop() == 0
        assert running.log() == ""


@pytest.fixture
def owned(tmp_path: Path) -> Path:
    """A store that somebody has an account in."""
    with Store.open(tmp_path / "owned", create=True) as store:
        Accounts(store, AccessSettings(), lambda: 0.0).add("ann", "secret")
    return tmp_path / "owned"


def test_a_store_with_accounts_is_not_opened_to_all_by_a_forgotten_flag(tmp_path: Path, owned: Path) -> None:
    """On loopback too, where a proxy may stand before it; so is one whose accounts are in a password file."""
    blank = tmp_path / "htpasswd"
    blank.touch()
    granted = tmp_path / "granted"
    with Store.open(granted, create=True) as store:
        store.change(lambda names: grants.put(names, "bob", "acme/app", ALL))
    cases: list[tuple[Path, list[str | Path]]] = [
        (owned, ["--root", owned]),
        (owned, ["--root", owned, "--mode", "open"]),
        (granted, ["--root", granted]),
        (blank, ["--htpasswd", blank]),
    ]
    for place, flags in cases:
        told = refused("--bind", "127.0.0.1:0", *flags, cwd=tmp_path)
        assert f"{place} has accounts" in told
        for way in ("--mode auth", "--allow-open"):
            assert way in told


def test_a_store_with_accounts_is_opened_by_who_means_it(server: StartServer, owned: Path) -> None:
    """Without a word, for it was said once."""
    running = server(owned, flags=["--allow-open"])
    assert running.get("/v2/")[0] == 200
    assert running.stop() == 0
    assert running.log() == ""


def test_private_repositories_that_everybody_may_pull_are_warned_of(server: StartServer, tmp_path: Path) -> None:
    """An import makes them, and there may be no account to log in with; not where it was said that this is meant."""
    root = tmp_path / "private"
    with Store.open(root, create=True) as store:
        store.change(lambda names: repositories.ensure(names, Repository.of("acme/app"), 0, Access.PRIVATE))
    for flags, times in (([], 1), (["--allow-open"], 0)):
        running = server(root, flags=flags)
        assert running.stop() == 0
        assert running.log().count("in open mode everybody may pull") == times
        assert running.log().count("\n") == times


def test_strangers_who_may_sign_up_are_warned_of(server: StartServer, owned: Path) -> None:
    """Until somebody decided it, either way, by whatever says a setting."""
    file = owned.with_name("cas.toml")
    file.write_text("signup = true\n")
    for flags, env, times in (
        ([], {}, 1),
        (["--signup", "false"], {}, 0),
        (["--signup", "true"], {}, 0),
        (["--config", file], {}, 0),
        ([], {"CAS_SIGNUP": "false"}, 0),
    ):
        running = server(owned, flags=["--mode", "auth", *flags], env=env)
        assert running.stop() == 0
        assert running.log().count("anybody who reaches this server may make an account") == times
        assert running.log().count("--signup false") == times
        assert running.log().count("\n") == times


def test_addresses_of_this_machine_alone_are_known() -> None:
    """All of 127.0.0.0/8, ::1, and the name for them."""
    for text, expected in (
        ("127.0.0.1:0", False),
        ("127.3.2.1:0", False),
        ("[::1]:0", False),
        ("localhost:0", False),
        ("0.0.0.0:0", True),
        ("[::]:0", True),
    ):
        sockets = listen(Address.parse(text), backlog=1)
        assert is_public(sockets) is expected, text
        for sock in sockets:
            sock.close()


def test_passwords_in_the_clear_are_warned_of_once(server: StartServer) -> None:
    """And the missing first account as well; both say what to do."""
    running = server(bind="0.0.0.0:0", flags=["--mode", "auth"])
    assert running.stop() == 0
    log = running.log()
    assert log.count("passwords travel in the clear") == 1
    assert "--tls-cert" in log
    assert log.count("there is no account yet") == 1
    assert f"cas user add NAME --admin --root {running.root}" in log


def test_a_proxy_that_speaks_tls_is_no_reason_to_warn(server: StartServer) -> None:
    """The public URL tells of it; nor is a password on loopback."""
    for bind, flags in (("0.0.0.0:0", ["--public-url", "https://r.example"]), ("127.0.0.1:0", [])):
        running = server(bind=bind, flags=["--mode", "auth", *flags])
        assert running.stop() == 0
        assert "in the clear" not in running.log()


def test_a_proxy_that_is_not_believed_is_told_of_once(server: StartServer, owned: Path) -> None:
    """Where it makes a difference: clients would be sent past it for their tokens. A public URL settles it as well."""
    auth, through = ["--mode", "auth", "--signup", "false"], {"X-Forwarded-Proto": "https"}
    for flags, headers, times in (
        ([], through, 1),
        ([], {"X-Forwarded-Host": "r.example"}, 1),
        ([], {"X-Forwarded-Proto": "http"}, 0),
        (["--trust-forwarded", "true"], through, 0),
        (["--public-url", "https://r.example"], through, 0),
    ):
        running = server(owned, flags=[*auth, *flags])
        assert [running.get("/v2/", headers)[0] for _ in range(3)] == [401] * 3
        assert running.stop() == 0
        assert running.log().count("--trust-forwarded true") == times, headers
        assert running.log().count("\n") == times


def test_a_proxy_whose_clients_all_count_as_one_address_is_told_of_once(server: StartServer, owned: Path) -> None:
    """A public URL says where clients go, not where they come from: one who guesses passwords would slow down all."""
    flags = ["--mode", "auth", "--signup", "false", "--public-url", "https://r.example", "--workers", "1"]
    wrong, through = {"Authorization": "Basic YWxpY2U6d3Jvbmc="}, {"X-Forwarded-For": "192.0.2.1"}
    for more, headers, times in (
        ([], wrong, 0),
        ([], through, 0),
        ([], wrong | through, 1),
        (["--trust-forwarded", "true"], wrong | through, 0),
    ):
        running = server(owned, flags=[*flags, *more])
        assert [running.get("/v2/", headers)[0] for _ in range(3)] == [401] * 3
        assert running.stop() == 0
        assert running.log().count("--trust-forwarded true") == times, headers
        assert running.log().count("\n") == times


def test_token_mode_needs_to_know_whom_to_ask(tmp_path: Path) -> None:
    """Without an index nobody could come in."""
    assert "--index-url" in refused("--bind", "127.0.0.1:0", "--mode", "token", cwd=tmp_path)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return loopback_authority(tmp_path / "tls")


def tls_flags(authority: Authority) -> list[str | Path]:
    return ["--tls-cert", authority.certificate, "--tls-key", authority.key]


def test_a_certificate_that_cannot_serve_is_one_clear_line(tmp_path: Path, authority: Authority) -> None:
    """Each mistake by its own sentence, and before a store is made."""
    other = loopback_authority(tmp_path / "other")
    cert, key = authority.certificate, authority.key
    mistakes: list[tuple[list[str | Path], str]] = [
        (["--tls-cert", cert], "--tls-cert and --tls-key go together"),
        (["--tls-key", key], "--tls-cert and --tls-key go together"),
        (["--tls-cert", tmp_path / "none.pem", "--tls-key", key], "none.pem: No such file"),
        (["--tls-cert", cert, "--tls-key", other.key], "the key belongs to another certificate"),
        (["--tls-cert", key, "--tls-key", key], "not a PEM certificate"),
    ]
    for flags, words in mistakes:
        assert words in refused("--bind", "127.0.0.1:0", *flags, cwd=tmp_path)


def test_https_is_served_and_told_in_the_ready_line(server: StartServer, authority: Authority) -> None:
    """With the port, as ever; every worker speaks it."""
    running = server(workers=2, flags=tls_flags(authority))
    assert running.url.startswith("https://127.0.0.1:")
    assert running.get(PING)[0] == 200
    with socket.create_connection((running.host, running.port), timeout=PATIENCE_S) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert plain.recv(65536).startswith(b"HTTP/1.0 400 ")
    assert running.stop() == 0
    assert running.log() == ""


def shown(running: Server) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((running.host, running.port), timeout=PATIENCE_S) as sock,
        context.wrap_socket(sock) as spoken,
    ):
        return spoken.getpeercert(True) or b""


@pytest.mark.parametrize("hang_up", [True, False])
def test_a_renewed_certificate_is_served_without_a_restart(
    server: StartServer, tmp_path: Path, authority: Authority, hang_up: bool
) -> None:
    """At a hang-up, and soon without one; no process ends, and open connections go on."""
    running = server(workers=2, flags=tls_flags(authority))
    before = running.pids()
    open_before = running.connection()
    open_before.request("GET", PING)
    assert open_before.getresponse().read()
    new = loopback_authority(tmp_path / "new")
    shutil.copy(new.key, authority.key)
    shutil.copy(new.certificate, authority.certificate)
    if hang_up:
        running.process.send_signal(signal.SIGHUP)
    expected = ssl.PEM_cert_to_DER_cert(new.certificate.read_text())
    until(lambda: all(shown(running) == expected for _ in range(8)))
    open_before.request("GET", PING)
    assert open_before.getresponse().status == 200
    open_before.close()
    assert running.pids() == before
    assert running.stop() == 0


def test_a_broken_renewal_is_logged_and_changes_nothing(server: StartServer, authority: Authority) -> None:
    """The old certificate is served on."""
    running = server(flags=tls_flags(authority))
    old = shown(running)
    authority.certificate.write_text("half a cert")
    running.process.send_signal(signal.SIGHUP)
    until(lambda: "The certificate from before stays in use" in running.log())
    assert shown(running) == old
    assert running.stop() == 0
