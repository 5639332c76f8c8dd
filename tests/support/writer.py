"""A writer to be killed: `python -m tests.support.writer ROOT SEED COUNT [KILL_AT]`.

Pushes and deletes what `script` says, telling on stdout before (`try`) and after (`done`) each step. With KILL_AT it
kills itself, as `kill -9` would, at its n-th disk operation; with KILL_AT `journal` after a journal record was synced,
before the index committed it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from cas import Name, Store
from tests.support.engine import KIB, SMALL, noise, prose, push
from tests.support.steps import SteppingDisk


def script(seed: int, count: int) -> Iterator[tuple[str, bytes | None]]:
    """`(name, content)` of each step, content None for a deletion. Contents overlap within and between seeds."""
    for n in range(count):
        if n % 4 == 3:
            yield f"{seed}-{n - 2}", None
        elif n % 4 == 0:
            yield f"{seed}-{n}", noise(150 * KIB, n) + noise(60 * KIB, seed * 1000 + n)
        elif n % 4 == 1:
            yield f"{seed}-{n}", prose(300 * KIB + n, n)
        else:
            yield f"{seed}-{n}", b"small %d %d" % (seed, n)


class MortalDisk(SteppingDisk):
    """The real disk, until its process dies of it."""

    def __init__(self, kill_at: str) -> None:
        super().__init__()
        self._left = int(kill_at) if kill_at.isdecimal() else -1
        self.after_sync = False

    def _step(self) -> None:
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1

    def sync(self, fd: int) -> None:
        super().sync(fd)
        if self.after_sync:
            os.kill(os.getpid(), signal.SIGKILL)

    def truncate(self, fd: int, size: int) -> None:
        self._step()
        super().truncate(fd, size)


def tell(*words: str) -> None:
    """Say a line that survives what comes next."""
    sys.stdout.write(" ".join(words) + "\n")
    sys.stdout.flush()


def main(root: str, seed: str, count: str, kill_at: str = "never") -> None:
    """Write until done or dead."""
    disk = MortalDisk(kill_at)
    store = Store.open(Path(root), SMALL, create=True, disk=disk)
    for path, content in script(int(seed), int(count)):
        tell("try", path)
        if content is None:
            name = Name("thing", path)
            store.change(lambda names, name=name: names.delete(name))  # type: ignore[misc]
        else:
            push(store, path, content)
        tell("done", path)
    if kill_at == "journal":
        disk.after_sync = True
        tell("try", "never")
        push(store, "never", b"never acknowledged")
    store.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
