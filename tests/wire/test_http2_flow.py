"""HTTP/2 uploads: quick on long ways, fair to their neighbours on a connection, and bounded in memory."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator

import h2.events
import h2.settings
import pytest
from starlette.types import Receive, Scope, Send

from api.config import HttpSettings
from api.inbox import Held, Inbox
from tests.wire.harness import PATIENCE_S, Running, answer, count, serving
from tests.wire.hourglass import Hourglass
from tests.wire.http2peer import Peer

KIB, MIB = 1 << 10, 1 << 20
SMALL = HttpSettings(h2_stream_bytes=256 * KIB, h2_connection_bytes=512 * KIB)


class Slow:
    """Does not look at a body before it is let through; other requests are answered at once."""

    def __init__(self) -> None:
        self.begun, self.open = threading.Event(), threading.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "PUT":
            self.begun.set()
            await asyncio.get_running_loop().run_in_executor(None, self.open.wait, PATIENCE_S)
        await count(scope, receive, send)


async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer without a look at the body."""
    if scope["type"] == "http":
        await answer(send, b"no", 413)


Begin = Callable[[Running], Peer]


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Connect, and read what windows there are."""
    peers: list[Peer] = []

    def connect(running: Running) -> Peer:
        peer = Peer(running)
        peers.append(peer)
        peer.read_until(h2.events.RemoteSettingsChanged)
        if peer.speech.outbound_flow_control_window == 65_535:
            peer.read_until(h2.events.WindowUpdated)
        return peer

    yield connect
    for peer in peers:
        peer.sock.close()


def test_a_megabyte_is_sent_without_waiting_for_an_answer(begin: Begin) -> None:
    """64 KiB a round trip, the protocol's own beginning, would be 1.3 MB/s on a way of 50 ms."""
    with serving(count) as running:
        peer = begin(running)
        stream = peer.request("PUT")
        assert peer.speech.local_flow_control_window(stream) >= MIB
        assert peer.speech.max_outbound_frame_size >= 64 * KIB
        peer.pour(stream, MIB)
        peer.speech.end_stream(stream)
        peer.flush()
        assert peer.answer(stream) == (200, f"{MIB} {97 * MIB}".encode())


def test_windows_are_as_the_settings_say(begin: Begin) -> None:
    """They bound what a request, and all requests of a connection, can make a worker hold."""
    with serving(count, SMALL) as running:
        peer = begin(running)
        assert peer.speech.outbound_flow_control_window == 512 * KIB
        assert peer.speech.local_flow_control_window(peer.request("PUT")) == 256 * KIB


def test_an_application_that_is_slow_to_read_keeps_no_neighbour_waiting(begin: Begin) -> None:
    """All of its window is on the way, and other requests of the connection are answered meanwhile."""
    app = Slow()
    with serving(app, SMALL) as running:
        peer = begin(running)
        slow = peer.request("PUT")
        peer.pour(slow, 256 * KIB)
        assert app.begun.wait(PATIENCE_S)
        for _ in range(3):
            assert peer.answer(peer_get(peer)) == (200, b"0 0")
        assert peer.speech.local_flow_control_window(slow) == 0, "new room only for what was taken"
        app.open.set()
        peer.read_until(h2.events.WindowUpdated, slow)
        peer.pour(slow, 128 * KIB)
        peer.speech.end_stream(slow)
        peer.flush()
        assert peer.answer(slow) == (200, f"{384 * KIB} {97 * 384 * KIB}".encode())


def peer_get(peer: Peer) -> int:
    stream = peer.request(ends=True)
    peer.flush()
    return stream


def test_a_peer_that_has_used_up_its_window_does_not_stall(begin: Begin, hourglass: Hourglass) -> None:
    """It waits for the application, and must not be dropped for that."""
    app = Slow()
    with serving(app, HttpSettings(h2_stream_bytes=65_535, stall_s=10.0)) as running:
        peer = begin(running)
        stream = peer.request("PUT")
        peer.pour(stream, 65_535)
        assert app.begun.wait(PATIENCE_S)
        peer.speech.ping(b"is there")
        peer.flush()
        peer.read_until(h2.events.PingAckReceived)  # so all that was poured is there
        hourglass.let_pass(running, 50.0)
        app.open.set()
        peer.read_until(h2.events.WindowUpdated, stream)
        peer.speech.end_stream(stream)
        peer.flush()
        assert peer.answer(stream)[0] == 200


@pytest.mark.parametrize("ends", [True, False])
def test_bodies_that_nobody_reads_use_up_no_window_for_ever(begin: Begin, ends: bool) -> None:
    """A connection goes on after more refused bodies than its window could hold."""
    with serving(refuse, SMALL) as running:
        peer = begin(running)
        for _ in range(20):
            while peer.speech.outbound_flow_control_window < 256 * KIB:
                peer.read_until(h2.events.WindowUpdated)
            stream = peer.request("PUT")
            peer.pour(stream, 200 * KIB)
            if ends:
                peer.speech.end_stream(stream)
                peer.flush()
            assert peer.answer(stream) == (413, b"no")


