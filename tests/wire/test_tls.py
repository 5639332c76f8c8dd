"""TLS on a port: who gets a connection, what the others are told, and how a certificate is renewed."""

from __future__ import annotations

import contextlib
import datetime as dt
import http.client
import json
import shutil
import socket
import ssl
import struct
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from h2.events import DataReceived
from starlette.types import Receive, Scope, Send

from api.config import KIB, HttpSettings
from api.connection import Connection
from api.tls import BadCertificate, Certificate, Files, complaint, load
from tests.support.certificates import loopback_authority
from tests.wire.blobs import trusting
from tests.wire.harness import PATIENCE_S, Running, ask, count, open_descriptors, read_all, serving
from tests.wire.hourglass import Hourglass
from tests.wire.http2peer import Peer


def pair(folder: Path) -> Files:
    made = loopback_authority(folder)
    return Files(made.certificate, made.key)


def expired(folder: Path) -> Files:
    folder.mkdir()
    files, key = Files(folder / "cert.pem", folder / "key.pem"), ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    end = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(end - dt.timedelta(days=1)).not_valid_after(end)
    files.cert.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    files.key.write_bytes(key.private_bytes(encoding, form, serialization.NoEncryption()))
    return files


def shown(running: Running, **offered: list[str]) -> tuple[bytes, str | None, str | None]:
    """Shake hands; give certificate, version and the protocol agreed on."""
    context = trusting()
    if offered:
        context.set_alpn_protocols(offered["alpn"])
    with context.wrap_socket(running.connect()) as sock:
        return sock.getpeercert(True) or b"", sock.version(), sock.selected_alpn_protocol()


def test_http2_and_http1_are_both_offered(tmp_path: Path) -> None:
    """By ALPN, HTTP/2 to those who speak nothing else; a client that offers nothing speaks HTTP/1.1."""
    certificate = Certificate(pair(tmp_path / "a"))
    with serving(count, tls=certificate.context) as running:
        assert shown(running, alpn=["h2"])[1:] == ("TLSv1.3", "h2")
        assert shown(running, alpn=["http/1.1"])[2] == "http/1.1"
        assert shown(running)[2] is None
        client = http.client.HTTPSConnection(*running.address, context=trusting(), timeout=PATIENCE_S)
        client.request("PUT", "/", body=b"abc")
        assert client.getresponse().read() == b"3 294"
        client.close()


@pytest.mark.parametrize("offered", [["h2", "http/1.1"], ["http/1.1", "h2"]])
def test_who_speaks_both_is_served_by_the_faster_one(tmp_path: Path, offered: list[str]) -> None:
    """Whichever of the two a client would like better."""
    with serving(count, tls=load(pair(tmp_path / "a"))) as running:
        assert shown(running, alpn=offered)[2] == "http/1.1"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_versions_that_are_broken_are_not_spoken(tmp_path: Path) -> None:
    """TLS 1.2 and later; 1.1 ends in a refusal, not in a hang."""
    with serving(count, tls=load(pair(tmp_path / "a"))) as running:
        for version, is_spoken in ((ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_1, False)):
            context = trusting()
            context.set_ciphers("ALL:@SECLEVEL=0")
            context.minimum_version = context.maximum_version = version
            try:
                with context.wrap_socket(running.connect()) as sock:
                    assert is_spoken, sock.version()
            except (ssl.SSLError, ConnectionResetError):
                assert not is_spoken


@pytest.mark.parametrize("text", ["GET /v1/_ping HTTP/1.1\nHost: a", "nonsense", "PRI * HTTP/2.0"])
def test_plain_http_to_a_tls_port_is_told_so(text: str, tmp_path: Path) -> None:
    """In words that every client shows, and at once."""
    with serving(count, tls=load(pair(tmp_path / "a"))) as running:
        got = ask(running, text)
    assert got.startswith(b"HTTP/1.0 400 Bad Request\r\n")
    assert b"https" in got.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("path", ["/v2", "/v2/", "/v2/bob/app/tags/list", "http://a/v2/", "/v2x", "/v1/_ping"])
def test_plain_http_to_a_tls_port_is_told_so_as_v2_clients_read_it(path: str, tmp_path: Path) -> None:
    """The same sentence in the body that they look for one in."""
    with serving(count, tls=load(pair(tmp_path / "a"))) as running:
        head, _, body = ask(running, f"GET {path} HTTP/1.1\nHost: a").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 400 ")
    assert f"Content-Length: {len(body)}".encode() in head
    if path not in {"/v2", "/v2/", "/v2/bob/app/tags/list"}:
        assert b"say https:// instead of http://" in body
        assert b"text/plain" in head
        return
    assert b"Content-Type: application/json" in head
    (error,) = json.loads(body)["errors"]
    assert error["code"] == "UNSUPPORTED"
    assert "say https:// instead of http://" in error["message"]


