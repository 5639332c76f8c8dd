"""The LMDB environment of one process: opening, map growth, short transactions, and LMDB's errors in our words.

Layer: L2. Knows nothing of tables. LMDB's traps live here: one environment a process, never used after a fork, a map
that any process may grow, a read transaction that pins pages for as long as it lives.
"""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, TypeVar, cast, final

import lmdb

from cas import slots
from cas.errors import Busy, CasError, Damaged, DiskFailed, Forbidden, InUse, NoSpace, UnsafeFilesystem
from cas.gate import Gate
from cas.pagefile import TRIES, is_empty, metas_flaw, state_flaw
from cas.rows import Pieces, sealed, unsealed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

T = TypeVar("T")
_OPEN: set[str] = set()  # real paths: a second opening in one process would end the first one's locks
_ROOM = 1 << 20  # bytes: with fewer left a disk is full, whatever it says
_GROWTH = 64  # pages by which the file may grow before dead readers are looked for
_FORMAT = 0  # the engine of LMDB 0.9; an environment variable must not choose our file format
_DAMAGE = (
    lmdb.CorruptedError,
    lmdb.PageNotFoundError,
    lmdb.InvalidError,
    lmdb.VersionMismatchError,
    lmdb.IncompatibleError,  # tables are opened as they were made
    lmdb.BadDbiError,
)


class MapFull(BaseException):
    """The map must grow and the work run again. Not an `Exception`, so that no callback can swallow it."""


