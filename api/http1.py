"""HTTP/1.1 on one connection: Hypercorn's protocol around h11, made to be fair to clients and safe from peers.

What differs from upstream: bodies from files, and bodies of requests past h11; `100 Continue` only when the
application wants the body; an answer that did not want the body ends the connection gently; heads that are too
large, or give two lengths, are refused; every refusal says why. Knows no route, no blob and no socket.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import h11
from hypercorn.events import Event, RawData, Updated
from hypercorn.protocol.events import Body, EndBody, Request, Response, StreamClosed
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h11 import STREAM_ID, H2ProtocolAssumedError, H11Protocol
from hypercorn.typing import H11SendableEvent

from api.basis import Basis
from api.carrier import Carrier
from api.hello import TLS_FIRST_BYTE
from api.inbox import PeerLost
from api.intake import Direct, Events, body_of, received, split_head
from api.loan import EXTENSION as LOAN
from api.loan import Lender, Loan
from api.observed import Observed
from api.outlet import EXTENSION as LOAN_OUT
from api.outlet import LentBody, LentData, missing_bytes
from api.refusals import NO_TLS, SENTENCES, TWO_LENGTHS, refusal
from api.repeats import BASIS, FILES, FRESH, Again, Files, Fresh
from api.zerocopy import EXTENSION as ZERO_COPY
from api.zerocopy import FileBody, FileData, FileStream, Placeholder, sent

_CLOSE: Final = (b"connection", b"close")
_IS_QUESTION: Final = re.compile(rb"(?:GET|HEAD|POST) .*\r\n\r\n\Z", re.DOTALL)
_ANSWERED: Final = (h11.DONE, h11.MUST_CLOSE)


@dataclass(frozen=True)
class Linger(Event):
    """Say no more, but hear the client out for a while: it may still be sending what nobody wants."""


class Stream(FileStream):
    """A request and its response, whose application learns when nobody listens any more."""

    def __init__(self, *args: Any, connection: Carrier, lend: Lender, **kwargs: Any) -> None:
        extensions = {ZERO_COPY: {}, LOAN: lend} | ({} if connection.is_tls else {LOAN_OUT: {}})
        super().__init__(*args, extensions=extensions, **kwargs)
        self._connection = connection
        self.basis: Basis | None = None  # of its answer, if that may be given again
        self.files: Again | None = None
        self.fresh: Fresh | None = None

    async def app_send(self, message: Any) -> None:
        if message is not None and message["type"] == "http.response.start":
            self.basis, self.files, self.fresh = message.get(BASIS), message.get(FILES), message.get(FRESH)
        await super().app_send(message)
        # A short answer to a client that left just vanishes; only who has more to send needs to know.
        if self._connection.lost and message is not None and message.get("more_body"):
            raise PeerLost("The client went away.")


class ObservedStream(Observed, Stream):
    """The same, and observers are told; of an answer's body, what the system took of it."""

    async def _pass_on(self, event: StreamEvent) -> None:
        connection = self._connection
        before = connection.moved_bytes
        try:
            await super()._pass_on(event)
        finally:
            self.sent_bytes += connection.moved_bytes - before
        if isinstance(event, Body) and not connection.lost:
            self.sent_bytes += len(event.data)