def test_a_plain_push_to_a_tls_port_reads_its_answer(tmp_path: Path) -> None:
    """However much it is still sending."""
    before = open_descriptors()
    with serving(count, HttpSettings(linger_s=PATIENCE_S), tls=load(pair(tmp_path / "a"))) as running:
        client = http.client.HTTPConnection(*running.address, timeout=PATIENCE_S)
        client.request("PUT", "/", body=b"a" * (4 << 20))
        assert client.getresponse().status == 400
        client.close()
    assert open_descriptors() <= before


def test_a_tls_hello_to_a_plain_port_is_answered_at_once_and_harms_nobody() -> None:
    """Clients that try https first see `HTTP/` in the answer, and go on with plain http."""
    with serving(count) as running:
        with pytest.raises(ssl.SSLError, match=r"(?i)wrong.version.number|record layer failure|http"):
            shown(running)
        with running.connect() as sock:
            sock.sendall(b"\x16")  # the first byte is enough
            got = read_all(sock)
        assert got.startswith(b"HTTP/1.1 400 ")
        assert b"plain http" in got
        assert ask(running, "GET / HTTP/1.1\nHost: a\nConnection: close").endswith(b"0 0")


@pytest.mark.parametrize("sent", [b"", b"\x16", b"\x16\x03\x01\x02"])
def test_a_client_that_says_nothing_or_half_a_hello_is_not_waited_for(sent: bytes, tmp_path: Path) -> None:
    """keep_alive_s bound the time for a TLS hello, too."""
    with serving(count, HttpSettings(keep_alive_s=0.2), tls=load(pair(tmp_path / "a"))) as running:
        sock = running.connect()
        sock.sendall(sent)
        assert read_all(sock) == b""


def test_a_client_that_says_nothing_does_not_delay_the_end(tmp_path: Path) -> None:
    """Nor does one in the middle of its hello."""
    settings = HttpSettings(grace_s=PATIENCE_S, keep_alive_s=PATIENCE_S)
    with serving(count, settings, tls=load(pair(tmp_path / "a"))) as running:
        silent, half = running.connect(), running.connect()
        half.sendall(b"\x16\x03\x01")
        shown(running)  # both were accepted before this one
        running.begin_stop()
        for sock in (silent, half):
            sock.settimeout(PATIENCE_S / 2)
            try:
                assert read_all(sock) == b""
            except ConnectionResetError:
                continue


def test_new_connections_get_a_renewed_certificate_and_old_ones_go_on(tmp_path: Path) -> None:
    """Nobody is dropped, and nobody has to restart anything."""
    old, new, live = pair(tmp_path / "old"), pair(tmp_path / "new"), tmp_path / "live"
    live.mkdir()
    files = Files(live / "cert.pem", live / "key.pem")
    replace(files, old)
    certificate = Certificate(files)
    with serving(count, tls=lambda: certificate.context) as running:
        client = http.client.HTTPSConnection(*running.address, context=trusting(), timeout=PATIENCE_S)
        client.request("GET", "/")
        assert client.getresponse().read() == b"0 0"
        replace(files, new)
        certificate.refresh()
        assert shown(running)[0] == ssl.PEM_cert_to_DER_cert(new.cert.read_text())
        client.request("GET", "/")
        assert client.getresponse().read() == b"0 0"
        client.close()


def replace(files: Files, source: Files) -> None:
    shutil.copy(source.cert, files.cert)
    shutil.copy(source.key, files.key)


