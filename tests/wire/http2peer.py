"""An HTTP/2 client that sends what it is told to, proper or not."""

from __future__ import annotations

import socket

import h2.config
import h2.connection
import h2.events
import h2.settings

from tests.wire.harness import Running


class Peer:
    """A client that sends what it is told to, proper or not."""

    def __init__(self, running: Running, window: int = 65_535, sock: socket.socket | None = None) -> None:
        self.sock = sock or running.connect()
        config = h2.config.H2Configuration(validate_outbound_headers=False, normalize_outbound_headers=False)
        self.speech = h2.connection.H2Connection(config)
        initial = {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window}
        self.speech.local_settings = h2.settings.Settings(client=True, initial_values=initial)
        self.unread: list[h2.events.Event] = []
        self.speech.initiate_connection()
        self.flush()

    def flush(self) -> None:
        self.sock.sendall(self.speech.data_to_send())

    def request(self, method: str = "GET", path: str | None = "/", *, ends: bool = False, **fields: str) -> int:
        """Begin a request; its body goes on unless told otherwise."""
        stream = self.speech.get_next_available_stream_id()
        paths = [] if path is None else [(":path", path)]
        headers = [(":method", method), *paths, (":scheme", "http"), (":authority", "a"), *fields.items()]
        self.speech.send_headers(stream, headers, end_stream=ends)
        return stream

    def read_until(self, wanted: type[h2.events.Event], stream: int | None = None) -> h2.events.Event:
        """Read until an event comes, of that stream if one is named; fails if the server closes first."""
        while True:
            for at, event in enumerate(self.unread):
                if isinstance(event, wanted) and stream in (None, getattr(event, "stream_id", None)):
                    del self.unread[: at + 1]
                    return event
            data = self.sock.recv(65_536)
            assert data, f"closed before {wanted.__name__}"
            self.unread += self.speech.receive_data(data)
            self.flush()

    def answer(self, stream: int) -> tuple[int, bytes]:
        """Read a whole short answer."""
        head = self.read_until(h2.events.ResponseReceived, stream)
        assert isinstance(head, h2.events.ResponseReceived)
        body = b""
        while True:
            event = self.read_until(h2.events.Event, stream)
            if isinstance(event, h2.events.DataReceived):
                body += event.data
            if isinstance(event, h2.events.StreamEnded):
                return int(dict(head.headers)[b":status"]), body

    def pour(self, stream: int, size: int) -> None:
        """Send bytes of a body that the windows have room for, without looking at what comes back."""
        while size:
            piece = min(size, self.speech.max_outbound_frame_size)
            self.speech.send_data(stream, b"a" * piece)
            size -= piece
        self.flush()


def ask_with_a_reset(running: Running) -> None:
    """Ask by a method that is none, which is reset, and then as one should, on the same connection."""
    peer = Peer(running)
    peer.request("G(T", "/", ends=True)
    peer.flush()
    good = peer.request("HEAD", "/", ends=True)
    peer.flush()
    peer.answer(good)
    peer.sock.close()
