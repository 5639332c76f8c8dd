"""The access log: one line a request, in the format that every tool for such logs reads.

Knows how a line is written and where to: the combined log format, with the seconds behind it. Nothing that a client
sends can end a line or begin a field, and nothing secret gets into one: of a query only those values are shown that
are known to be harmless, of the headers only two. (The id of an upload is in paths and shown: whoever has it still
needs the right to push there.) Refuses to know when a request is over, which is for whoever serves it to say.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from io import TextIOWrapper
from typing import Any, Final, cast, final

from starlette.types import Scope

from api.config import HttpSettings
from api.origin import client

log = logging.getLogger(__name__)

LOG_MODE: Final = 0o640  # addresses, accounts and names of private repositories are in it
CLIENT_GONE: Final = 499  # as nginx has it: the client left before there was an answer
WRONG: Final = "!"  # before a name for which a wrong password was shown; no account's name begins like that
_USER: Final = "user"  # in the request's `state`, which copies of its scope share
_NOTHING: Final = "-"
_MOST_BYTES: Final = 2048  # of a field; what is longer is cut, so that no client fills the disk by the line
_UNSAFE: Final = re.compile(r"[^ !#-\[\]-~]")  # all but printable ASCII, and what quotes and escapes
_LOGIN: Final = re.compile(rb"^([A-Za-z]+://)[^/]*@")  # what somebody put before the host
_HIDDEN: Final = b"***"
_HARMLESS: Final = frozenset(
    b"account artifactType client_id digest digest-algorithm from last mount n offline_token page q scope service "
    b"tag".split()
)


def note_user(scope: Scope, text: str) -> None:
    """Note who a request's line is to name."""
    scope.setdefault("state", {})[_USER] = text


@final
class AccessLog:
    """Writes lines, one system call each, so that those of several processes do not mix.

    A log that cannot be written is told of once, and keeps no request from its answer.

    Args:
        target: a file's path, opened at the first line, and again whenever another file is there or none; or a
            descriptor.
        settings: which address counts as the client's.
        clock: seconds since 1970.
    """

    def __init__(self, target: str | int, settings: HttpSettings, clock: Callable[[], float]) -> None:
        self._handler = _file(target) if isinstance(target, str) else _Output(_writer(target))
        self._settings, self._clock = settings, clock
        self._second, self._time = -1, ""
        self._is_failing = False

    def tell(self, scope: Mapping[str, Any], status: int | None, sent_bytes: int, took_s: float) -> None:
        """Write the line of a request that is over.

        Args:
            scope: of ASGI; of what was no request only `client` and `headers`.
            status: None if it was not answered.
            sent_bytes: of the answer's body, as many as the system or the peer's window took.
            took_s: from its head to the end of its answer.
        """
        headers: dict[bytes, bytes] = dict(reversed(scope["headers"]))  # of several lines the first
        where = _word(client(dict(scope), self._settings).encode())
        who = _word(str((scope.get("state") or {}).get(_USER, "")).encode())
        said = [_escaped(headers.get(name, b"")) for name in (b"referer", b"user-agent")]
        self._write(
            f'{where} - {who} [{self._now()}] "{_request(scope)}" '
            f'{status or CLIENT_GONE} {sent_bytes} "{said[0]}" "{said[1]}" {took_s:.3f}'
        )

    def close(self) -> None:
        """Let go of the file, and of what it would not take."""
        with suppress(OSError):
            self._handler.close()

    def _now(self) -> str:
        second = int(self._clock())
        if second != self._second:
            self._second, self._time = second, time.strftime("%d/%b/%Y:%H:%M:%S %z", time.localtime(second))
        return self._time

    def _write(self, line: str) -> None:
        try:
            self._handler.handle(logging.makeLogRecord({"msg": line}))
        except OSError as error:
            if not self._is_failing:
                log.error("The access log cannot be written, and lines are lost: %s", error)  # noqa: TRY400
            self._is_failing = True
        else:
            self._is_failing = False


def _request(scope: Mapping[str, Any]) -> str:
    if "method" not in scope:
        return _NOTHING
    path, query, version = scope["raw_path"], scope["query_string"], scope["http_version"]
    target = _LOGIN.sub(rb"\1", path) + (b"?" + b"&".join(map(_shown, query.split(b"&"))) if query else b"")
    return f"{_word(scope['method'].encode())} {_word(target)} HTTP/{'2.0' if version == '2' else version}"


def _shown(parameter: bytes) -> bytes:
    """Leave of a query's parameter what may be seen."""
    name, equals, _ = parameter.partition(b"=")
    if name in _HARMLESS:
        return parameter
    return name + equals + _HIDDEN if equals else _HIDDEN


def _word(raw: bytes) -> str:
    return _escaped(raw).replace(" ", r"\x20")


def _escaped(raw: bytes) -> str:
    text = raw[:_MOST_BYTES].decode("latin-1")
    return _UNSAFE.sub(lambda found: f"\\x{ord(found[0]):02x}", text) or _NOTHING


class _Raising(logging.Handler):
    """Says what went wrong to whoever logs, where the library would print a traceback."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802 - the library's
        raise  # noqa: PLE0704 - called while the error is handled


class _File(_Raising, logging.handlers.WatchedFileHandler):
    """A file that may be moved away at any time."""

    def _open(self) -> TextIOWrapper:
        return cast("TextIOWrapper", open(self.baseFilename, self.mode, encoding=self.encoding, opener=_opener))


def _file(path: str) -> _File:
    return _File(path, encoding="ascii", delay=True)  # a worker that begins serves, though there is no log


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, LOG_MODE)


class _Output(_Raising, logging.StreamHandler[Any]):
    """What somebody else opened."""


def _writer(fd: int) -> Any:
    return open(fd, "w", encoding="ascii", closefd=False)
