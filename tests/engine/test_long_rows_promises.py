"""Long rows of the index, put, replaced, lost and read in any order, by this version and an older one (I2, I9)."""

# ruff: noqa: SLF001 - what a promise rests on is looked at inside, not only from the front

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path

import lmdb
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from cas import Depth, Digest, EngineSettings, Name, Store, rebuild_index, restore
from cas.environment import Environment, Transaction
from cas.rows import HEAD_BYTES, LONG, PIECES, Pieces, sealed
from cas.tables import TABLES
from tests.engine.test_long_rows import looked_at, statistics
from tests.support.engine import KIB, noise, opened, push, read
from tests.support.losing import lose
from tests.support.processes import run_python, run_to_its_death

PIECE_BYTES = HEAD_BYTES - len(sealed(b"", b""))
HEAD = HEAD_BYTES - len(sealed(b"", b""))  # of a value whose row is as long as a head
KEYS = [b"\1" + bytes(32), b"\1" + bytes(31) + b"\1", b"\2" + bytes(64), bytes(8), bytes(9), bytes(10), bytes(12)]
LENGTHS = [0, 1, HEAD - 1, HEAD, HEAD + 1, HEAD + 2, 2 * HEAD_BYTES, 3 * PIECE_BYTES, 20_000, 65_536]
Where = tuple[str, bytes]

tables = st.sampled_from(sorted(LONG))
places = st.tuples(tables, st.sampled_from(KEYS))
values = st.builds(lambda size, seed: random.Random(seed).randbytes(size), st.sampled_from(LENGTHS), st.integers(0, 99))