def test_a_broken_renewal_keeps_the_old_certificate_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Until the files are whole again."""
    old, new, live = pair(tmp_path / "old"), pair(tmp_path / "new"), tmp_path / "live"
    live.mkdir()
    files = Files(live / "cert.pem", live / "key.pem")
    replace(files, old)
    certificate = Certificate(files)
    before = certificate.context
    shutil.copy(new.cert, files.cert)
    for _ in range(3):
        certificate.refresh()
    assert certificate.context is before
    (told,) = caplog.records
    assert "the key belongs to another certificate. The certificate from before stays in use." in told.message
    files.cert.unlink()
    certificate.refresh()
    assert "cannot read" in caplog.records[-1].message
    replace(files, new)
    certificate.refresh()
    assert certificate.context is not before


def test_files_that_cannot_serve_are_refused_with_the_reason(tmp_path: Path) -> None:
    """Missing, no PEM, of different keys, or with a passphrase that nobody is there to type."""
    one, other = pair(tmp_path / "one"), pair(tmp_path / "other")
    (tmp_path / "text").write_text("hello")
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    key = serialization.load_pem_private_key(one.key.read_bytes(), None)
    locked = key.private_bytes(encoding, form, serialization.BestAvailableEncryption(b"secret"))
    (tmp_path / "locked").write_bytes(locked)
    for files, reason in (
        (Files(tmp_path / "nowhere", one.key), "cannot read .*nowhere: No such file"),
        (Files(tmp_path, one.key), "cannot read .*: Is a directory"),
        (Files(tmp_path / "text", one.key), "not a PEM certificate"),
        (Files(one.cert, tmp_path / "text"), "not a PEM certificate"),
        (Files(one.key, one.cert), "is a key and .* a certificate: exchange the two"),
        (Files(one.cert, other.key), "the key belongs to another certificate"),
        (Files(one.cert, tmp_path / "locked"), "the key is encrypted"),
    ):
        with pytest.raises(BadCertificate, match=reason):
            load(files)


def test_a_certificate_that_clients_will_refuse_is_noticed(tmp_path: Path) -> None:
    """One that has expired loads all the same; who serves it should know."""
    assert complaint(pair(tmp_path / "good")) is None
    assert "certificate has expired" in (complaint(expired(tmp_path / "bad")) or "")


def test_a_port_serves_again_after_many_who_did_not_speak_tls(tmp_path: Path) -> None:
    """Neither descriptors nor places are lost to them."""
    before = open_descriptors()
    settings = HttpSettings(max_connections=2)
    with serving(count, settings, tls=load(pair(tmp_path / "a"))) as running:
        for _ in range(20):
            with running.connect() as sock:
                sock.sendall(b"\x16\x03\x01\x00\x05hello")
                sock.shutdown(socket.SHUT_WR)
                read_all(sock)
        assert shown(running)[1] == "TLSv1.3"
    assert open_descriptors() <= before


@pytest.mark.parametrize("is_told", [True, False])
def test_a_peer_that_does_not_say_farewell_is_not_waited_for(
    is_told: bool, tmp_path: Path, hourglass: Hourglass
) -> None:
    """It has its answer: neither the end of an idle connection nor that of the server takes until its grace is over."""
    certificate = Certificate(pair(tmp_path / "a"))
    settings = HttpSettings(grace_s=10 * PATIENCE_S, keep_alive_s=PATIENCE_S)
    with serving(count, settings, tls=certificate.context) as running:
        peer = trusting().wrap_socket(running.connect(), suppress_ragged_eofs=False)
        with peer:
            peer.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert peer.recv(100)
            if is_told:
                running.begin_stop()
            else:
                hourglass.run(running, PATIENCE_S)
            silent = socket.socket(fileno=peer.detach())  # so that nothing answers what TLS says
            with silent:
                silent.settimeout(PATIENCE_S / 3)
                while silent.recv(1000):
                    pass


def test_the_end_of_an_answer_over_tls_comes_however_slowly_it_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left of it when the connection is closed is not cut after the time asyncio gives farewells."""
    monkeypatch.setattr("asyncio.constants.SSL_SHUTDOWN_TIMEOUT", 0.1)
    body, closing = bytes(400_000), threading.Event()
    run, close = Connection.run, Connection._close  # noqa: SLF001

    async def narrow(connection: Connection) -> None:
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        await run(connection)

    async def told(connection: Connection) -> None:
        connection.loop.call_later(0.5, closing.set)
        await close(connection)

    monkeypatch.setattr(Connection, "run", narrow)
    monkeypatch.setattr(Connection, "_close", told)

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            length = (b"content-length", b"%d" % len(body))
            await send({"type": "http.response.start", "status": 200, "headers": [length]})
            await send({"type": "http.response.body", "body": body})

    certificate = Certificate(pair(tmp_path / "a"))
    with serving(answer, tls=certificate.context) as running, trusting().wrap_socket(running.connect()) as peer:
        peer.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert closing.wait(PATIENCE_S)
        assert read_all(peer).endswith(body)


@pytest.mark.parametrize("farewell", [True, False])
def test_a_client_that_vanishes_from_its_answers_is_no_news(
    farewell: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With or without a word: whoever answers learns of it, and not the log, once for each frame."""
    left: list[int] = []

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for _ in range(40):
                await send({"type": "http.response.body", "body": bytes(512 * KIB), "more_body": True})
            left.append(1)

    certificate, context = Certificate(pair(tmp_path / "a")), trusting()
    context.set_alpn_protocols(["h2"])
    with serving(answer, tls=certificate.context) as running:
        for _ in range(3):
            peer = Peer(running, 1 << 30, context.wrap_socket(running.connect()))
            peer.speech.increment_flow_control_window(1 << 30)
            streams = [peer.request(ends=True) for _ in range(4)]
            peer.flush()
            for stream in streams:
                peer.read_until(DataReceived, stream)
            if farewell:
                peer.sock.setblocking(False)
                with contextlib.suppress(ssl.SSLError, BlockingIOError):
                    peer.sock.unwrap()  # type: ignore[attr-defined]
            peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.sock.close()
    assert len(left) == 12
    assert [record.getMessage() for record in caplog.records if record.levelname != "DEBUG"] == []
