"""A command begins soon, and without getting in the way of those that serve."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support.serving import run_cas
from tools.main import COMMANDS

AFTER = "import json, sys; {work}; print(json.dumps(sorted(sys.modules)))"
# Says which commands are loaded by a thread that gives way, and how the main thread runs once they are.
PLANTED = """
import os
import tools.entry, tools.main

def nice():
    return os.getpriority(os.PRIO_PROCESS, 0)

before = nice()
tools.entry._load = lambda name: print(name, nice() == max(before, 10))
tools.main.main = lambda: print("main", nice() != before)
tools.entry.main()
"""
HAS_OTHERS_GO_FIRST = """
import os
from tools.priority import giving_way

def nice():
    return os.getpriority(os.PRIO_PROCESS, 0)

before = nice()
assert giving_way(nice) == max(before, 10)
assert nice() == before
"""


def run(script: str, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def loaded(work: str) -> set[str]:
    return set(json.loads(run(AFTER.format(work=work))))


@pytest.mark.parametrize("name", ["stats", "gc", "fsck", "serve"])
def test_a_command_loads_no_other_one(name: str) -> None:
    """Most of the time that a short one takes is loading."""
    there = loaded(f"from tools.main import load; load({name!r})")
    module = COMMANDS[name].partition(":")[0]
    assert module in there
    assert not there & {each.partition(":")[0] for each in COMMANDS.values()} - {module}
    assert not there & {"hypercorn", "httpx2", "api.porting.oci"}


def test_a_worker_loads_neither_a_client_of_indexes_nor_what_monitors_read() -> None:
    """Few have either, and each is a tenth of what a worker loads."""
    assert not {"httpx2", "prometheus_client"} & loaded("import tools.worker")


def test_what_asks_for_a_command_that_is_not_there_is_told_so() -> None:
    """Though none is loaded before it is called."""
    ended = run_cas("collect")
    assert ended.returncode == 2
    assert "No such command 'collect'" in ended.stderr


@pytest.mark.parametrize("name", ["backup", "fsck", "gc"])
def test_maintenance_gives_way_while_it_is_loaded(name: str) -> None:
    """And goes on as anybody to where it opens the store, whose locks servers wait for."""
    assert run(PLANTED, name, "--root", "somewhere") == f"{name} True\nmain False\n"


@pytest.mark.parametrize("arguments", [["stats"], ["gc", "--help"], ["serve"], []])
def test_what_people_or_clients_wait_for_does_not(arguments: list[str]) -> None:
    """On a machine that is busy, it would take ten times as long."""
    assert run(PLANTED, *arguments) == "main False\n"


def test_what_gives_way_for_a_while_goes_on_as_before() -> None:
    """A thread of its own does, since who gave way can take that back only with privileges."""
    run(HAS_OTHERS_GO_FIRST)
