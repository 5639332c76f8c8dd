"""Files in `locks/` that somebody tidies away, by age say, cost nothing that was acknowledged (I1, I7, I8)."""

# ruff: noqa: SLF001 - what a promise rests on is looked at inside, not only from the front

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cas import Depth, DiskFailed, InUse, Name, Store, rebuild_index
from cas.lease import maintenance_lock
from cas.tables import MARKING
from tests.engine.test_opening import NEWCOMER, make
from tests.support.engine import KIB, SMALL, noise, opened, push, read
from tests.support.processes import run_python

WATCHED = ["journal", "epochs", "packs"]


def marks(store: Store) -> bool:
    return bool(store._parts.index.read(lambda view: view.number(MARKING)))


def test_two_collections_never_go_on_at_once_whatever_was_removed(tmp_path: Path) -> None:
    """The second one would take off the list what was pushed while the first one marked, which then takes that."""
    data, at, is_over = noise(200 * KIB), 0, False
    while not is_over:
        root = tmp_path / str(at)
        with opened(root) as store:
            push(store, "old", data)
            store.change(lambda names: names.delete(Name("thing", "old")))
            left = at

            def between(store: Store = store, root: Path = root) -> None:
                nonlocal left
                left -= marks(store)
                if left == -1 and marks(store):
                    left -= 1
                    push(store, "new", data)
                    (root / "locks" / "gc").unlink()
                    with pytest.raises(InUse, match="under way"):
                        store.collect(wait_s=1)

            store.collect(progress=between)
            is_over = left >= 0
            if not is_over:
                assert read(store, store.scan("thing")[0][1].holds[0]) == data
            assert list(store.check(Depth.DATA)) == []
        at += 1
    assert at > 3


def test_maintenance_whose_file_was_removed_goes_on_alone(tmp_path: Path) -> None:
    """And leaves nothing behind that would keep the next one out."""
    with opened(tmp_path) as store:
        with maintenance_lock(store._parts.layout):
            (tmp_path / "locks" / "gc").unlink()
            with pytest.raises(InUse, match="under way"), maintenance_lock(store._parts.layout, 0.1):
                raise AssertionError
        with maintenance_lock(store._parts.layout):
            pass


def test_a_collection_says_that_the_packs_were_moved_away(tmp_path: Path) -> None:
    """And goes on once they are back."""
    with opened(tmp_path) as store:
        moved = (tmp_path / "packs").rename(tmp_path / "away")
        with pytest.raises(DiskFailed, match="packs/ was moved away or removed; put it back"):
            store.collect()
        moved.rename(tmp_path / "packs")
        store.collect()


@pytest.mark.parametrize("lock", WATCHED)
def test_who_has_a_store_open_of_which_a_lock_went_reads_on_and_keeps_no_newcomer_in_the_dark(
    tmp_path: Path, lock: str
) -> None:
    """Neither would see what the other one holds; so nothing new is taken, and nobody let in, until all ended."""
    with opened(tmp_path) as store:
        digest = push(store, "kept", noise(200 * KIB))
        path = tmp_path / "locks" / lock
        path.unlink()
        told = run_python(NEWCOMER, tmp_path).stdout
        assert f"{path} was removed while the store is open" in told
        assert not path.exists()
        for size in (200 * KIB, 1):
            with pytest.raises(DiskFailed, match=rf"^locks/{lock} was removed while .* stop them all"):
                push(store, "new", noise(size, 1))
        path.touch()  # as an older version does, which does not look
        with pytest.raises(DiskFailed, match=f"^locks/{lock} was removed while"):
            push(store, "new", noise(200 * KIB, 1))
        with pytest.raises(DiskFailed, match=f"^locks/{lock} was removed while"):
            store.tick()
        assert read(store, digest) == noise(200 * KIB)
    with Store.open(tmp_path, SMALL) as store:
        assert read(store, push(store, "new", noise(200 * KIB, 1))) == noise(200 * KIB, 1)
        assert [name.path for name, _ in store.scan("thing")] == ["kept", "new"]
    assert rebuild_index(tmp_path, SMALL, force=True).damaged == []


def test_what_a_lock_stands_beside_may_be_copied_and_put_back(tmp_path: Path) -> None:
    """As by an operator who notices what was removed: the file is another one, so nobody is let go on by it."""
    make(tmp_path)
    with opened(tmp_path) as store:
        path = tmp_path / "locks" / "epochs"
        Path(shutil.copy(path, tmp_path / "copy")).replace(path)
        with pytest.raises(DiskFailed, match="locks/epochs was removed"):
            push(store, "new", b"new")
