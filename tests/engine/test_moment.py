"""The number of the present moment: the same as long as nothing changed, and never again after."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from subprocess import run
from typing import Any

import lmdb
import pytest

from cas import EngineSettings, Name, Names, Record, Store
from tests.support.engine import noise
from tests.support.processes import start_python

NAME = Name("tag", "a")
SETTINGS = EngineSettings(map_bytes=1 << 20)
ROOT = Path(__file__).parents[2]
CHANGE = """
import sys
from pathlib import Path
from cas import Name, Record, Store
with Store.open(Path(sys.argv[1])) as store:
    store.change(lambda names: names.put(Name("tag", "b"), Record(b"")))
"""
MUCH = """
import os, sys
from pathlib import Path
from cas import Name, Record, Store
with Store.open(Path(sys.argv[1])) as store:
    for number in range(40):
        store.change(lambda names: names.put(Name("tag", str(number)), Record(os.urandom(100_000))))
"""
MUCH_LATER = """
import os, sys
from pathlib import Path
from cas import Name, Record, Store
with Store.open(Path(sys.argv[1])) as store:
    print("open", flush=True)
    sys.stdin.readline()
    for number in range(40):
        store.change(lambda names: names.put(Name("tag", str(number)), Record(os.urandom(100_000))))
    print("done", flush=True)
    sys.stdin.readline()
"""


def test_a_read_is_of_the_present_moment_until_something_changes(tmp_path: Path) -> None:
    """Puts and deletes alike; a read alone changes nothing."""
    with Store.open(tmp_path / "root", create=True) as store:
        seen = store.read(lambda reads: reads.moment)
        assert store.moment() == seen == store.read(lambda reads: reads.moment)
        for value in (b"1", b"2"):
            store.change(partial(Names.put, name=NAME, record=Record(value)))
            assert store.moment() == store.read(lambda reads: reads.moment) > seen
            seen = store.read(lambda reads: reads.moment)
        store.change(lambda names: names.delete(NAME))
        assert store.moment() != seen


def test_a_change_by_another_process_moves_it_on(tmp_path: Path) -> None:
    """Without a word between the two."""
    with Store.open(tmp_path / "root", create=True) as store:
        before = store.read(lambda reads: reads.moment)
        run([sys.executable, "-c", CHANGE, str(tmp_path / "root")], cwd=ROOT, check=True)
        assert store.moment() != before


def test_it_is_told_across_a_growing_index(tmp_path: Path) -> None:
    """Another process's pages may lie where this one's map does not reach; the number does not."""
    settings = EngineSettings(map_bytes=1 << 20)
    with Store.open(tmp_path / "root", settings, create=True) as store:
        for number in range(40):
            record = Record(noise(100_000, number))
            store.change(partial(Names.put, name=Name("tag", str(number)), record=record))
            assert store.moment() == store.read(lambda reads: reads.moment)


def test_it_is_not_told_while_somebody_else_is_moving_the_map(tmp_path: Path) -> None:
    """Instead of waiting for that; nor does anybody read that does not want to wait."""
    with Store.open(tmp_path / "root", create=True) as store:
        with store._parts.index._env._gate.alone():  # noqa: SLF001 - what a growing map holds
            assert store.moment() is None
            assert store.read_now(lambda reads: reads.moment) is None
        assert store.moment() == store.read_now(lambda reads: reads.moment) is not None


def test_who_does_not_want_to_wait_does_not_read_what_another_process_put_beyond_the_map(tmp_path: Path) -> None:
    """To reach it the map must be moved, and whoever reads by it would have to leave first."""
    with Store.open(tmp_path / "root", EngineSettings(map_bytes=1 << 20), create=True) as store:
        run([sys.executable, "-c", MUCH, str(tmp_path / "root")], cwd=ROOT, check=True)
        assert store.read_now(lambda reads: reads.moment) is None
        assert store.read(lambda reads: reads.moment) == store.read_now(lambda reads: reads.moment)


def test_a_store_opens_while_another_process_makes_its_index_larger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the opening of the file and the first look at its tables."""
    with Store.open(tmp_path / "root", SETTINGS, create=True):
        pass
    lmdb_open = lmdb.open
    with start_python(MUCH_LATER, tmp_path / "root") as other:
        assert other.stdin is not None
        assert other.stdout is not None
        says, hears = other.stdout, other.stdin

        def meanwhile(*given: Any, **more: Any) -> lmdb.Environment:
            env = lmdb_open(*given, **more)
            hears.write("go on\n")
            hears.flush()
            assert says.readline() == "done\n"
            return env

        assert says.readline() == "open\n"
        monkeypatch.setattr("cas.environment.lmdb.open", meanwhile)
        with Store.open(tmp_path / "root", SETTINGS) as store:
            assert len(store.scan("tag")) == 40
        hears.write("end\n")
    assert other.returncode == 0


def test_a_closed_store_has_none(tmp_path: Path) -> None:
    """And its memory is not looked at."""
    store = Store.open(tmp_path / "root", create=True)
    store.close()
    assert store.moment() is None
    assert store.read_now(lambda reads: reads.moment) is None
