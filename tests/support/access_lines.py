"""Lines of an access log, read as strictly as a tool for such logs reads them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_LINE = re.compile(
    r"(?P<host>\S+) - (?P<user>\S+) \[(?P<time>\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4})\] "
    r'"(?P<request>[^"]*)" (?P<status>\d{3}) (?P<bytes>\d+) '
    r'"(?P<referer>[^"]*)" "(?P<agent>[^"]*)" (?P<seconds>\d+\.\d{3})'
)


@dataclass(frozen=True, slots=True)
class Line:
    """What one line says."""

    host: str
    user: str
    time: str
    request: str
    status: int
    bytes: int
    referer: str
    agent: str
    seconds: float

    @property
    def short(self) -> tuple[str, str, int]:
        """Who asked what, and how that was answered."""
        return self.user, self.request.removesuffix(" HTTP/1.1"), self.status


def read(text: str) -> list[Line]:
    """Read a whole log; fails at a line that is none."""
    assert not text or text.endswith("\n"), "half a line"
    found = []
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        assert match is not None, line
        said = match.groupdict()
        size, seconds, status = int(said.pop("bytes")), float(said.pop("seconds")), int(said.pop("status"))
        found.append(Line(bytes=size, seconds=seconds, status=status, **said))
    return found


def lines(path: Path) -> list[Line]:
    """Read the log that a file is."""
    return read(path.read_text(encoding="ascii"))