def test_bodies_that_are_cut_give_their_window_back_when_their_application_ends(begin: Begin) -> None:
    """Not before, or a peer that resets and sends again could fill the memory."""
    app = Slow()
    with serving(app, SMALL) as running:
        peer = begin(running)
        stream = peer.request("PUT")
        peer.pour(stream, 256 * KIB)
        assert app.begun.wait(PATIENCE_S)
        peer.speech.reset_stream(stream)
        peer.flush()
        assert peer.answer(peer_get(peer)) == (200, b"0 0")
        assert peer.speech.outbound_flow_control_window == 256 * KIB
        app.open.set()
        peer.read_until(h2.events.WindowUpdated)
        assert peer.speech.outbound_flow_control_window == 512 * KIB


def test_padding_counts_like_what_it_pads(begin: Begin) -> None:
    """It uses up the window, and comes back."""
    with serving(count, SMALL) as running:
        peer = begin(running)
        stream = peer.request("PUT")
        for _ in range(8000):
            while peer.speech.local_flow_control_window(stream) < 300:
                peer.read_until(h2.events.WindowUpdated)
            peer.speech.send_data(stream, b"a", pad_length=255)
            peer.flush()
        peer.speech.end_stream(stream)
        peer.flush()
        assert peer.answer(stream) == (200, b"8000 776000")


@pytest.mark.parametrize("held", [0, 100 * KIB])
def test_a_worker_that_holds_much_reads_a_piece_at_a_time(begin: Begin, held: int) -> None:
    """h2_held_bytes bound all windows together; bodies arrive whole all the same."""
    app = Slow()
    with serving(app, HttpSettings(h2_held_bytes=held)) as running:
        peers = [begin(running) for _ in range(4)]
        streams = [peer.request("PUT") for peer in peers]
        pouring = [
            threading.Thread(target=peer.pour, args=(stream, 3 * MIB))
            for peer, stream in zip(peers, streams, strict=True)
        ]
        for thread in pouring:
            thread.start()
        assert app.begun.wait(PATIENCE_S)
        app.open.set()
        for thread, peer, stream in zip(pouring, peers, streams, strict=True):
            thread.join(PATIENCE_S)
            peer.speech.end_stream(stream)
            peer.flush()
            assert peer.answer(stream) == (200, f"{3 * MIB} {97 * 3 * MIB}".encode())


def test_an_inbox_takes_more_than_a_piece_only_while_the_worker_has_room() -> None:
    """And what its application left when it ended is not held any longer."""

    async def fill(held: Held, *, has_window: bool) -> tuple[int, Inbox]:
        inbox = Inbox(held, has_window=has_window)
        for _ in range(100):
            try:
                async with asyncio.timeout(0.01):
                    await inbox.put({"type": "http.request", "body": bytes(32 * KIB), "more_body": True})
            except TimeoutError:
                break
        return held.bytes, inbox

    async def main() -> None:
        plain, _ = await fill(Held(10 * MIB), has_window=False)
        assert plain <= 128 * KIB
        wide, inbox = await fill(held := Held(10 * MIB), has_window=True)
        assert wide == 100 * 32 * KIB
        inbox.close()
        assert held.bytes == 0
        await inbox.put({"type": "http.request", "body": b"late", "more_body": True})
        assert held.bytes == 0
        narrow, _ = await fill(Held(MIB), has_window=True)
        assert MIB < narrow <= MIB + 64 * KIB

    asyncio.run(main())


def test_continue_is_said_over_http2_only_when_the_body_is_wanted(begin: Begin) -> None:
    """As over HTTP/1.1."""
    with serving(refuse) as running:
        peer = begin(running)
        assert peer.answer(peer_expect(peer)) == (413, b"no")
        assert not [event for event in peer.unread if isinstance(event, h2.events.InformationalResponseReceived)]
    with serving(count) as running:
        peer = begin(running)
        stream = peer_expect(peer)
        peer.read_until(h2.events.InformationalResponseReceived, stream)
        peer.speech.send_data(stream, b"abc", end_stream=True)
        peer.flush()
        assert peer.answer(stream) == (200, b"3 294")


def peer_expect(peer: Peer) -> int:
    stream = peer.request("PUT", expect="100-continue")
    peer.flush()
    return stream


def test_an_application_that_says_nothing_over_http2_gives_a_500_with_a_reason(begin: Begin) -> None:
    """As over HTTP/1.1, and the connection goes on."""

    async def silent(scope: Scope, receive: Receive, send: Send) -> None:
        """End without an answer."""

    with serving(silent) as running:
        peer = begin(running)
        for _ in range(2):
            status, body = peer.answer(peer_get(peer))
            assert status == 500
            assert b"Internal error" in body


def test_hundreds_of_ranges_fit_into_one_header(begin: Begin) -> None:
    """Lazy pullers ask for them at once; past max_header_bytes the connection ends."""
    with serving(count) as running:
        peer = begin(running)
        ranges = "bytes=" + ",".join(f"{at}000000-{at}000999" for at in range(2500))
        assert 48 * KIB < len(ranges) < 64 * KIB
        stream = peer.request(range=ranges, ends=True)
        peer.flush()
        assert peer.answer(stream) == (200, b"0 0")
        peer.request(range=ranges * 2, ends=True)
        peer.flush()
        peer.read_until(h2.events.ConnectionTerminated)
