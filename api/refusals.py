"""What the listener says by itself, when a request cannot even begin or its application said nothing.

Knows sentences and the shape all our errors have; no protocol.
"""

from __future__ import annotations

import json
from typing import Final

from hypercorn.protocol.events import Body, EndBody, Response
from hypercorn.protocol.http_stream import ASGIHTTPState, HTTPStream
from hypercorn.utils import suppress_body

from api.errors import UNEXPECTED

TWO_LENGTHS: Final = "A request has either Content-Length or Transfer-Encoding, never both."
NO_TLS: Final = "This port speaks plain http, and this was a TLS hello: say http:// instead of https://."
# What h11 finds wrong with a request, or Hypercorn with an application, in words for whoever reads the answer.
SENTENCES: Final = {
    400: "This is no proper HTTP/1.1 request: check its first line, its header fields and the framing of its body.",
    431: "The first line and the header fields of the request are too large together: send fewer or shorter ones.",
    500: UNEXPECTED.message,
    501: "Of transfer encodings only `chunked` is understood: send the body that way, or with a Content-Length.",
}


def refusal(sentence: str) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Return headers and body of an answer that says what is wrong."""
    body = json.dumps({"error": sentence}).encode()
    return [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())], body


class AnsweredStream(HTTPStream):
    """Hypercorn's request and response, whose client is told something even if the application is silent."""

    async def _send_error_response(self, status_code: int) -> None:
        headers, body = refusal(SENTENCES[status_code])
        await self.send(Response(stream_id=self.stream_id, headers=headers, status_code=status_code))
        if not suppress_body(self.scope["method"], status_code):
            await self.send(Body(stream_id=self.stream_id, data=body))
        await self.send(EndBody(stream_id=self.stream_id))
        self.state = ASGIHTTPState.CLOSED
