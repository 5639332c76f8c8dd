"""Where there is no sendfile: TLS, HTTP/2 and other servers get the same bytes."""

from __future__ import annotations

import http.client
import ssl

import h2.config
import h2.connection
import h2.events
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from api.threads import Threads
from api.zerocopy import sent
from cas import Digest, Store
from tests.wire.blobs import MIB, application, damaged, keep, mixed, trusting
from tests.wire.harness import PATIENCE_S, Running, serving


def test_tls_gets_the_same_bytes(store: Store, threads: Threads, tls: ssl.SSLContext) -> None:
    """Encryption needs the bytes in user space; pushes work there, too."""
    data = mixed(3 * MIB)
    files = sent.sendfile_bytes
    with serving(application(store, threads), tls=tls) as running:
        client = http.client.HTTPSConnection(*running.address, timeout=PATIENCE_S, context=trusting())
        client.request("PUT", "/", body=data)
        digest = client.getresponse().read().decode()
        assert digest == str(Digest.of(data))
        client.request("GET", f"/{digest}/5/{len(data)}")
        assert client.getresponse().read() == data[5:]
        client.close()
    assert sent.sendfile_bytes == files


class Http2Client:
    """Speaks HTTP/2 without asking first."""

    def __init__(self, running: Running) -> None:
        self.sock = running.connect()
        self.speech = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self.speech.initiate_connection()
        self._flush()

    def _flush(self) -> None:
        self.sock.sendall(self.speech.data_to_send())

    def ask(self, method: str, path: str, body: bytes = b"") -> int:
        stream = self.speech.get_next_available_stream_id()
        headers = [(":method", method), (":path", path), (":scheme", "http"), (":authority", "a")]
        self.speech.send_headers(stream, headers, end_stream=not body)
        for at in range(0, len(body), 16_000):
            self.speech.send_data(stream, body[at : at + 16_000], end_stream=at + 16_000 >= len(body))
        self._flush()
        return stream

    def hear(self, stream: int) -> tuple[bytes, h2.events.Event]:
        """Read until a stream ends; return its body, and how it ended."""
        body = b""
        while data := self.sock.recv(65_536):
            for event in self.speech.receive_data(data):
                if getattr(event, "stream_id", None) != stream:
                    continue
                if isinstance(event, h2.events.DataReceived):
                    body += event.data
                    self.speech.acknowledge_received_data(event.flow_controlled_length, stream)
                if isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
                    return body, event
            self._flush()
        raise AssertionError("the connection ended first")


def test_http2_gets_the_same_bytes_as_messages(store: Store, threads: Threads) -> None:
    """By prior knowledge, without TLS."""
    data = mixed(MIB)
    digest = keep(store, data)
    files = sent.sendfile_bytes
    with serving(application(store, threads)) as running:
        client = Http2Client(running)
        with client.sock:
            for start in (0, 77):
                body, end = client.hear(client.ask("GET", f"/{digest}/{start}/{len(data)}"))
                assert body == data[start:]
                assert isinstance(end, h2.events.StreamEnded)
    assert sent.sendfile_bytes == files


def test_an_http2_answer_that_broke_off_is_reset(store: Store, threads: Threads) -> None:
    """Upstream leaves such a client waiting; other streams of the connection go on."""
    with serving(damaged(threads)) as running:
        client = Http2Client(running)
        with client.sock:
            for _ in range(2):
                _, end = client.hear(client.ask("GET", "/"))
                assert isinstance(end, h2.events.StreamReset)


def test_an_http2_body_that_nobody_wanted_does_not_break_its_connection() -> None:
    """Its answer comes whole, and the next request is served."""

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await PlainTextResponse("no", 413)(scope, receive, send)

    with serving(refuse) as running:
        client = Http2Client(running)
        with client.sock:
            for _ in range(3):
                body, _ = client.hear(client.ask("PUT", "/", b"a" * 20_000))
                assert body == b"no"


def test_another_server_gets_the_same_bytes_as_messages(store: Store, threads: Threads) -> None:
    """Starlette's own test client stands for it."""
    data = mixed(2 * MIB)
    with TestClient(application(store, threads)) as client:
        digest = client.put("/", content=data).text
        assert client.get(f"/{digest}/9/{len(data)}").content == data[9:]
        assert client.head(f"/{digest}/9/{len(data)}").headers["content-length"] == str(len(data) - 9)