class Environment:
    """One LMDB environment with its named tables."""

    def __init__(self, path: Path, tables: dict[str, bool], *, map_bytes: int, max_readers: int) -> None:
        """Open, and create what is missing.

        Args:
            path: folder of the environment.
            tables: name → whether a key may have several (sorted) values.
            map_bytes: first size of the map; an existing larger file wins.
            max_readers: reader slots, fixed by whoever opens first.

        Raises:
            InUse: this process has it open already.
            DiskFailed, NoSpace, Damaged: LMDB could not open it.
        """
        self._place = os.path.realpath(path)
        if self._place in _OPEN:
            raise InUse(f"{path} is open in this process already; share that Store object, or close it first")
        self._pid, self._kinds = os.getpid(), tables
        self._gate, self._errors = Gate(), _Errors(self._place)
        if what := metas_flaw(self._place, tables):
            raise damaged(what)
        slots.allocate(self._place, max_readers)
        with self._errors:
            self._env = lmdb.open(
                os.fsencode(path),
                map_size=map_bytes,
                max_dbs=len(tables),
                max_readers=max_readers,
                mode=0o640,  # hashes of passwords are in it, and keys
                lib_version=_FORMAT,
            )
            self._tables = self._opened(tables)
            self._last_page = int(self._env.info()["last_pgno"])  # when it was last looked whether a reader is dead
        _OPEN.add(self._place)

    def _opened(self, tables: dict[str, bool]) -> dict[str, lmdb._Database]:
        while True:
            try:
                return {name: self._env.open_db(name.encode(), dupsort=several) for name, several in tables.items()}
            except lmdb.MapResizedError:  # another process is making it larger
                self._env.set_mapsize(0)

    def flaw(self) -> str | None:
        """Return what is wrong with the pages of the present state, without letting LMDB walk them; None if nothing is.

        Raises:
            Busy: others commit faster than the state can be caught.
        """
        while True:
            try:
                with self._inside, self._errors:
                    return _flaw(self._env, self._place, self._kinds)
            except lmdb.MapResizedError:
                self._resize(0)

    def read(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` in a short read transaction and return its result."""
        while True:
            try:
                with self._inside, self._errors, self._env.begin(buffers=False) as txn:
                    return work(Transaction(txn, self._tables, self._env, self._place))
            except lmdb.MapResizedError:
                self._resize(0)

    def read_now(self, work: Callable[[Transaction], T]) -> T | None:
        """Run `work` as `read` does, unless that means to wait for anybody: then return None."""
        if not self._gate.enter_now():
            return None
        try:
            with self._errors, self._env.begin(buffers=False) as txn:
                return work(Transaction(txn, self._tables, self._env, self._place))
        except lmdb.MapResizedError:
            return None
        finally:
            self._gate.leave()

    def write(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` in a write transaction, then commit durably. It runs again if the map had to grow."""
        while True:
            try:
                with self._inside, self._errors:
                    with self._env.begin(write=True) as txn:
                        result = work(Transaction(txn, self._tables, self._env, self._place))
                    self._mind_growth()
            except lmdb.MapResizedError:
                self._resize(0)
            except (lmdb.MapFullError, MapFull):
                self._resize(self._env.info()["map_size"] * 2)
            else:
                return result

    def _mind_growth(self) -> None:
        """Free the slots of dead readers if the file grew: what they saw is kept, and all else takes new pages."""
        last_page = int(self._env.info()["last_pgno"])
        if last_page >= self._last_page + _GROWTH:
            self._last_page = last_page
            with suppress(lmdb.Error):  # what was committed is
                self._env.reader_check()

    def copy(self, folder: Path, work: Callable[[Transaction], T]) -> T:
        """Copy the environment as it is at one moment to an empty folder, and return what `work` saw of that moment.

        Its pages are pinned meanwhile: what others change takes new ones, so the file may grow.
        """
        while True:
            try:
                with self._inside, self._errors, self._env.begin(buffers=False) as txn:
                    self._env.copy(os.fsencode(folder), compact=True, txn=txn)  # type: ignore[arg-type]
                    return work(Transaction(txn, self._tables, self._env, self._place))
            except lmdb.MapResizedError:
                self._resize(0)

    def moment(self) -> int | None:
        """Return the number of the last commit of any process, without waiting; None where that cannot be told now.

        A commit may show here a little before a read sees it, and never after.
        """
        if not self._gate.enter_now():
            return None
        try:
            return int(self._env.info()["last_txnid"])
        finally:
            self._gate.leave()

    def check_readers(self) -> int:
        """Free the reader slots of dead processes; return how many there were."""
        with self._inside, self._errors:
            return int(self._env.reader_check())

    def close(self) -> None:
        """Close for good; transactions under way end first."""
        with self._gate.alone():
            self._gate.close()
            self._env.close()
            _OPEN.discard(self._place)

    def _resize(self, size: int) -> None:
        with self._gate.alone(), self._errors:
            self._env.set_mapsize(size)

    @property
    def _inside(self) -> Gate:
        """Where every transaction is inside for as long as it lives."""
        assert os.getpid() == self._pid, "an LMDB environment must not cross a fork"
        return self._gate


class Transaction:
    """A transaction over the named tables. Lives inside the callback it was given to; nothing of it may leave.

    LMDB 0.9 has no checksums, so every row of a table with one value a key carries one over key and value (I9).
    """

    __slots__ = ("_env", "_pieces", "_place", "_tables", "_txn")

    def __init__(self, tx: lmdb.Transaction, tables: dict[str, lmdb._Database], env: lmdb.Environment, at: str) -> None:
        self._txn, self._tables, self._env, self._place = tx, tables, env, at
        self._pieces = Pieces(tx, tables)

    @property
    def moment(self) -> int:
        """The number of the commit whose outcome is seen here, or within a write the one that it will have."""
        return int(self._txn.id())

    def get(self, table: str, key: bytes) -> bytes | None:
        """Return the value of a key.

        Raises:
            Damaged: the row is not what was written.
        """
        stored = cast("bytes | None", self._txn.get(key, db=self._tables[table]))
        return None if stored is None else unsealed(key, self._pieces.whole(table, key, stored))

    def put(self, table: str, key: bytes, value: bytes) -> None:
        """Set a key's value."""
        self._txn.put(key, self._pieces.put(table, key, sealed(key, value)), db=self._tables[table])

    def add(self, table: str, key: bytes, value: bytes) -> None:
        """Add one to the values of a key, in a table of several."""
        self._txn.put(key, value, db=self._tables[table])

    def values(self, table: str, key: bytes, start: bytes = b"", limit: int | None = None) -> list[bytes]:
        """Return the values of a key from `start` on, in a table of several."""
        cursor = self._txn.cursor(db=self._tables[table])
        found = cursor.set_range_dup(key, start) if start else cursor.set_key(key)
        return cast("list[bytes]", list(islice(cursor.iternext_dup(), limit))) if found else []

    def delete(self, table: str, key: bytes, value: bytes = b"") -> bool:
        """Remove a key, or one of its values."""
        self._pieces.drop(table, key)
        return bool(self._txn.delete(key, value, db=self._tables[table]))

    def count(self, table: str) -> int:
        """Return how many entries a table has."""
        return int(self._txn.stat(self._tables[table])["entries"])

    def cursor(self, table: str) -> Cursor:
        """Return a cursor over a table of one value a key."""
        return Cursor(self._txn.cursor(db=self._tables[table]), partial(self._pieces.whole, table))

    def rows(self, table: str) -> Iterator[tuple[bytes, bytes]]:
        """Yield a table's entries as they lie there, unchecked."""
        yield from cast("Iterator[tuple[bytes, bytes]]", self._txn.cursor(db=self._tables[table]))

    def strays(self) -> Iterator[bytes]:
        """Yield the keys of pieces of long rows that belong to none."""
        yield from self._pieces.strays()

    def places(self, table: str) -> Iterator[tuple[bytes, bytes]]:
        """Yield a table's entries in the order they lie there: keys with nothing, or with one value of several."""
        several = self._tables[table].flags()["dupsort"]
        cursor = self._txn.cursor(db=self._tables[table])
        if several:
            yield from cast("Iterator[tuple[bytes, bytes]]", cursor)
        else:
            yield from ((key, b"") for key in cast("Iterator[bytes]", cursor.iternext(keys=True, values=False)))

    @contextmanager
    def nested(self) -> Iterator[Transaction]:
        """Yield a transaction within this one: what raises inside leaves nothing behind, and the outer one goes on."""
        try:
            with _Errors(self._place), self._env.begin(parent=self._txn, write=True) as child:
                yield Transaction(child, self._tables, self._env, self._place)
        except lmdb.MapFullError as error:
            raise MapFull from error


@final
class Cursor:
    """A place in a table, in byte order; after a delete it stands on the next entry, or on none.

    Raises:
        Damaged: by whatever returns a value, if the row is not what was written.
    """

    __slots__ = ("_cursor", "_whole")

    def __init__(self, cursor: lmdb.Cursor, whole: Callable[[bytes, bytes], bytes]) -> None:
        """Not for callers: use `Transaction.cursor`; `whole` returns the row that begins with a stored value."""
        self._cursor, self._whole = cursor, whole

    def seek(self, key: bytes) -> bool:
        """Go to the first entry from `key` on."""
        return self._cursor.set_range(key)

    def next(self) -> bool:
        """Go to the following entry."""
        return self._cursor.next()

    def prev(self) -> bool:
        """Go to the entry before."""
        return self._cursor.prev()

    def last(self) -> bool:
        """Go to the last entry."""
        return self._cursor.last()

    def delete(self) -> bool:
        """Remove the entry."""
        return self._cursor.delete()

    def key(self) -> bytes:
        """Return the entry's key; empty where there is no entry."""
        return cast("bytes", self._cursor.key())

    def value(self) -> bytes:
        """Return the entry's value."""
        return unsealed(key := self.key(), self._whole(key, cast("bytes", self._cursor.value())))

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield the entry here and every one that follows; all of them if no place was looked for."""
        for key, stored in cast("Iterator[tuple[bytes, bytes]]", self._cursor):
            yield key, unsealed(key, self._whole(key, stored))


def inspect(path: Path, tables: dict[str, bool], *, max_readers: int) -> str | None:
    """Return what is wrong with the pages of an environment that this process has not opened; None if nothing is.

    Args:
        path, tables, max_readers: as for `Environment`.

    Raises:
        DiskFailed, NoSpace, Busy: it could not be looked at.
    """
    place = os.path.realpath(path)
    if (what := metas_flaw(place, tables)) or is_empty(place):
        return what  # of one without a page it is for whoever opens it to say whether there should be some
    slots.allocate(place, max_readers)
    encoded = os.fsencode(place)
    try:
        with (
            _Errors(place),
            lmdb.open(encoded, readonly=True, create=False, max_readers=max_readers, lib_version=_FORMAT) as env,
        ):
            return _flaw(env, place, tables)
    except Damaged as error:
        return str(error.__cause__)  # LMDB says so itself


def _flaw(env: lmdb.Environment, place: str, tables: dict[str, bool]) -> str | None:
    for _ in range(TRIES):
        with env.begin() as txn:  # pins the pages of its state
            found, what = state_flaw(place, txn.id(), tables)
            if found:
                return what
    raise Busy("others commit faster than the state of the index can be caught; try again")


def is_open_here(path: Path) -> bool:
    """Tell whether this process has an environment open; then it must not touch its files (see `_OPEN`)."""
    return os.path.realpath(path) in _OPEN


def damaged(what: object) -> Damaged:
    """Say that the index cannot be believed, and what to do."""
    return Damaged(f"the index is damaged ({what}); stop the server and run cas fsck --rebuild-index --force")


def _is_full(place: str) -> bool:
    stat = os.statvfs(place)
    return stat.f_bavail * stat.f_frsize < _ROOM


class _Errors:
    """`with` it, what LMDB raises comes out in our words."""

    def __init__(self, place: str) -> None:
        self._place = place

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """End."""
        if isinstance(error, lmdb.Error) and not isinstance(error, lmdb.MapFullError | lmdb.MapResizedError):
            raise _said(error, self._place) from error


def _said(error: lmdb.Error, place: str) -> CasError:
    if isinstance(error, lmdb.ReadersFullError):
        return Busy("too many reads at once (all reader slots of the index are taken); try again")
    if isinstance(error, _DAMAGE):
        return damaged(error)
    # A write that the full disk took half comes back as an error of input or output.
    is_full = os.strerror(errno.ENOSPC) in (said := str(error)) or (os.strerror(errno.EIO) in said and _is_full(place))
    if is_full or isinstance(error, lmdb.DiskError):
        return NoSpace("the disk is full (the index cannot grow); free some space and try again")
    if os.strerror(errno.ENODEV) in said:  # what mmap(2) says where there is no such thing
        return UnsafeFilesystem(f"{place} has no memory maps (mergerfs needs cache.files=auto-full); use another disk")
    if os.strerror(errno.EACCES) in said:
        return Forbidden(f"the index is out of reach ({error}); mend owner, permissions or mount")
    return DiskFailed(f"the index was not read or written ({error}); see the system's log, run cas fsck")