class Rows(RuleBasedStateMachine):
    """One environment, a dict that says what has to be in it, and readers of what was in it before."""

    map_bytes = 1 << 30

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.rows: dict[Where, bytes] = {}
        self.old: set[Where] = set()  # as an older version wrote them
        self.readers: list[tuple[lmdb.Transaction, dict[Where, bytes]]] = []
        self.env = self.open()

    def open(self) -> Environment:
        return Environment(self.folder, TABLES, map_bytes=self.map_bytes, max_readers=16)

    def teardown(self) -> None:
        self.end_readers()
        self.env.close()
        shutil.rmtree(self.folder)

    def end_readers(self) -> None:
        for txn, _ in self.readers:
            txn.abort()
        self.readers.clear()

    @rule(at=places, value=values)
    def put(self, at: Where, value: bytes) -> None:
        self.env.write(lambda tx: tx.put(*at, value))
        self.rows[at] = value
        self.old.discard(at)

    @rule(some=st.dictionaries(places, values, max_size=5), gone=st.sets(places, max_size=3), fails=st.booleans())
    def change_at_once(self, some: dict[Where, bytes], gone: set[Where], *, fails: bool) -> None:
        def change(tx: Transaction) -> None:
            for at, value in some.items():
                tx.put(*at, value)
            for at in gone:
                tx.delete(*at)
            if fails:
                raise ZeroDivisionError

        def work(tx: Transaction) -> None:
            try:
                with tx.nested() as inner:
                    change(inner)
            except ZeroDivisionError:
                assert fails

        self.env.write(work)
        if not fails:
            self.rows |= some
            self.old -= some.keys() | gone
            for at in gone:
                self.rows.pop(at, None)

    @rule(at=places)
    def delete(self, at: Where) -> None:
        assert self.env.write(lambda tx: tx.delete(*at)) == (at in self.rows)
        self.rows.pop(at, None)
        self.old.discard(at)

    @rule(at=places, value=values)
    def put_as_before(self, at: Where, value: bytes) -> None:
        """In one, however long; an older version never came to a row in pieces."""
        if at in self.rows and at not in self.old:
            return
        self.env.write(lambda tx: tx._txn.put(at[1], sealed(at[1], value), db=tx._tables[at[0]]))
        self.rows[at] = value
        self.old.add(at)

    @rule(key=st.sampled_from(KEYS))
    def lose(self, key: bytes) -> None:
        def move(tx: Transaction) -> None:
            if (value := tx.get("blobs", key)) is not None:
                tx.put("lost", key, value)
                tx.delete("blobs", key)

        self.env.write(move)
        if ("blobs", key) in self.rows:
            self.rows["lost", key] = self.rows.pop(("blobs", key))
            self.old -= {("blobs", key), ("lost", key)}

    @precondition(lambda self: self.map_bytes > 1 << 20 and len(self.readers) < 3)
    @rule()
    def begin_reader(self) -> None:
        self.readers.append((self.env._env.begin(), dict(self.rows)))

    @rule()
    def open_anew(self) -> None:
        self.end_readers()
        self.env.close()
        self.env = self.open()

    @rule()
    def be_copied(self) -> None:
        """As a backup does."""
        folder = Path(tempfile.mkdtemp())
        self.env.copy(folder, lambda _: None)
        copy = Environment(folder, TABLES, map_bytes=self.map_bytes, max_readers=16)
        assert copy.read(seen) == self.rows
        copy.close()
        shutil.rmtree(folder)

    @invariant()
    def all_is_there(self) -> None:
        assert self.env.read(seen) == self.rows
        pieces = self.env.read(lambda tx: tx.count(PIECES))
        assert pieces == sum(-(-max(0, len(row) - HEAD + 2) // PIECE_BYTES) for row in self.new() if len(row) >= HEAD)
        assert self.env.read(lambda tx: list(tx.strays())) == []
        assert self.env.flaw() is None
        for txn, rows in self.readers:
            assert seen(Transaction(txn, self.env._tables, self.env._env, "")) == rows

    def new(self) -> list[bytes]:
        return [row for at, row in self.rows.items() if at not in self.old]


class CrampedRows(Rows):
    """The same where the map has to grow in the middle of it."""

    map_bytes = 1 << 17


def seen(tx: Transaction) -> dict[Where, bytes]:
    """All rows, by a walk; each is asked for by its key, too."""
    found = {(table, key): value for table in LONG for key, value in tx.cursor(table)}
    for table in LONG:
        for key in KEYS:
            assert tx.get(table, key) == found.get((table, key))
    return found


@pytest.mark.parametrize("machine", [Rows, CrampedRows])
def test_rows_are_what_was_put_whoever_wrote_them(machine: type[Rows]) -> None:
    """Whole or not there, for those who came before a change and for those who come after; no piece stays behind."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=30, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


BLOBS = {size: noise(size, size) for size in (100, HEAD, HEAD + 1, 20 * KIB, 64 * KIB)}
SETTINGS = EngineSettings(reserve_bytes=0)


def made(root: Path) -> dict[int, Digest]:
    """A store with small blobs of many lengths, a lost one, and a session."""
    with opened(root, SETTINGS) as store:
        found = {size: push(store, str(size), data) for size, data in BLOBS.items()}
        lose(store, push(store, "lost", noise(30 * KIB)))
        with store.resume(7) as upload:
            upload.write(noise(40 * KIB))
            upload.suspend()
    return found


def as_before(root: Path, *, every: int = 1) -> None:
    """Write rows in one, as older versions did: each of them, or every so many."""

    def change(env: lmdb.Environment, txn: lmdb.Transaction) -> None:
        tables = {name: env.open_db(name.encode(), txn, dupsort=several) for name, several in TABLES.items()}
        pieces, number = Pieces(txn, tables), 0
        for table in sorted(LONG):
            for key, head in list(txn.cursor(tables[table])):
                assert isinstance(key, bytes)
                assert isinstance(head, bytes)
                number += 1
                if number % every == 0:
                    row = pieces.whole(table, key, head)
                    pieces.drop(table, key)
                    txn.put(key, row, db=tables[table])

    looked_at(root, change, write=True)


@pytest.mark.parametrize("every", [1, 2, 3])
def test_a_store_of_an_older_version_goes_on_whole(tmp_path: Path, every: int) -> None:
    """Read, checked, copied, brought back, made anew, and with sessions that go on and lost blobs that come back."""
    root, backup, back = tmp_path / "root", tmp_path / "backup", tmp_path / "back"
    digests = made(root)
    as_before(root, every=every)
    with Store.open(root, SETTINGS) as store:
        assert {finding.check for finding in store.check(Depth.DEEP)} == {"lost"}
        assert store.backup(backup).damaged == []
        lost = push(store, "lost", noise(30 * KIB))
        with store.resume(7) as upload:
            assert upload.size == 40 * KIB
            upload.write(noise(10 * KIB, 2))
            assert upload.suspend() == 50 * KIB
        assert store.backup(backup).damaged == []
        assert list(store.check(Depth.DEEP)) == []
    restore(backup, back, SETTINGS)
    for each in (root, back):
        for is_new in (False, True):
            if is_new:
                rebuild_index(each, SETTINGS, force=True)
            with Store.open(each, SETTINGS) as store:
                assert list(store.check(Depth.DEEP)) == []
                assert {size: read(store, digest) for size, digest in digests.items()} == BLOBS
                assert read(store, lost) == noise(30 * KIB)


@pytest.mark.parametrize("every", [1, 2, 99])
def test_collected_rows_leave_no_piece_whoever_wrote_them(tmp_path: Path, every: int) -> None:
    """Blobs, lost blobs and sessions, in one and in pieces."""
    made(tmp_path)
    as_before(tmp_path, every=every)
    with Store.open(tmp_path, SETTINGS) as store:
        store.change(lambda names: [names.delete(Name("thing", path)) for path in [*map(str, BLOBS), "lost"]])
        assert store.collect().blobs == len(BLOBS) + 1
        assert store.expire_uploads(float("inf"), float("inf")) == 1
        assert list(store.check()) == []
    assert {table: statistics(tmp_path, table) for table in (*LONG, PIECES)} == dict.fromkeys((*LONG, PIECES), (0, 0))


@pytest.mark.parametrize("at", [0, 1, 8, 14])
def test_a_process_killed_among_pieces_leaves_what_was_there(tmp_path: Path, at: int) -> None:
    """Of the row that was to be replaced, and of the one that was to come."""
    script = """
import os, signal, sys
from pathlib import Path
import cas.rows
from cas import EngineSettings, Store
from tests.support.engine import KIB, noise, push
left, sealed = int(sys.argv[2]), cas.rows.sealed
def dying(key, value):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return sealed(key, value)
cas.rows.sealed = dying
with Store.open(Path(sys.argv[1]), EngineSettings(reserve_bytes=0)) as store:
    with store.resume(7) as upload:
        upload.write(noise(20 * KIB, 3))
        upload.suspend()
    push(store, "new", noise(64 * KIB, 4))
"""
    digests = made(tmp_path)
    before = {table: statistics(tmp_path, table) for table in (*LONG, PIECES)}
    run_to_its_death(script, tmp_path, str(at))
    assert {table: statistics(tmp_path, table) for table in (*LONG, PIECES)} == before
    with Store.open(tmp_path, SETTINGS) as store:
        assert {finding.check for finding in store.check(Depth.DEEP)} == {"lost"}
        assert {size: read(store, digest) for size, digest in digests.items()} == BLOBS
        with store.resume(7) as upload:
            assert upload.size == 40 * KIB


def test_where_pieces_find_no_room_nothing_of_them_stays(tmp_path: Path) -> None:
    """The file may not grow: refused, and taken once it may."""
    script = """
import resource, signal, sys
from pathlib import Path
from cas import CasError, EngineSettings, Store
from tests.support.engine import KIB, noise, push, read
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
root = Path(sys.argv[1])
with Store.open(root, EngineSettings(reserve_bytes=0)) as store:
    push(store, "a", b"a")
    size, most = (root / "index" / "data.mdb").stat().st_size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 8192, most))
    said = None
    for number in range(20):
        try:
            push(store, f"new {number}", noise(64 * KIB, number))
        except CasError as error:
            said = said or error
    print(type(said).__name__, said)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
with Store.open(root, EngineSettings(reserve_bytes=0)) as store:
    print({finding.check for finding in store.check()}, store._parts.index.read(lambda view: view.strays()))
    digest = push(store, "new", noise(64 * KIB, 99))
    assert read(store, digest) == noise(64 * KIB, 99)
    print(len(store.scan("thing")))
"""
    made(tmp_path)
    said = run_python(script, tmp_path).stdout.splitlines()
    assert said[0].startswith("DiskFailed")
    assert said[1] == "{'lost'} 0"
