"""Whoever has a store open for long lets go of packs that others removed: only then is their space free."""

# ruff: noqa: SLF001 - what a worker knows of its store is taken from inside

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import pytest

from api.content.settings import KeepingSettings
from cas import Name, Store
from tests.commands.test_gc import order_for
from tests.support.engine import noise, packs_of, push, read
from tests.support.processes import start_python
from tests.support.serving import run_cas

_WITHIN_S = 60.0
_FSCK = (
    "from sys import argv; from cas import Store; from tests.commands.test_ticking import hold; "
    "from tools.main import main; Store.check = lambda store, *_, **__: iter(hold(store)); "
    "main(['fsck', '--data', '--root', argv[1]])"
)
_APART = (  # the scrub
    "from tests.commands.test_ticking import hold; from tools import apart; "
    "apart.main(lambda store, _: len(hold(store)))"
)


def removed() -> list[str]:
    """Packs that this process has open and that have no name any more."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(str(entry.readlink()))
    return [target for target in found if target.endswith(".pack (deleted)")]


def hold(store: Store) -> list[str]:
    """Have all packs open; once they are gone, return those that were not let go of."""
    root = store._parts.layout.root
    before = packs_of(root)
    for _, record in store.scan("thing"):
        read(store, record.holds[0])
    print("open", flush=True)  # noqa: T201 - to the test
    deadline = time.monotonic() + _WITHIN_S
    left = ["not collected"]
    while left and time.monotonic() < deadline:
        store.moment()  # at work
        left = removed() if len(packs_of(root)) < len(before) else left
    return left


@pytest.mark.parametrize("script", [_FSCK, _APART])
def test_a_command_that_takes_long_lets_go_of_what_is_removed(script: str, tmp_path: Path) -> None:
    """A check and a scrub had it open; a second after it was removed they have not."""
    root = tmp_path / "root"
    for number in range(2):  # in packs of their own
        with Store.open(root, create=True) as store:
            push(store, f"noise {number}", noise(1 << 20, number))
            line = order_for(store, KeepingSettings()).to_line().decode()
    with start_python(script, root) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(line)
        process.stdin.flush()
        assert process.stdout.readline() == "open\n"
        with Store.open(root) as store:
            store.change(lambda names: names.delete(Name("thing", "noise 0")))
        assert run_cas("gc", "--grace", "0", "--root", root).returncode == 0
        assert process.wait(2 * _WITHIN_S) == 0