class Http1(H11Protocol):
    """One HTTP/1.1 connection. It has no websockets: a request to become one is answered like any other."""

    connection: h11.Connection

    def __init__(self, connection: Carrier, *args: Any) -> None:
        super().__init__(*args)
        self._connection = connection
        self._events = Events(self.connection)
        self._is_chunked = self._is_head = False
        self._direct: Direct | None = None
        self._question = self._head = self._said = b""
        self._files: Again | None = None

    @property
    def is_held_up(self) -> bool:
        """Whether a request body is on its way, with which alone things go on."""
        return self.connection.their_state is h11.SEND_BODY

    async def handle(self, event: Event) -> None:
        if isinstance(event, RawData) and event.data:
            await self._take(event.data)
        else:
            await super().handle(event)

    async def _take(self, data: bytes) -> None:
        if self.connection.their_state is h11.IDLE:
            if data.startswith(TLS_FIRST_BYTE) and not self.connection.trailing_data[0]:
                # Every client that tries https first begins like this, and goes on with http once it sees an answer.
                await self._refuse(400, NO_TLS)
                return
            is_first = not self.connection.trailing_data[0]
            if is_first and await self._repeat(data):
                return
            head, data = split_head(data)
            # The whole request and nothing else, or it could be taken for another one.
            self._question = head if is_first and not data and _IS_QUESTION.match(head) else b""
            try:
                await super().handle(RawData(head))
            except H2ProtocolAssumedError as error:
                error.data += data
                raise
            if self.is_held_up:
                self._question = b""  # its body would be taken for the next request
            self._direct = direct = body_of(self.connection, is_chunked=self._is_chunked)
            is_refused = self.connection.our_state in _ANSWERED  # then what comes is heard out, and nobody's
            if direct is not None and direct.is_large(ahead=len(data)) and not is_refused:
                self._connection.pieces.lend()  # its application may want to read the rest by itself
        if data and self._direct is not None:
            data = await self._take_direct(self._direct, data)
        if data:
            await super().handle(RawData(data))

    async def _repeat(self, data: bytes) -> bool:
        """Answer a request that was answered before, if that answer still holds; tell whether it did."""
        found = None if self._is_last(1) else self._connection.repeats.find(data)
        if found is None:
            return False
        counts = self._connection.counts
        repeat = None if counts is None else counts.repeat(data, self._connection.moved_bytes)
        self.keep_alive_requests += 1
        sent.repeats += 1
        await self.send(Updated(idle=False))
        try:
            if found.files is None:
                await self.send(RawData(found.said))
            else:
                await self._repeat_files(found.said, found.files)
        finally:
            if repeat is not None:
                repeat.over(found.said, self._connection.moved_bytes)
        await self.send(Updated(idle=True))
        return True

    async def _repeat_files(self, head: bytes, files: Files) -> None:
        try:
            for place in files.pieces():
                await self.send(FileData(place.fd, place.offset, place.count, head))
                head = b""
                if self._connection.lost:
                    if missing := missing_bytes(place):
                        files.ends_early(place.fd, missing)  # then we left; the connection said why
                    return
        finally:
            files.close()

    async def _take_direct(self, direct: Direct, data: bytes) -> bytes:
        """Take body bytes past h11; return what it has to see."""
        body, rest = direct.take(data)
        received.direct_bytes += len(body)
        if rest:
            self._direct = None  # at once: what h11 is to see must not be overtaken by a loan
        elif body and direct.has_grown:
            self._connection.pieces.lend()  # as where the length is known
        if body and self.stream is not None:
            await self.stream.handle(Body(stream_id=STREAM_ID, data=body))
        if not rest:
            await self._handle_events()  # this may have been the last of it
        return rest

    async def _lend(self, taken: int) -> Loan | None:
        """Lend the connection for the rest of a large body, once all that came before was received."""
        direct, pieces = self._direct, self._connection.pieces
        if direct is None or self._connection.lost or not direct.is_large():
            return None
        await self._go_on()
        source = await self._connection.lend() if pieces.lend() and taken == direct.taken else None
        if source is None:
            return None  # what was read must be received first
        if not pieces.lend() or self._direct is not direct or taken != direct.taken:
            self._connection.take_back()
            return None
        stall_s = self._connection.settings.stall_s
        try:
            return Loan(self._connection.socket, direct.to_come, stall_s, partial(self._take_back, taken), source)
        except OSError:  # no descriptor is left
            self._connection.take_back()
            raise

    async def _take_back(self, before: int, loan: Loan) -> None:
        """Go on where a thread stopped to read, after so many bytes of the body."""
        self._connection.take_back()
        assert self._direct is not None, "nobody else took anything of it"
        if self._direct.was_lent(loan.left):
            await self._handle_events()  # h11 learns of the end before anybody answers
        received.direct_bytes += self._direct.taken - before
        received.lent_bytes += self._direct.taken - before
        if isinstance(self.stream, ObservedStream):
            self.stream.received_bytes += self._direct.taken - before
        self._connection.pieces.take_back(unread=loan.unread, is_stalled=loan.is_stalled)

    async def stream_send(self, event: StreamEvent) -> None:
        if isinstance(event, FileBody | LentBody):
            await self._send_past(event)
            return
        if isinstance(event, StreamClosed):
            if self._head:
                await self._say(b"")
            self._keep()
        elif isinstance(event, Body):
            sent.body_bytes += len(event.data)
        elif isinstance(event, Response) and event.status_code >= 200 and self._is_last():  # noqa: PLR2004
            event = replace(event, headers=[*(pair for pair in event.headers if pair != _CLOSE), _CLOSE])
        await super().stream_send(event)

    async def _send_h11_event(self, event: H11SendableEvent) -> None:
        """Send as upstream does, but an answer's head together with what follows it."""
        try:
            data = self.connection.send(event) or b""
        except h11.LocalProtocolError:
            if self.connection.their_state is not h11.ERROR:
                raise
            return
        if isinstance(event, h11.Response):
            self._head = data
        elif self._head or data:
            await self._say(data)

    async def _say(self, data: bytes) -> None:
        said, self._head = self._head + data, b""
        # What goes out in several pieces is not kept.
        self._said, self._question = said, b"" if self._said else self._question
        await self.send(RawData(said))

    def _keep(self) -> None:
        """Keep the answer that was given, if it may be given again."""
        question, said, files = self._question, self._said, self._files
        self._question, self._said, self._files = b"", b"", None
        states = self.connection.our_state, self.connection.their_state
        if not question or states != (h11.DONE, h11.DONE) or self.connection.trailing_data[0]:
            return
        if isinstance(self.stream, Stream) and self.stream.basis is not None:
            self._connection.repeats.keep(question, said, self.stream.basis, files, self.stream.fresh)

    def _is_last(self, more: int = 0) -> bool:
        """Tell whether the connection ends with the answer that is about to begin, or would after so many more."""
        spent = self.keep_alive_requests + more >= self._connection.settings.keep_alive_requests
        return self.is_held_up or spent or self.context.terminated.is_set()

    async def _send_past(self, event: FileBody | LentBody) -> None:
        """Have the connection send a part of a body that h11 counts and does not see."""
        before, self._head = self._head, b""
        if before:  # nothing was said yet
            self._said, self._files = before, self.stream.files if isinstance(self.stream, Stream) else None
        if self._files is None:
            self._question = b""
        placeholder: Any = Placeholder(event.count)
        for piece in self.connection.send_with_data_passthrough(h11.Data(data=placeholder)) or ():
            if piece is placeholder:
                if isinstance(event, FileBody):
                    await self.send(FileData(event.fd, event.offset, event.count, before))
                else:
                    await self.send(LentData(event.count, event.write, before))
                before = b""
            else:
                before, self._question = before + piece, b""  # a body in chunks
        if before:
            await self.send(RawData(before))

    async def _handle_events(self) -> None:
        while True:
            try:
                event = self._events.next()
            except h11.RemoteProtocolError as error:
                await self._refuse(error.error_status_hint)
                return
            if event is h11.PAUSED:
                await self.can_read.clear()
                await self.can_read.wait()
            elif isinstance(event, h11.Request):
                await self._begin(event)
            elif event is h11.NEED_DATA or isinstance(event, h11.ConnectionClosed) or self.stream is None:
                return
            elif isinstance(event, h11.Data):
                await self.stream.handle(Body(stream_id=STREAM_ID, data=event.data))
            elif isinstance(event, h11.EndOfMessage):
                await self.stream.handle(EndBody(stream_id=STREAM_ID))

    async def _begin(self, request: h11.Request) -> None:
        self._is_head = request.method == b"HEAD"
        head_bytes = len(request.method) + len(request.target)
        head_bytes += sum(len(name) + len(value) + 4 for name, value in request.headers)
        if head_bytes > self._connection.settings.max_header_bytes:
            await self._refuse(431, request=request)
            return
        self._is_chunked = b"transfer-encoding" in (names := {name for name, _ in request.headers})
        if self._is_chunked and b"content-length" in names:
            # A proxy that goes by the other one sees other requests.
            await self._refuse(400, TWO_LENGTHS, request)
            return
        await self.send(Updated(idle=False))
        await self._check_protocol(request)
        await self._create_stream(request)

    async def _check_protocol(self, request: h11.Request) -> None:
        """Go over to HTTP/2 where a connection begins with it.

        Never by `Upgrade: h2c`, which RFC 9113 gave up: through a proxy that passes it on, everything after it would be
        requests that the proxy sees nothing of.
        """
        is_preface = (request.method, request.target, request.http_version) == (b"PRI", b"*", b"2.0")
        if is_preface and not (self.keep_alive_requests or self._events.has_skipped):
            raise H2ProtocolAssumedError(b"PRI * HTTP/2.0\r\n\r\n" + self.connection.trailing_data[0])

    async def _create_stream(self, request: h11.Request) -> None:
        observers = self._connection.observers
        self.stream = (Stream if observers is None else partial(ObservedStream, observers=observers))(
            self.app,
            self.config,
            self.context,
            self.task_group,
            self.ssl,
            self.client,
            self.server,
            self.stream_send,
            STREAM_ID,
            connection=self._connection,
            lend=self._lend,
            invite=self._invite,
        )
        self.keep_alive_requests += 1
        await self.stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=list(request.headers),
                http_version=request.http_version.decode(),
                method=request.method.decode("ascii"),  # `head` is no HEAD: h11 would miss the body we left out
                raw_path=request.target,
                state=self.connection_state,
            )
        )

    async def _invite(self) -> None:
        """Let a body come that its application waits for."""
        self._connection.pieces.take_back_soon()
        await self._go_on()

    async def _go_on(self) -> None:
        """Tell a client that waits for it to send its body."""
        if self.connection.they_are_waiting_for_100_continue:
            headers = self.config.response_headers("h11")
            await self._send_h11_event(h11.InformationalResponse(status_code=100, headers=headers))

    async def _refuse(self, status: int, sentence: str = "", request: h11.Request | None = None) -> None:
        """Answer what is no proper request, and tell an application that was reading it."""
        stream = self.stream  # to answer can show that the client is gone, and then there is none any more
        if self.connection.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            is_head = self._is_head and self.connection.our_state is h11.SEND_RESPONSE  # not that of a request before
            headers, body = refusal(sentence or SENTENCES.get(status, SENTENCES[400]))
            headers += [_CLOSE, *self.config.response_headers("h11")]
            await self._send_h11_event(h11.Response(status_code=status, headers=headers))
            if not is_head:
                await self._send_h11_event(h11.Data(data=body))
            await self._send_h11_event(h11.EndOfMessage())
            self._tell(stream, status, 0 if is_head or self._connection.lost else len(body), request)
        await self._close_stream()
        await self.send(Linger())

    def _tell(self, stream: Any, status: int, sent_bytes: int, request: h11.Request | None) -> None:
        """Tell observers of a refusal, with what is known of its request."""
        observers = self._connection.observers
        if isinstance(stream, ObservedStream):
            if not self._connection.lost:  # else it tells of itself, once its application has ended
                stream.refused(status, sent_bytes)
        elif observers is not None:
            scope: dict[str, Any] = {"client": self.client, "headers": []}
            if request is not None:
                path, _, query = request.target.partition(b"?")
                scope |= {"method": request.method.decode("ascii"), "raw_path": path, "query_string": query}
                scope |= {"http_version": request.http_version.decode(), "headers": list(request.headers)}
            observers.refused(scope, status, sent_bytes)

    async def _maybe_recycle(self) -> None:
        if self.is_held_up and self.connection.our_state in _ANSWERED:
            await self._close_stream()
            await self.can_read.set()
            await self.send(Linger())
        else:
            await super()._maybe_recycle()
