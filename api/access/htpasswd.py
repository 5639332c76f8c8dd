"""A password file as Apache's `htpasswd -B` writes it: one `NAME:bcrypt hash` a line. Blocking.

Read anew when it changed. One that cannot be read any more, or holds a line that cannot be understood, leaves what
was read before in force, and the log says so once.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final, final

from api.access.errors import BadPasswordFile, InvalidUser
from api.access.users import check_name

log = logging.getLogger(__name__)

LEAST_COST: Final = 4  # bcrypt's own
MOST_COST: Final = 14  # about a second of a core; one more would let any stranger take two
_USUAL_COST = 10
_HASH = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}", re.ASCII)
_Seen = tuple[int, int, int]


@final
class PasswordFile:
    """Accounts by the lines of a file.

    Raises:
        BadPasswordFile: it cannot be read or understood; only at first.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._seen: _Seen | None = _seen(path)
        self._hashes = read(path)

    def hashes(self) -> Mapping[str, str]:
        """Return the hash of each account, as the file is now."""
        with self._lock:
            try:
                seen: _Seen | None = _seen(self._path)
            except BadPasswordFile:
                seen = None
            if seen != self._seen:
                self._seen = seen
                self._reload()
            return self._hashes

    def cost(self) -> int:
        """Return the greatest cost of any line: what to compare with an account that there is not has to cost."""
        return max((int(kept.split("$")[2]) for kept in self.hashes().values()), default=_USUAL_COST)

    def _reload(self) -> None:
        try:
            self._hashes = read(self._path)
        except BadPasswordFile as error:
            log.error("%s; the accounts read before stay in force", error)  # noqa: TRY400 - the sentence says it all


def read(path: Path) -> dict[str, str]:
    """Read a password file.

    Raises:
        BadPasswordFile: it cannot be read or understood.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise _unreadable(path, error) from error
    except UnicodeError as error:
        raise BadPasswordFile(f"cannot read the password file {path}: {error}") from error
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.startswith("#"):
            name, kept = _entry(f"{path}:{number}", line)
            if name in found:
                raise BadPasswordFile(f"{path}:{number}: {name} is there twice")
            found[name] = kept
    return found


def _entry(place: str, line: str) -> tuple[str, str]:
    name, _, kept = line.strip().partition(":")
    try:
        check_name(name)
    except InvalidUser as error:
        raise BadPasswordFile(f"{place}: {error}") from error
    match = _HASH.fullmatch(kept)
    if match is None:
        raise BadPasswordFile(f"{place}: no bcrypt hash follows the name; write the line with `htpasswd -B`")
    if not LEAST_COST <= int(match[1]) <= MOST_COST:
        raise BadPasswordFile(f"{place}: a bcrypt cost of {match[1]} is not between {LEAST_COST} and {MOST_COST}")
    return name, kept


def _seen(path: Path) -> _Seen:
    """Return what tells one state of the file from another."""
    try:
        found = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    return found.st_mtime_ns, found.st_size, found.st_ino


def _unreadable(path: Path, error: OSError) -> BadPasswordFile:
    hint = "; `htpasswd -c -B FILE NAME` makes one" if isinstance(error, FileNotFoundError) else ""
    return BadPasswordFile(f"cannot read the password file {path}: {error.strerror}{hint}")
