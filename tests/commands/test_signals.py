"""A command that is told to end does so, all of it, and says by its exit code that it is not done."""

from __future__ import annotations

import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import psutil
import pytest

from tests.support.engine import noise, opened, push
from tests.support.processes import start_python

WITHIN_S = 60
APART = """
import os, signal
from tools import fsck

def work():
    print(os.getpid(), flush=True)
    signal.pause()

fsck._apart(work)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_check_ends_with_whoever_began_it(number: signal.Signals) -> None:
    """It reads in a process of its own, which would go on reading for hours."""
    with start_python(APART) as process:
        assert process.stdout is not None
        child = psutil.Process(int(process.stdout.readline()))
        process.send_signal(number)
        assert process.wait(WITHIN_S) == -number
        child.wait(WITHIN_S)


# What is planted sends the signal, so that it comes at a known moment: within the work, or while modules are loaded.
AT_WORK = """
import os, signal, sys
import tools.restore
from cas import Store
from tools.entry import main

def interrupted(*_, **__):
    os.kill(os.getpid(), signal.SIGINT)
    raise RuntimeError("it went on")

Store.open = tools.restore.restore_store = interrupted
main()
"""
EARLY = """
import os, signal, sys

class Interrupted:
    def find_spec(self, name, *_):
        if name == "tools.exits":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupted())
from tools.entry import main
main()
"""
COMMANDS = [
    ["restore", "SRC", "--root", "NEW"],
    ["import", "oci", "LAYOUT", "--repo", "a/b", "--root", "NEW"],
    ["export", "oci", "a/b", "NEW", "--root", "SRC"],
    ["backup", "NEW", "--root", "SRC"],
    ["stats", "--root", "SRC"],
    ["repo", "list", "--root", "SRC"],
    ["gc", "--root", "SRC"],
]


def run(script: str, *arguments: str, before: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", before + script, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_an_interrupted_command_says_so_and_is_not_done(command: list[str], tmp_path: Path) -> None:
    """By the signal itself, which a shell calls 130; 1 would say that it is done, and that something wants a look."""
    with opened(tmp_path / "SRC") as store:
        push(store, "a", noise(1000))
    (tmp_path / "LAYOUT").mkdir()
    (tmp_path / "LAYOUT" / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (tmp_path / "LAYOUT" / "index.json").write_text('{"schemaVersion": 2, "manifests": []}')
    places = {name: str(tmp_path / name) for name in ("SRC", "NEW", "LAYOUT")}
    ended = run(AT_WORK, *(places.get(each, each) for each in command))
    assert (ended.returncode, ended.stdout) == (-signal.SIGINT, "")
    assert ended.stderr == "cas: interrupted before it was done\n"


def test_a_command_interrupted_while_it_is_loaded_says_nothing() -> None:
    """No traceback of whatever was being imported."""
    ended = run(EARLY, "--version")
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGINT, "", "")


def test_who_is_started_with_interrupts_ignored_goes_on(tmp_path: Path) -> None:
    """As in the background of a script, or under nohup."""
    ignored = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    assert run(EARLY, "--version", before=ignored).stdout.startswith("cas ")
    ended = run(AT_WORK, "stats", "--root", str(tmp_path), before=ignored)
    assert "it went on" in ended.stderr


def test_the_installed_command_begins_there() -> None:
    """Before anything that takes long to load."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["scripts"] == {"cas": "tools.entry:main"}
