"""Every limit and choice of the HTTP edge: unit, default, reason, and what a client gets past it (I10).

Knows numbers only. Filled in by `tools/`, which alone reads flags, environment and files.
"""

from __future__ import annotations

from dataclasses import dataclass

KIB, MIB = 1 << 10, 1 << 20
# So long rows are taken to be in memory that were looked at; to wait for the disk is for threads.
IN_MEMORY_S = 60.0


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """Tunables of one worker's listener; every one that can be exceeded says what happens then.

    Attributes:
        max_header_bytes: request line and headers of one request. Cookies and tokens of real clients stay
            under a quarter of it. Past it: 431, and the connection is closed.
        max_json_bytes: a JSON body, which is held in memory whole. Real image configurations stay under 1
            MiB. Past it: 413.
        large_bodies: bodies beyond 64 KiB that one worker holds at once. With the limit on each it bounds what
            they take; nobody needs more. Past it: their senders wait.
        max_layer_bytes: a layer's body; None is no limit, because a layer never sits in memory and the disk
            has a limit of its own. Past it: 413.
        max_connections: connections one worker holds. Each costs up to about 1 MiB while it transfers. Past
            it: newcomers wait in the listening queue.
        backlog: connections the kernel queues for all workers of a socket; `net.core.somaxconn` caps it. Past
            it: the client's connection attempt is retried by its kernel, then times out.
        keep_alive_s: an idle connection, and also the time a client has to send its request head, or its TLS
            hello. Longer than the 90 s that Go's clients keep one: a request must not race the closing, since
            a streamed body cannot be sent again. Past it: the connection is closed.
        keep_alive_requests: requests on one connection, so that connections spread over workers again. Past
            it: the answer says `Connection: close`.
        stall_s: a transfer that moves no byte in either direction; a slow peer moves some. Minutes, because
            builders begin a request and compress for a while before they send its first byte. Who may push
            nothing is answered before his body is waited for, so that this patience is not for everybody. Past
            it: the connection is dropped.
        grace_s: time for transfers under way once the worker was told to stop. Past it: they are cut.
        linger_bytes: body read and thrown away after an answer that did not want it, so that the client sees
            the answer and not a reset. Past it: the connection is closed.
        linger_s: time for the same. Past it: the connection is closed.
        send_bytes: most bytes given to a socket by one `sendfile`, so that one fast client cannot keep the
            event loop from the others; up to four times as many while nobody else is answered.
        threads: threads for engine calls of one worker. A thread blocked on a sync costs nothing, so there
            are more of them than cores. Past it: calls wait for their turn.
        cold_threads: threads that may be blocked on a disk for `sendfile`. Few, because a disk gains nothing
            from more. Past it: cold transfers wait for their turn; warm ones never do.
        repeat_bytes: answers that one worker keeps, to give them again while they are true; of a layer only
            where it lies. Enough for the manifests of thousands of images. Past it: the oldest are made anew.
        h2_streams: requests at once on one HTTP/2 connection. Past it: the connection is closed; clients
            know the number and keep to it.
        h2_stream_bytes: flow-control window of an HTTP/2 request: what may be on its way or wait for the
            application. An upload moves no more than this in a round trip. Past it: the sender waits.
        h2_connection_bytes: the same for all requests of a connection together. Past it: the sender waits.
        h2_held_bytes: body bytes that wait for their applications in one worker, whatever the windows promised.
            Past it: of each request only a piece is read; the sender's system waits.
        public_url: `http[s]://host[:port]` told to clients as the place to come to. None takes what each
            request asked for, which is right unless a proxy hides it.
        trust_forwarded: believe `Forwarded`, or else `X-Forwarded-Proto` and `X-Forwarded-Host`. Only behind a
            proxy that always sets them: anybody else could send clients elsewhere.
    """

    max_header_bytes: int = 64 * KIB
    max_json_bytes: int = 4 * MIB
    large_bodies: int = 16
    max_layer_bytes: int | None = None
    max_connections: int = 1024
    backlog: int = 1024
    keep_alive_s: float = 120.0
    keep_alive_requests: int = 10_000
    stall_s: float = 600.0
    grace_s: float = 30.0
    linger_bytes: int = 16 * MIB
    linger_s: float = 10.0
    send_bytes: int = 1 * MIB
    threads: int = 32
    cold_threads: int = 4
    repeat_bytes: int = 8 * MIB
    h2_streams: int = 100
    h2_stream_bytes: int = 4 * MIB
    h2_connection_bytes: int = 16 * MIB
    h2_held_bytes: int = 32 * MIB
    public_url: str | None = None
    trust_forwarded: bool = False
