"""The first byte of a connection to a TLS port, looked at before anybody believes that TLS is spoken.

Whoever speaks plain HTTP to such a port is told so in words, where OpenSSL would just hang up. (The other way
round, a TLS hello on a plain port is a request that makes no sense: `api/http1.py` refuses it.)
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import Final

from api.access_log import AccessLog
from api.config import HttpSettings

TLS_FIRST_BYTE: Final = b"\x16"
_TEXT: Final = b"This port speaks https, and this was no TLS: say https:// instead of http://.\n"
# Whatever was spoken, it may have been HTTP/1.0.
_REFUSAL: Final = (
    b"HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(_TEXT), _TEXT)
)


async def speaks_tls(sock: socket.socket, settings: HttpSettings, access: AccessLog | None = None) -> bool:
    """Tell whether TLS comes, leaving it all to be read; False also if nothing comes in time, or the end."""
    loop = asyncio.get_running_loop()
    came: asyncio.Future[None] = loop.create_future()
    loop.add_reader(sock, _settle, came)
    try:
        async with asyncio.timeout(settings.keep_alive_s):
            await came
        first = sock.recv(1, socket.MSG_PEEK)
    except OSError:
        return False
    finally:
        loop.remove_reader(sock)
    if first and first != TLS_FIRST_BYTE:
        await _refuse(sock, settings, access)
    return first == TLS_FIRST_BYTE


async def _refuse(sock: socket.socket, settings: HttpSettings, access: AccessLog | None) -> None:
    """Answer, and hear the client out for a while, so that it sees the answer and not a reset."""
    loop, left = asyncio.get_running_loop(), settings.linger_bytes
    with suppress(OSError):
        async with asyncio.timeout(settings.linger_s):
            await loop.sock_sendall(sock, _REFUSAL)
            if access is not None:
                access.tell({"client": sock.getpeername(), "headers": []}, 400, len(_TEXT), 0.0)
            sock.shutdown(socket.SHUT_WR)
            while left > 0 and (data := await loop.sock_recv(sock, 65_536)):
                left -= len(data)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
