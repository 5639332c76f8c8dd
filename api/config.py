"""Every limit of the HTTP edge: unit, default, reason, and what a client gets past it (I10).

Knows numbers only. Filled in by `tools/`, which alone reads flags, environment and files.
"""

from __future__ import annotations

from dataclasses import dataclass

KIB, MIB = 1 << 10, 1 << 20


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """Tunables of one worker's listener; every one that can be exceeded says what happens then.

    Attributes:
        max_header_bytes: request line and headers of one request. Cookies and tokens of real clients stay
            under a quarter of it. Past it: 431, and the connection is closed.
        max_json_bytes: a JSON body, which is held in memory whole. Real image configurations stay under 1
            MiB. Past it: 413.
        max_layer_bytes: a layer's body; None is no limit, because a layer never sits in memory and the disk
            has a limit of its own. Past it: 413.
        max_connections: connections one worker holds. Each costs up to about 1 MiB while it transfers. Past
            it: newcomers wait in the listening queue.
        backlog: connections the kernel queues for all workers of a socket; `net.core.somaxconn` caps it. Past
            it: the client's connection attempt is retried by its kernel, then times out.
        keep_alive_s: an idle connection, and also the time a client has to send its request head. Long enough
            to span the pauses of a push. Past it: the connection is closed.
        keep_alive_requests: requests on one connection, so that connections spread over workers again. Past
            it: the answer says `Connection: close`.
        stall_s: a transfer that moves no byte in either direction; a slow peer moves some. Past it: the
            connection is dropped.
        grace_s: time for transfers under way once the worker was told to stop. Past it: they are cut.
        linger_bytes: body read and thrown away after an answer that did not want it, so that the client sees
            the answer and not a reset. Past it: the connection is closed.
        linger_s: time for the same. Past it: the connection is closed.
        send_bytes: most bytes given to a socket by one `sendfile`, so that one fast client cannot keep the
            event loop from the others.
        threads: threads for engine calls of one worker. A thread blocked on a sync costs nothing, so there
            are more of them than cores. Past it: calls wait for their turn.
        cold_threads: threads that may be blocked on a disk for `sendfile`. Few, because a disk gains nothing
            from more. Past it: cold transfers wait for their turn; warm ones never do.
        readahead_bytes: how far the kernel is asked to read ahead of a cold transfer.
    """

    max_header_bytes: int = 64 * KIB
    max_json_bytes: int = 4 * MIB
    max_layer_bytes: int | None = None
    max_connections: int = 1024
    backlog: int = 1024
    keep_alive_s: float = 75.0
    keep_alive_requests: int = 10_000
    stall_s: float = 60.0
    grace_s: float = 30.0
    linger_bytes: int = 16 * MIB
    linger_s: float = 10.0
    send_bytes: int = 1 * MIB
    threads: int = 32
    cold_threads: int = 4
    readahead_bytes: int = 8 * MIB
