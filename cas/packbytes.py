"""Bytes of a pack file for whoever looks for its records: read, never mapped.

Layer: L2. Where a disk refuses to read, a map ends the process by a signal, and nobody learns which file that was.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, Self, final

from cas.disk import refusals
from cas.errors import Unreadable
from cas.files import open_file

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

_WINDOW_BYTES: Final = 1 << 20


@final
class PackBytes:
    """A file as long as it was when it was opened. What was cut off since is missing from what is read."""

    def __init__(self, path: Path) -> None:
        """Open a file.

        Raises:
            FileNotFoundError: there is none.
            Unreadable: the system refused.
        """
        self._verb = f"read {path.name}"
        with refusals(self._verb, Unreadable):
            self._fd = open_file(path)
        self._size = os.fstat(self._fd).st_size
        self._window, self._at = b"", 0  # what was searched last, and where it begins

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        os.close(self._fd)

    def __len__(self) -> int:
        """Return the file's length in bytes."""
        return self._size

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes `[start, stop)`, as far as the file goes.

        Raises:
            Unreadable: the disk refused some of them.
        """
        parts: list[bytes] = []
        with refusals(self._verb, Unreadable):
            while start < stop and (some := os.pread(self._fd, stop - start, start)):
                parts.append(some)
                start += len(some)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def find(self, wanted: bytes, start: int) -> int:
        """Return where some bytes come first, at `start` or behind it; -1 if they do not.

        Raises:
            Unreadable: see `read`.
        """
        while start + len(wanted) <= self._size:
            end = self._at + len(self._window)
            if not self._at <= start <= end - len(wanted):
                self._window, self._at = self.read(start, start + _WINDOW_BYTES), start
                end = start + len(self._window)
            found = self._window.find(wanted, start - self._at)
            if found >= 0:
                return self._at + found
            if end - self._at < len(wanted):
                break  # it was cut off meanwhile
            start = end - len(wanted) + 1
        return -1
