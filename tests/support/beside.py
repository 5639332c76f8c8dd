"""Commands run beside a server, to their end or to their death: real processes, forked from one that has it all loaded.

A fresh interpreter would spend a second on imports, most of the time that a command of the campaign takes.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import sys
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from cas import Store
from tests.support import clock
from tools.main import COMMANDS, load, main

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__])
_WITHIN_S = 90.0
for _name in COMMANDS:
    load(_name)


class Beside:
    """One command on its way."""

    def __init__(self, log: Path, clock_file: Path, *arguments: str | Path, stdin: str = "") -> None:
        self.arguments, self._log = tuple(map(str, arguments)), log
        self._process: ForkServerProcess = _CONTEXT.Process(
            target=_run, args=(self.arguments, str(log), str(clock_file), stdin), daemon=True
        )
        self._process.start()

    def wait(self, timeout_s: float) -> bool:
        """Wait for its end; say whether it came."""
        self._process.join(timeout_s)
        return self._process.exitcode is not None

    def kill(self) -> None:
        """`kill -9`, wherever it is."""
        self._process.kill()
        self._process.join()

    def end(self, *codes: int) -> int:
        """Wait until it ends, with one of these exit codes."""
        if not self.wait(_WITHIN_S):
            self.kill()
            raise AssertionError(f"cas {' '.join(self.arguments)} does not end\n{self.said()}")
        code = self._process.exitcode
        assert code in codes, f"cas {' '.join(self.arguments)} ended with {code}\n{self.said()}"
        assert code is not None
        return code

    def said(self) -> str:
        """What it wrote."""
        return self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""


def _run(arguments: tuple[str, ...], log: str, clock_file: str, stdin: str) -> None:
    with Path(log).open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdin = io.TextIOWrapper(io.BytesIO(stdin.encode()))
    Store.open.__func__.__kwdefaults__["clock"] = clock.shift(clock_file)  # type: ignore[attr-defined]
    try:
        main(arguments, prog_name="cas")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
