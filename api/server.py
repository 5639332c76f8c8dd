"""One worker's listener: accepts fairly beside other workers, serves, and ends without cutting transfers.

Knows sockets and connections. Refuses to know how many workers there are, what a signal is, and where
settings come from: `tools/` binds the sockets, starts the workers and says when to stop.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import sys
from collections.abc import Callable, Iterable
from functools import partial
from socket import AF_INET, AF_INET6, IPPROTO_TCP, TCP_NODELAY, socket
from typing import Any, Final, Protocol, cast, final

from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.asyncio.lifespan import Lifespan
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config
from hypercorn.typing import LifespanState
from starlette.types import ASGIApp

from api.access_log import AccessLog
from api.config import HttpSettings
from api.connection import Connection, Worker
from api.counts import Counts
from api.evenly import Balance, Burden, Share
from api.hello import speaks_tls
from api.inbox import Held
from api.intake import Pieces
from api.observed import Observers
from api.repeats import Repeats
from api.threads import Threads

log = logging.getLogger(__name__)

# Gives the TLS context for a connection that begins now: the certificate may have been renewed.
NewestContext = Callable[[], ssl.SSLContext]

# How long to leave the listening socket alone when the process has no descriptor left for a newcomer.
_BREATH_S: Final = 0.5
# How long to leave a newcomer to a worker that is busy with less: it was woken too, and may be in the middle of a step.
_COURTESY_S: Final = 0.002


class Waitable(Protocol):
    """Something like an asyncio.Event."""

    async def wait(self) -> Any: ...


def _no_moment() -> None:
    return None


async def serve(  # noqa: PLR0913 - the last five are what a server can do without
    app: ASGIApp,
    sockets: Iterable[socket],
    settings: HttpSettings,
    *,
    stop: Waitable,
    on_ready: Callable[[], None],
    tls: NewestContext | None = None,
    moment: Callable[[], int | None] = _no_moment,
    access: AccessLog | None = None,
    counts: Counts | None = None,
    burden: Burden | None = None,
) -> None:
    """Serve an application on bound sockets until stop is set.

    Then nothing more is accepted, idle connections are closed at once, transfers get `grace_s`, and what is
    left is cut. The sockets are closed. With `tls` every connection has to speak it. `moment` tells whether what the
    application said may be repeated (`api.repeats`); without it everything is asked anew. So it is with `access`, which
    is told of every request: an answer by heart passes by all that knows what a line has to say. `counts` is where
    requests are counted, also those. `burden` is what other processes that serve on the same sockets go by, to share
    connections evenly.
    """
    listening = list(sockets)
    config = _config(settings)
    wrapped = ASGIWrapper(app)  # type: ignore[arg-type]
    state = LifespanState({})
    lifespan = Lifespan(wrapped, config, asyncio.get_running_loop(), state)
    living = asyncio.create_task(lifespan.handle_lifespan())
    cold = Threads(settings.cold_threads, "cold")
    try:
        await lifespan.wait_for_startup()
        if living.done():
            living.result()  # raises what the application could not start with
        repeats = Repeats(settings.repeat_bytes if access is None else 0, moment)
        held = Held(settings.h2_held_bytes)
        observers = None if access is None and counts is None else Observers(access, counts)
        worker = Worker(wrapped, config, WorkerContext(None), state, settings, cold, held, repeats, observers)
        await _listen(worker, listening, tls, burden or Balance().join(0), stop, on_ready)
        await lifespan.wait_for_shutdown()
    finally:
        living.cancel()
        await asyncio.gather(living, return_exceptions=True)
        cold.close()
        for sock in listening:
            sock.close()


async def _listen(
    worker: Worker,
    sockets: list[socket],
    tls: NewestContext | None,
    burden: Burden,
    stop: Waitable,
    on_ready: Callable[[], None],
) -> None:
    listeners = [Listener(worker, sock, tls, burden) for sock in sockets]
    try:
        on_ready()
        await stop.wait()
    finally:
        burden.leave()
        for listener in listeners:
            listener.close()
        await worker.context.terminated.set()  # connections at work see it and end
        await asyncio.gather(*(listener.finish() for listener in listeners))


def _config(settings: HttpSettings) -> Config:
    config = Config()
    config.accesslog = None
    config.errorlog = log
    config.include_server_header = False
    config.h11_max_incomplete_size = settings.max_header_bytes
    config.keep_alive_timeout = settings.keep_alive_s
    config.keep_alive_max_requests = sys.maxsize  # api.connection counts
    return config


@final
class Listener:
    """Accepts on one socket, which other processes may share, and holds its connections."""

    def __init__(self, worker: Worker, sock: socket, tls: NewestContext | None, burden: Burden) -> None:
        self._worker, self._sock, self._tls, self._burden = worker, sock, tls, burden
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._strangers: set[asyncio.Task[None]] = set()  # whose connection has not got as far as HTTP
        self._connections: set[Connection] = set()
        self._is_open, self._is_watching = True, False
        sock.settimeout(0)
        sock.listen(worker.settings.backlog)
        self._watch()

    def close(self) -> None:
        """Accept no more."""
        self._is_open = False
        self._unwatch()
        self._sock.close()

    async def finish(self) -> None:
        """Wait for the connections to end, and cut those that do not within the grace."""
        for task in self._strangers:
            task.cancel()
        for connection in self._connections:
            connection.dismiss()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._worker.settings.grace_s)
        for connection in self._connections:
            connection.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _watch(self) -> None:
        room = len(self._tasks) < self._worker.settings.max_connections
        if self._is_open and room and not self._is_watching:
            self._is_watching = True
            self._loop.add_reader(self._sock, self._wake)

    def _unwatch(self) -> None:
        if self._is_watching:
            self._is_watching = False
            self._loop.remove_reader(self._sock)

    def _wake(self) -> None:
        if self._burden.is_light():
            self._accept()
        else:
            self._unwatch()
            self._loop.call_later(_COURTESY_S, self._accept_late)

    def _accept_late(self) -> None:
        """Take a newcomer that nobody else did, if there is room for one."""
        self._watch()
        if self._is_watching:
            self._accept()

    def _accept(self) -> None:
        # One a wake-up: asyncio's own server takes as many as it can, and one worker would get a whole burst.
        try:
            sock, _ = self._sock.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another worker was quicker, or the client left
        except OSError as error:
            log.error("No connection can be accepted for now: %s", error)  # noqa: TRY400
            self._unwatch()
            self._loop.call_later(_BREATH_S, self._watch)
            return
        share = self._burden.share()
        task = self._loop.create_task(self._serve(sock, share))
        self._tasks.add(task)
        self._strangers.add(task)
        task.add_done_callback(partial(self._ended, share))
        if len(self._tasks) >= self._worker.settings.max_connections:
            self._unwatch()

    def _ended(self, share: Share, task: asyncio.Task[None]) -> None:
        share.drop()
        self._tasks.discard(task)
        self._strangers.discard(task)
        self._watch()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("A connection failed", exc_info=error)

    async def _serve(self, sock: socket, share: Share) -> None:
        connection = await self._meet(sock, share)
        if connection is None:
            return
        self._strangers.discard(cast("asyncio.Task[None]", asyncio.current_task()))
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)

    async def _meet(self, sock: socket, share: Share) -> Connection | None:
        """Shake hands; None if it came to nothing."""
        sock.settimeout(0)
        if sock.family in {AF_INET, AF_INET6}:
            # asyncio does this only for sockets that were made with an explicit protocol number. Without it a
            # short answer, which is several writes, waits 40 ms for the client's delayed acknowledgement.
            sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        settings, context = self._worker.settings, None
        reader = Pieces(self._loop, settings.stall_s)
        protocol = asyncio.StreamReaderProtocol(reader, loop=self._loop)
        patience_s = farewell_s = None
        try:
            if self._tls is not None:
                if not await speaks_tls(sock, settings, self._worker.observers):
                    sock.close()
                    return None
                # Its last bytes are a transfer like any other; asyncio would give them 30 s.
                context, patience_s, farewell_s = self._tls(), settings.keep_alive_s, settings.stall_s
            transport, _ = await self._loop.connect_accepted_socket(
                lambda: protocol,
                sock,
                ssl=context,
                ssl_handshake_timeout=patience_s,
                ssl_shutdown_timeout=farewell_s,
            )
        except (OSError, asyncio.CancelledError) as error:  # a failed TLS handshake is the former
            sock.close()
            if isinstance(error, OSError):
                return None
            raise
        writer = asyncio.StreamWriter(transport, protocol, reader, self._loop)
        return Connection(self._worker, reader, writer, share)
