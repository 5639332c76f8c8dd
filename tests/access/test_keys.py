"""The keyring: one for all processes, made once, turned without anybody noticing."""

from __future__ import annotations

from pathlib import Path

import pytest

from api.access import keys
from cas import Store
from tests.access.conftest import NOON
from tests.support.engine import SMALL
from tests.support.processes import start_python
from tests.support.serving import run_cas

_START = """
import sys
from pathlib import Path
from api.access import keys
from cas import Store
with Store.open(Path(sys.argv[1])) as store:
    print("open", flush=True)
    sys.stdin.readline()
    keys.ensure(store, 0)
    print(store.read(keys.read).newest.id)
"""


def test_processes_that_start_together_share_one_key(tmp_path: Path) -> None:
    """Whoever asks first makes it; it is there after a restart."""
    Store.open(tmp_path / "root", create=True).close()
    workers = [start_python(_START, tmp_path / "root") for _ in range(3)]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "open\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    told = {worker.communicate()[0].strip() for worker in workers}
    assert [worker.returncode for worker in workers] == [0, 0, 0]
    with Store.open(tmp_path / "root") as store:
        keys.ensure(store, NOON)
        ring = store.read(keys.read)
    assert told == {ring.newest.id}
    assert len(ring.keys) == 1
    assert len(ring.newest.secret) == keys.SECRET_BYTES


@pytest.mark.parametrize("keep", [0, 2])
def test_a_rotation_elsewhere_is_seen_at_once_and_keeps_what_it_was_told(tmp_path: Path, keep: int) -> None:
    """The newest signs; older ones verify until they are dropped."""
    with Store.open(tmp_path / "root", create=True) as store:
        keys.ensure(store, NOON)
        ids = [store.read(keys.read).newest.id]
        for _ in range(3):
            assert run_cas("key", "rotate", "--keep", str(keep), "--root", tmp_path / "root").returncode == 0
            ring = store.read(keys.read)
            assert ring.newest.id not in ids
            ids.append(ring.newest.id)
        known = [key for key in ids if ring.find(key) is not None]
        assert known == ids[-1 - keep :]
        assert ring.find("") is None


def test_a_loop_looks_only_for_what_was_seen_within_the_last_minute(tmp_path: Path) -> None:
    """What was not may have to come from the disk; a rotation is seen at once either way."""
    now = 0.0
    with Store.open(tmp_path / "root", SMALL, create=True) as store:
        keys.ensure(store, NOON)
        nearby = keys.Nearby(store, lambda: now)
        assert nearby.read_now() is None
        assert nearby.read()[0] == store.read(keys.read)
        for _ in range(3):
            now += 60
            store.change(lambda names: keys.rotate(names, NOON, 1))
            found = nearby.read_now()
            assert found is not None
            assert found[0] == store.read(keys.read)
        now += 61
        assert nearby.read_now() is None


def test_a_store_without_a_key_gets_one_by_a_rotation(tmp_path: Path) -> None:
    """An operator may turn the ring before the first start."""
    with Store.open(tmp_path / "root", SMALL, create=True) as store:
        ring = store.change(lambda names: keys.rotate(names, NOON, 1))
        assert len(ring.keys) == 1
        keys.ensure(store, NOON)
        assert store.read(keys.read) == ring
