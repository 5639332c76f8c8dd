"""Which tests cannot run here for want of a program, and that nobody overlooks it.

A test says what it runs by `pytest.mark.needs("skopeo")`. Where CI is set everything must be there, so nothing is left
out and a missing program is a failure. Elsewhere such tests are deselected, and the summary says which and what to do.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import engines
from tests.support.peers import GO_PROGRAMS, PACKAGES, ROOT, missing

CLIENT_TESTS = ROOT / "tests" / "clients"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*programs): runs these programs; left out where they are missing")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.environ.get("CI"):
        return
    left_out = [item for item in items if missing(_needs(item))]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Workers collect, but only the process that reports is seen: it looks for itself."""
    asked = [(config.invocation_params.dir / argument.partition("::")[0]).resolve() for argument in config.args]
    if os.environ.get("CI") or not any(_touches(path) for path in asked):
        return
    for program, how in missing([*PACKAGES, *GO_PROGRAMS, *engines.PROGRAMS]).items():
        terminalreporter.write_line(f"NOT RUN: the tests of {program}. To run them: {how}", yellow=True)


def _needs(item: pytest.Item) -> Iterator[str]:
    for mark in item.iter_markers("needs"):
        yield from mark.args


def _touches(path: Path) -> bool:
    return path == CLIENT_TESTS or path in CLIENT_TESTS.parents or CLIENT_TESTS in path.parents
