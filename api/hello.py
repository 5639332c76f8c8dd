"""The first bytes of a connection to a TLS port, looked at before anybody believes that TLS is spoken.

Whoever speaks plain HTTP to such a port is told so in words, where OpenSSL would just hang up. (The other way
round, a TLS hello on a plain port is a request that makes no sense: `api/http1.py` refuses it.)
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
from contextlib import suppress
from typing import Final

from api.config import HttpSettings
from api.observed import Observers

TLS_FIRST_BYTE: Final = b"\x16"
_TEXT: Final = "This port speaks https, and this was no TLS: say https:// instead of http://."
_TO_V2: Final = re.compile(rb"[A-Z]+ /v2[/ ?]")  # of a request; its clients show no body but one of this shape
_SEEN_BYTES: Final = 32


def _refusal(kind: str, text: str) -> bytes:
    """Make an answer; whatever was spoken, it may have been HTTP/1.0."""
    head = f"HTTP/1.0 400 Bad Request\r\nContent-Type: {kind}\r\nContent-Length: {len(text)}\r\nConnection: close"
    return f"{head}\r\n\r\n{text}".encode()


_REFUSAL: Final = _refusal("text/plain; charset=utf-8", f"{_TEXT}\n")
_V2_REFUSAL: Final = _refusal("application/json", json.dumps({"errors": [{"code": "UNSUPPORTED", "message": _TEXT}]}))


async def speaks_tls(sock: socket.socket, settings: HttpSettings, observers: Observers | None = None) -> bool:
    """Tell whether TLS comes, leaving it all to be read; False also if nothing comes in time, or the end."""
    loop = asyncio.get_running_loop()
    came: asyncio.Future[None] = loop.create_future()
    loop.add_reader(sock, _settle, came)
    try:
        async with asyncio.timeout(settings.keep_alive_s):
            await came
        begun = sock.recv(_SEEN_BYTES, socket.MSG_PEEK)
    except OSError:
        return False
    finally:
        loop.remove_reader(sock)
    if begun and not begun.startswith(TLS_FIRST_BYTE):
        await _refuse(sock, _V2_REFUSAL if _TO_V2.match(begun) else _REFUSAL, settings, observers)
    return begun.startswith(TLS_FIRST_BYTE)


async def _refuse(sock: socket.socket, answer: bytes, settings: HttpSettings, observers: Observers | None) -> None:
    """Answer, and hear the client out for a while, so that it sees the answer and not a reset."""
    loop, left = asyncio.get_running_loop(), settings.linger_bytes
    with suppress(OSError):
        async with asyncio.timeout(settings.linger_s):
            await loop.sock_sendall(sock, answer)
            if observers is not None:
                body = answer.partition(b"\r\n\r\n")[2]
                observers.refused({"client": sock.getpeername(), "headers": []}, 400, len(body))
            sock.shutdown(socket.SHUT_WR)
            while left > 0 and (data := await loop.sock_recv(sock, 65_536)):
                left -= len(data)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
