"""A clock that jumps for every process of a test: `time.time`, and what a file that all of them share adds to it."""

from __future__ import annotations

import mmap
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path

_FORMAT = struct.Struct("<d")
_VARIABLE = "JUMPING_CLOCK"
# Python runs a module of this name, wherever its path leads to one, before anything else.
_SITE = f"""
import os
from tests.support import clock
clock.shift(os.environ["{_VARIABLE}"])
"""
_PROJECT = Path(__file__).resolve().parents[2]


class JumpingClock:
    """How far the clock of some processes is off; 0 until told otherwise."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder, self.path = folder, folder / "offset"
        (folder / "sitecustomize.py").write_text(_SITE, encoding="utf-8")
        self.set(0.0)

    def set(self, offset_s: float) -> None:
        """Put the clocks of all of them on or back, at once."""
        with self.path.open("r+b" if self.path.exists() else "wb") as file:
            file.write(_FORMAT.pack(offset_s))

    def environment(self) -> dict[str, str]:
        """What makes a new Python live by this clock."""
        paths = [str(self._folder), str(_PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {"PYTHONPATH": os.pathsep.join(paths), _VARIABLE: str(self.path)}


def shift(path: str | Path) -> Callable[[], float]:
    """Let this process live by a jumping clock from here on; return it."""
    with Path(path).open("rb") as file:
        offset = mmap.mmap(file.fileno(), _FORMAT.size, access=mmap.ACCESS_READ)
    real = time.time

    def shifted() -> float:
        told: float = _FORMAT.unpack(offset[:])[0]
        return real() + told

    time.time = shifted
    return shifted
