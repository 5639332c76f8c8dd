"""The stored form of a row of the index: sealed by a sum, and in pieces of a page each where it is longer than that.

Layer: L1. LMDB puts a value that does not fit beside others into pages that follow each other. Of those that were freed
few do, after a while, and whoever wants 17 of them has all looked through: a push took 150 ms in a store that had let
go of 25,000 small blobs. A page by itself is always to be had.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, cast, final

import xxhash

from cas.errors import Damaged

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import lmdb

PIECES = "pieces"  # the table that has all of a long row but its beginning
LONG = frozenset({"blobs", "lost", "sessions"})  # tables that may have long rows: those of bytes that clients sent
HEAD_BYTES = 4080  # a page of 4 KiB without its header; rows of older versions may be longer
_SEAL_BYTES = 4  # enough to notice rot; against ill will nothing in the index helps
_COUNT = struct.Struct(">H")
_FIRST_BYTES = HEAD_BYTES - _COUNT.size
_PIECE_BYTES = HEAD_BYTES - _SEAL_BYTES


def sealed(key: bytes, value: bytes) -> bytes:
    """Return a value with its sum, which covers its key."""
    return value + xxhash.xxh3_64_digest(key + value)[:_SEAL_BYTES]


def unsealed(key: bytes, stored: bytes) -> bytes:
    """Return what was sealed.

    Raises:
        Damaged: it is not what was written.
    """
    value = stored[:-_SEAL_BYTES]
    if xxhash.xxh3_64_digest(key + value)[:_SEAL_BYTES] != stored[-_SEAL_BYTES:]:
        raise Damaged("a row of the index is damaged; stop the server and run cas fsck --rebuild-index --force")
    return value


@final
class Pieces:
    """What follows the heads of long rows, within one transaction. A head says how many pieces follow it."""

    __slots__ = ("_db", "_tables", "_txn")

    def __init__(self, txn: lmdb.Transaction, tables: Mapping[str, lmdb._Database]) -> None:
        self._txn, self._tables, self._db = txn, tables, tables[PIECES]

    def put(self, table: str, key: bytes, row: bytes) -> bytes:
        """Put what is too long of a sealed row, for what was there; return its head, which is all of it mostly."""
        self.drop(table, key)
        if len(row) < HEAD_BYTES or table not in LONG:
            return row
        parts = [row[at : at + _PIECE_BYTES] for at in range(_FIRST_BYTES, len(row), _PIECE_BYTES)]
        keys = _keys(table, key, len(parts))
        self._txn.cursor(db=self._db).putmulti(
            [(each, sealed(each, part)) for each, part in zip(keys, parts, strict=True)]
        )
        return row[:_FIRST_BYTES] + _COUNT.pack(len(parts))

    def whole(self, table: str, key: bytes, head: bytes) -> bytes:
        """Return the sealed row that begins with a head.

        Raises:
            Damaged: a piece is not what was written.
        """
        if len(head) != HEAD_BYTES or table not in LONG:
            return head
        (first,) = _keys(table, key, 1)
        if self._txn.get(first, db=self._db) is None:
            return head  # an older version wrote it, and it happens to be as long
        keys = _keys(table, key, _count(head))
        found = cast("list[tuple[bytes, bytes]]", self._txn.cursor(db=self._db).getmulti(keys))
        return head[:_FIRST_BYTES] + b"".join(unsealed(*each) for each in found)

    def drop(self, table: str, key: bytes) -> None:
        """Remove the pieces of a row that goes, or changes: all that are there, whatever its head says."""
        head = cast("bytes | None", self._txn.get(key, db=self._tables[table])) if table in LONG else None
        if head is None or len(head) != HEAD_BYTES:
            return
        start, cursor = _start(table, key), self._txn.cursor(db=self._db)
        more = cursor.set_range(start)
        while more and (at := cast("bytes", cursor.key())).startswith(start):
            more = cursor.delete() if len(at) == len(start) + _COUNT.size else cursor.next()

    def strays(self) -> Iterator[bytes]:
        """Yield the keys of pieces that no head counts."""
        owner, count, tables = b"", 0, {table[:1].encode(): table for table in LONG}
        for at in cast("Iterator[bytes]", self._txn.cursor(db=self._db).iternext(keys=True, values=False)):
            if at[: -_COUNT.size] != owner:
                owner, table = at[: -_COUNT.size], tables.get(at[:1])
                head = cast("bytes | None", table and self._txn.get(owner[1:], db=self._tables[table]))
                count = _count(head) if head is not None and len(head) == HEAD_BYTES else 0
            if int.from_bytes(at[-_COUNT.size :], "big") >= count:
                yield at


def _count(head: bytes) -> int:
    return int(_COUNT.unpack_from(head, _FIRST_BYTES)[0])


def _start(table: str, key: bytes) -> bytes:
    return table[:1].encode() + key


def _keys(table: str, key: bytes, count: int) -> list[bytes]:
    return [_start(table, key) + _COUNT.pack(number) for number in range(count)]
